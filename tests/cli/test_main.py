"""The entry point: help, version, exit status and the wording of errors."""

from __future__ import annotations

import inspect
import re

import pytest

import tfrs_selfattn
from tfrs_selfattn.cli import main as entry
from tfrs_selfattn.cli._report import Report, shell

COMMANDS = (
    *("quickstart", "train", "evaluate", "export", "refresh", "recommend", "explain"),
    "benchmark",
)


def test_help_of_all(cli):
    done = cli("--help")
    assert (done.status, done.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*[a-z0-9K]\.$", done.out, re.MULTILINE)
    assert cli().out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_worked_example_and_json(cli, command):
    done = cli(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert "--json" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    doc = inspect.getdoc(getattr(entry, command))
    example = re.search(r"Example:\n((?:    .*\n?)+)", doc)[1]
    assert example.startswith(f"    tfrs-selfattn {command} ")
    # As it is written, line breaks and all, so that it can be pasted.
    for line in example.rstrip().splitlines():
        assert f"  {line}\n" in done.out
    # What it names exists: nothing in it is refused before the files are looked at.
    words = re.sub(r"\\\n", " ", example).replace('"', "").split()[1:]
    options = {word for word in words if word.startswith("--")}
    assert all(f"  {option} " in done.out for option in options)


def test_version(cli):
    done = cli("--version")
    assert (done.status, done.out, done.err) == (
        0,
        f"{tfrs_selfattn.__version__}\n",
        "",
    )


def test_help_and_version_load_nothing_heavy(run_python):
    program = """
import sys
from tfrs_selfattn.cli.main import main
for words in (["--version"], ["--help"], ["train", "--help"], ["train", "--epochs"]):
    try:
        main(words)
    except SystemExit as exit:
        print("status", exit.code)
heavy = {"keras", "numpy", "polars", "tensorflow", "tf_keras", "urllib.request"}
print("loaded", sorted(heavy & set(sys.modules)))
"""
    done = run_python("-c", program)
    assert done.stdout.endswith("status 2\nloaded []\n")


def test_the_module_is_the_command(run_python):
    done = run_python("-m", "tfrs_selfattn", "--version")
    assert (done.returncode, done.stdout) == (0, f"{tfrs_selfattn.__version__}\n")


@pytest.fixture
def failing(monkeypatch, cli):
    """A function that lets `evaluate` fail with this error and returns what is seen."""

    def failing(error, *words):
        def open(path):
            raise error

        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        monkeypatch.setattr(tfrs_selfattn.training.RunFolder, "open", open)
        return cli("evaluate", "run", *words)

    return failing


def test_what_is_no_wrong_use_fails_with_status_1(failing):
    done = failing(RuntimeError("the disk\n  is full"))
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: RuntimeError: the disk is full (--debug shows where)\n"


@pytest.mark.parametrize("words", [["--debug"], ["--keep-seen", "--debug", "--json"]])
def test_debug_shows_the_traceback_wherever_it_stands(failing, words):
    with pytest.raises(RuntimeError, match="the disk"):
        failing(RuntimeError("the disk"), *words)
    with pytest.raises(tfrs_selfattn.InputError):
        failing(tfrs_selfattn.InputError("the option"), *words)


def test_an_interrupt_is_no_error(failing):
    done = failing(KeyboardInterrupt())
    assert (done.status, done.out) == (130, "")
    assert done.err == "stopped; to continue a training run, repeat it\n"


def test_arguments_of_python_are_named_by_their_options(failing):
    done = failing(
        tfrs_selfattn.InputError(
            "`num_heads` must be x. Received: num_heads=3. Name it with --user-column "
            "(in Python: user_column=…). Or rename it (in Python: pass title_column=…)."
        )
    )
    assert done.status == 2
    assert done.err == (
        "error: --num-heads must be x. Received: --num-heads 3. Name it with "
        "--user-column. Or rename it (pass --title-column …).\n"
    )


def test_a_wrong_word_is_one_line(cli):
    done = cli("quickstrat")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert re.search(r"^error: .*'quickstrat'.* See tfrs-selfattn --help\.$", done.err)


def test_printed_commands_can_be_pasted():
    assert shell("tensorboard", "--logdir", "my run/$x") == (
        "tensorboard --logdir 'my run/$x'"
    )


def test_titles_are_printed_as_they_are_and_ids_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    report = Report(as_json=False)
    report.table(("id", "title"), [("x" * 36, "[REC] :smile: [b]")])
    report.say("[b] " + "y" * 100)
    out = capsys.readouterr().out
    assert "[REC]" in out
    assert ":smile:" in out
    assert out.count("x") == 36
    assert "[b] " + "y" * 100 + "\n" in out


def test_a_terminal_without_the_letters_of_a_title_is_no_reason_to_fail(run_python):
    program = (
        "from tfrs_selfattn.cli import main\n"
        "from tfrs_selfattn.cli._report import Report\n"
        "main._prepare_environment(False)\n"
        "Report(False).table(('title',), [('Les Misérables',)])"
    )
    done = run_python("-c", program, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stdout
    assert "Les Mis?rables" in done.stdout
