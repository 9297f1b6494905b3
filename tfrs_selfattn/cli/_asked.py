"""Whom a command asks: the folder of an export, or a model on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tfrs_selfattn import InputError

BaseArgument: TypeAlias = Annotated[
    Path | None, typer.Argument(help="Folder given to `export --to`.")
]
ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Ask a model server in place of a folder: HOST:PORT for gRPC, "
        "http://HOST:PORT for REST."
    ),
]
ModelOption: TypeAlias = Annotated[
    str, typer.Option(help="The model's name on the server.")
]
ModelVersionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="The version to ask on the server, by number or by label (stable), in "
        "place of the newest."
    ),
]


def check_asked(base: Path | None, server: str | None) -> None:
    """Raises `InputError` unless one of the two is given, and one alone."""
    if (base is None) == (server is None):
        raise InputError(
            "One of the folder of an export and --server must be given. Received: "
            f"{'neither' if base is None else 'both'}. Name the one to ask."
        )


def as_version(text: str | None) -> int | str | None:
    """A version by its number, or by its label."""
    return int(text) if text is not None and text.isdecimal() else text
