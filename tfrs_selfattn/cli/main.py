"""Entry point of `tfrs-selfattn`: environment, commands, exit status."""

from __future__ import annotations

import os
import sys

# TensorFlow reads these when it is first imported, which the commands do later.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import typer

from tfrs_selfattn import InputError, __version__
from tfrs_selfattn.cli.evaluate import evaluate
from tfrs_selfattn.cli.export import export
from tfrs_selfattn.cli.quickstart import quickstart
from tfrs_selfattn.cli.recommend import recommend
from tfrs_selfattn.cli.train import train

FAILED, WRONG_USE = 1, 2

app = typer.Typer(
    help="Sequential recommenders with self-attention, from an event log to a "
    "SavedModel for TensorFlow Serving.",
    epilog="Start with: tfrs-selfattn quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (quickstart, train, evaluate, export, recommend):
    app.command()(command)


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
        False, "--debug", help="Show the traceback of an error. Works anywhere."
    ),
) -> None:
    """Options before the command; `main` takes `--debug` out wherever it stands."""


def main() -> None:
    """Runs the command line; the exit status is 0 done, 1 failed, 2 wrong use."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments, prog_name="tfrs-selfattn")  # exits by itself, also on wrong use
    except Exception as error:
        if debug:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, InputError):
            print(f"error: {message}", file=sys.stderr)
            sys.exit(WRONG_USE)
        kind = type(error).__name__
        print(f"error: {kind}: {message} (--debug shows where)", file=sys.stderr)
        sys.exit(FAILED)
