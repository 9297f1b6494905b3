"""Entry point of `tfrs-selfattn`: environment, commands, errors, exit status."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import typer

from tfrs_selfattn import InputError, __version__
from tfrs_selfattn.cli.benchmark import benchmark
from tfrs_selfattn.cli.evaluate import evaluate
from tfrs_selfattn.cli.explain import explain
from tfrs_selfattn.cli.export import export
from tfrs_selfattn.cli.prepare import prepare
from tfrs_selfattn.cli.quickstart import quickstart
from tfrs_selfattn.cli.recommend import recommend
from tfrs_selfattn.cli.recommend_all import recommend_all
from tfrs_selfattn.cli.refresh import refresh
from tfrs_selfattn.cli.train import train

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    help="Sequential recommenders with self-attention, from an event log to a "
    "SavedModel for TensorFlow Serving.",
    epilog="Start with: tfrs-selfattn quickstart",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help keeps the line breaks of examples
)
for command in (
    quickstart,
    train,
    evaluate,
    export,
    refresh,
    recommend,
    explain,
    benchmark,
):
    app.command()(command)
# What follows these is an option of theirs or of Beam's.
_WITH_PIPELINE = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=_WITH_PIPELINE)(prepare)
app.command(context_settings=_WITH_PIPELINE)(recommend_all)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print it."
    ),
    debug: bool = typer.Option(
        False,
        "--debug",
        help="Show the traceback of an error and TensorFlow's log. Works anywhere.",
    ),
) -> None:
    """Options before the command; `main` takes `--debug` out wherever it stands."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 wrong use.

    Args:
        arguments: strings. None takes those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    wanted = [argument for argument in given if argument != "--debug"]
    debug = len(wanted) < len(given)
    _prepare_environment(debug)
    try:
        sys.exit(run(wanted))
    except Exception as error:
        if debug:
            raise
        message, status = describe(error)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(status)


def _prepare_environment(debug: bool) -> None:
    # TensorFlow reads these when it is imported, which the commands do later.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if debug:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Titles may not fit the terminal's charset.
            stream.reconfigure(errors="replace")


def run(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit status unless it raises."""
    # Not standalone, so that wrong use reaches `main` as an exception like any other.
    status: int | None = typer.main.get_command(app)(
        list(arguments) or ["--help"], prog_name="tfrs-selfattn", standalone_mode=False
    )
    if status == INTERRUPTED:
        print("stopped; to continue a training run, repeat it", file=sys.stderr)
    return status or DONE


def describe(error: Exception) -> tuple[str, int]:
    """The one line to print for an error, and the exit status."""
    if isinstance(error, InputError):
        return _one_line(_name_options(str(error))), WRONG_USE
    if hasattr(error, "format_message"):  # of the Click that Typer brings along
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "tfrs-selfattn"
        message = _one_line(error.format_message()).rstrip(".")
        return f"{message}. See {command} --help.", WRONG_USE
    message, kind = _one_line(str(error)), type(error)
    if kind.__module__.startswith("tfrs_selfattn."):  # says all there is to say
        return message, FAILED
    return f"{kind.__name__}: {message} (--debug shows where)", FAILED


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _name_options(message: str) -> str:
    """Names an argument of Python, `num_heads=3`, by its option, `--num-heads 3`."""
    message = re.sub(r" \(in Python: \w+=…\)", "", message)  # The option stands before.
    message = message.replace("in Python: ", "")
    for name, option in _option_names().items():
        message = re.sub(rf"`{name}`", option, message)
        message = re.sub(rf"\b{name}=", f"{option} ", message)
    return message


def _option_names() -> dict[str, str]:
    """{"num_heads": "--num-heads"} of every option of every command."""
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    return {
        parameter.name: parameter.opts[0]
        for command in commands
        for parameter in command.params
        if parameter.opts[0].startswith("--")
    }
