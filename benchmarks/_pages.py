"""Puts the tables that a script prints into the page that shows them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def replace_tables(page: Path, tables: Iterable[str]) -> None:
    """Replaces tables of a page, each by the one with the same head.

    Args:
        page: a Markdown file, in which blank lines surround every table.
        tables: Markdown, without blank lines.
    """
    blocks = page.read_text(encoding="utf-8").split("\n\n")
    for table in tables:
        head = table.partition("\n")[0]
        places = [row for row, block in enumerate(blocks) if block.startswith(head)]
        if len(places) != 1:
            raise SystemExit(f"{page} must have one table with the head {head}")
        blocks[places[0]] = table
    page.write_text("\n\n".join(blocks), encoding="utf-8")
