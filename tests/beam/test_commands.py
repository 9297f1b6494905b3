"""The commands of the how-to are understood: ours by us, the runners' by Beam."""

from __future__ import annotations

import pytest
import typer

from tests.test_docs import DOCS, blocks_of
from tests.test_readme import commands_in
from tfrs_selfattn.cli.main import app

COMMANDS = [
    words
    for language, text in blocks_of(DOCS / "how-to" / "beam.md")
    if language == "bash"
    for words in commands_in(text)
    if "--runner" in words
]


def test_every_runner_has_a_command():
    runners = {words[words.index("--runner") + 1] for words in COMMANDS}
    assert runners == {
        *("DirectRunner", "FlinkRunner", "PortableRunner", "DataflowRunner")
    }


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: f"{words[0]} {words[-1]}")
def test_beam_knows_the_options_that_are_not_ours(words):
    from tfrs_selfattn.beam.pipeline import pipeline_options

    name, *rest = words
    command = typer.main.get_command(app).commands[name]
    with command.make_context(name, list(rest)) as context:
        runner, arguments = context.params["runner"], list(context.args)
    options = pipeline_options(runner, arguments).get_all_options()
    assert options["runner"] == runner
    # Not only known: taken, each with its value.
    assert runner == "DirectRunner" or arguments
    for argument in arguments:
        option, _, value = argument.removeprefix("--").partition("=")
        taken = options[option]
        assert value in map(str, taken if isinstance(taken, list) else [taken])
