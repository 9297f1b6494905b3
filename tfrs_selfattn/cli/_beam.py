"""What commands share that can also work on Apache Beam."""

from __future__ import annotations

from typing import Annotated

import typer

from tfrs_selfattn import InputError

Runner = Annotated[
    str | None,
    typer.Option(
        help="Work on Apache Beam: DirectRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner, … Beam's pipeline options may follow.",
        show_default="in this process",
    ),
]


def refuse_more(context: typer.Context) -> None:
    """Refuses pipeline options where no pipeline runs."""
    if context.args:
        raise InputError(
            f"An option of this command was expected. Received: {context.args[0]}. "
            f"Beam's pipeline options need --runner; see {context.command_path} --help."
        )


def check_beam() -> None:
    """Says how to get Apache Beam where it is missing."""
    try:
        import apache_beam  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "--runner needs Apache Beam. Received: an environment without it. Install "
            'it with pip install "tfrs-selfattn[beam]", or leave --runner out.'
        ) from None
