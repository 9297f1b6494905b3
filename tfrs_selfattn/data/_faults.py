"""Finds the first row of an event log that cannot be used, and says why.

Reading only counts what is wrong; these functions run when something is, and may read
the log a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data import _times

if TYPE_CHECKING:
    from tfrs_selfattn.data.events import Events


def has_faults(log: pl.DataFrame) -> bool:
    """Whether a canonical frame with categorical ids holds an unusable id or time."""
    if any(log.null_count().row(0)):
        return True
    for column in ("user_id", "item_id"):
        distinct = log[column].unique().cast(pl.String).to_frame()
        if not distinct.filter(_unusable_id(column)).is_empty():
            return True
    return False


def raise_first(events: Events) -> None:
    """Raises `InputError` for the first faulty row; blank lines of text are none."""
    for table in events.tables:
        is_text = table.layout is not None
        rows = table.frame.select(
            *events.columns(table),
            written=pl.col(events.time_column).cast(pl.String),
            blank=pl.lit(is_text) & pl.all_horizontal(pl.all().is_null()),
        )
        found = table.head(rows.with_row_index("row").filter(faulty_row()))
        if len(found):
            row = found.row(0, named=True)
            raise InputError(
                f"{table.place(row['row'])}: {fault(events, row)} "
                "Correct or remove this row."
            )


def unreadable(events: Events, error: Exception) -> InputError:
    """Explains a failed scan: with the file at fault, which `error` does not name."""
    for table in events.tables:
        try:
            table.frame.select(events.columns(table)).collect(engine="streaming")
        except pl.exceptions.PolarsError as own_error:
            return table.unreadable(own_error)
        except InputError as explained:
            return explained
    return InputError(f"{events.name} cannot be read: {error}. Check the files.")


def no_events(name: str) -> InputError:
    return InputError(
        f"{name} holds no events. A header and at least one row were expected. "
        "Check how the file was written."
    )


def faulty_row() -> pl.Expr:
    """Whether a canonical row, with `blank`, has an unusable id or time."""
    return ~pl.col("blank") & (
        _unusable_id("user_id")
        | _unusable_id("item_id")
        | pl.col("timestamp").is_null()
    )


def _unusable_id(column: str) -> pl.Expr:
    # A vocabulary is written one id a line, so an id cannot contain a line break.
    broken = pl.col(column).str.contains("[\r\n]")
    return pl.col(column).is_null() | (pl.col(column) == "") | broken


def fault(events: Events, row: dict[str, str | None]) -> str:
    """What is wrong with a faulty row: the column, what it must hold, what it holds."""
    columns = {"user_id": events.user_column, "item_id": events.item_column}
    column, expected, received = events.time_column, _times.EXPECTED, row["written"]
    for key, name in reversed(columns.items()):
        value = row[key]
        if not value or "\n" in value or "\r" in value:
            column, expected, received = name, "an id without line breaks", value
    shown = repr(received) if received else "nothing"
    return f"column {column!r} must hold {expected}. Received: {shown}."
