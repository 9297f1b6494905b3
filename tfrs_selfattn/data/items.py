"""Reads the titles of items, to show people names instead of ids."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._tables import Table, scan_table

# MovieLens files: fields are separated so, the id comes first and the title second.
_MOVIELENS = {"u.item": "|", "movies.dat": "::"}


def read_titles(
    path: str | os.PathLike[str],
    *,
    item_column: str = "item_id",
    title_column: str = "title",
) -> dict[str, str]:
    """Reads a file of items. Items without a title are left out.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file, MovieLens' `u.item` or `movies.dat`,
            or RecBole's `.item`, whose release year is added to the title.
        item_column: str. Defaults to `"item_id"`.
        title_column: str. Defaults to `"title"`.

    Returns:
        dict from item id to title.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"The item file must be a file. Received: {path}, which is none. "
            "Check the path."
        )
    if path.name in _MOVIELENS:
        return _read_movielens(path, _MOVIELENS[path.name])
    table = scan_table(path)
    schema = table.schema()
    title: pl.Expr
    if path.suffix == ".item" and {"movie_title", "release_year"} <= set(schema):
        title = with_year("movie_title", "release_year")
    else:
        _check_column(table, title_column, "title_column")
        title = pl.col(title_column).cast(pl.String)
    _check_column(table, item_column, "item_column")
    item = pl.col(item_column).cast(pl.String)
    try:
        rows = table.frame.select(item=item, title=title.str.strip_chars()).collect()
    except pl.exceptions.PolarsError as error:
        raise table.unreadable(error) from None
    named = rows.filter(pl.col("title").is_not_null() & (pl.col("title") != ""))
    titles: dict[str, str] = dict(named.filter(pl.col("item") != "").iter_rows())
    return titles


def find_titles(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the titles a folder brings along, else `{}`.

    Those of MovieLens and RecBole, and of an `items.csv` beside `interactions.csv`.
    """
    folder = Path(folder)
    for name in _MOVIELENS:
        if (folder / name).is_file():
            return read_titles(folder / name)
    beside = folder / "items.csv"
    if (folder / "interactions.csv").is_file() and beside.is_file():
        if {"item_id", "title"} <= set(scan_table(beside).schema()):
            return read_titles(beside)
    for path in sorted(folder.glob("*.item")):
        if "movie_title" in scan_table(path).schema():
            return read_titles(path)
    return {}


def _read_movielens(path: Path, separator: str) -> dict[str, str]:
    titles = {}
    for line in path.read_text(encoding="latin-1").split("\n"):
        item, _, rest = line.partition(separator)
        title = rest.partition(separator)[0].strip()
        if title:
            titles[item] = title
    return titles


def with_year(title: str, year: str) -> pl.Expr:
    """Titles of a column, with the year of another one behind them in brackets."""
    dated = pl.format("{} ({})", pl.col(title).str.strip_chars(), pl.col(year))
    # Where the year is no number, the title stands alone.
    return pl.when(pl.col(year).str.contains(r"^\d+$")).then(dated).otherwise(title)


def _check_column(table: Table, column: str, argument: str) -> None:
    schema = table.schema()
    if column not in schema:
        raise InputError(
            f"{table.name} must have a column {column!r}. Received: columns "
            f"{', '.join(schema)}. Rename it, or name another one "
            f"with --{argument.replace('_', '-')} (in Python: {argument}=…)."
        )
