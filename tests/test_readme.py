"""README.md does what it says.

Every Python block runs, each in a process of its own and an empty folder. In shell
blocks each `tfrs-selfattn` command and option must exist; what they do is tested in
`tests/cli`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
BLOCKS = [
    pytest.param(found, id=f"line {README.count(chr(10), 0, found.start('text')) + 1}")
    for found in BLOCK.finditer(README)
]


def in_language(*languages):
    return [block for block in BLOCKS if block.values[0]["language"] in languages]


def commands_in(text):
    """Yields the arguments of every `tfrs-selfattn` call in a shell block."""
    # A quoted value may go on over several lines.
    text = re.sub(r"='[^']*'", lambda value: value[0].replace("\n", " "), text)
    lines = text.replace("\\\n", " ").splitlines()
    for part in re.split(r"&&|\||;|\n", "\n".join(lines)):
        words = shlex.split(part.removeprefix("$ "), comments=True)
        if words[:1] == ["tfrs-selfattn"]:
            yield words[1:]
        elif words[1:3] == ["-m", "tfrs_selfattn"]:
            yield words[3:]


@pytest.fixture(scope="module")
def options_of(run_python):
    """A function from a command's name to the options that its help lists."""
    known = {}
    # A wide terminal without colors, so that no option is cut or broken up.
    env = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}

    def options_of(*command):
        if command not in known:
            done = run_python("-m", "tfrs_selfattn", *command, "--help", env=env)
            assert done.returncode == 0, done.stdout
            known[command] = set(re.findall(r"(?<![\w-])--?\w[\w-]*", done.stdout))
        return known[command]

    return options_of


@pytest.mark.parametrize("block", in_language("python"))
def test_python_blocks_run(block, run_python, ml_100k, tmp_path):
    env = {"PYTHONPATH": str(REPOSITORY), "TFRS_SELFATTN_DATA": str(ml_100k)}
    done = run_python("-c", block["text"], cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", in_language("bash", "console", "sh", "shell"))
def test_shell_blocks_name_commands_and_options_that_exist(block, options_of):
    for words in commands_in(block["text"]):
        command = [word for word in words if not word.startswith("-")][:1]
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        known = options_of() | options_of(*command)
        assert not options - known, f"tfrs-selfattn {shlex.join(words)}"


def test_the_readme_shows_python_and_the_command_line():
    assert in_language("python")
    assert in_language("bash", "console", "sh", "shell")
