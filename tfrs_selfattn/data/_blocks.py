"""Reads an event log block by block, and sets aside the rows that cannot be used.

`Events.collect` stops at the first bad row; preparing a log of many files must not.
Here a bad row costs itself only: Polars reads each block, and where it refuses one, a
reader that goes line by line takes its place for that block.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data import _faults, _times
from tfrs_selfattn.data._tables import Table, TextLayout, text_reader
from tfrs_selfattn.data.events import Events

ROWS = 1 << 20  # Rows of a block of a file that is not text.
BYTES = 32 << 20  # Bytes of a block of text, about.
_LONGEST_RECORD = 4 * BYTES  # A quote that is open for longer was a mistake.
_FIRST_TIMES = 1000
_LONGEST_FIELD = 100  # Lines that a quoted field may span in a block with faults.


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Args:
        events: frame of `user_id`, `item_id` (strings), `timestamp` (Int64 Unix
            seconds) and `row` (Int64, from 0 in the file).
        rejected: one JSON object a bad row: `file`, `row` (from 1) and `reason`.
        rows: int. Rows read, blank lines of text not counted.
    """

    events: pl.DataFrame
    rejected: list[str]
    rows: int


def read_blocks(
    events: Events,
    table: Table,
    *,
    first: int = 0,
    count: int | None = None,
    name: str | None = None,
) -> Iterator[Block]:
    """Reads a table of an event log, in order.

    Args:
        events: the log, for its columns.
        table: one of its tables.
        first: int. The row to begin with; not for text. Defaults to `0`.
        count: int or None. Rows to read; None for all. Defaults to `None`.
        name: str or None. What to call the file in rejected rows. Defaults to `None`,
            its path.
    """
    name = name or table.name
    is_text = table.layout is not None
    if table.layout is not None and table.path is not None:
        frames = _text_frames(table.path, table.layout, list(table.schema()))
    else:
        frames = _slices(table, events, first, count)
    numbers = None if is_text else _holds_numbers(table.frame, events.time_column)
    for start, frame, broken in frames:
        if numbers is None:
            numbers = _holds_numbers(frame.lazy(), events.time_column)
        columns = events.columns(table, numbers)
        rows = frame.lazy().select(
            *columns,
            written=pl.col(events.time_column).cast(pl.String),
            blank=pl.lit(is_text) & pl.all_horizontal(pl.all().is_null()),
        )
        rows = rows.with_columns(row=pl.int_range(pl.len()) + start)
        checked = rows.with_columns(faulty=_faults.faulty_row()).collect()
        bad = checked.filter("faulty")
        reasons = {row["row"]: _faults.fault(events, row) for row in bad.to_dicts()}
        reasons |= broken
        good = checked.filter(~pl.col("faulty") & ~pl.col("blank"))
        yield Block(
            events=good.select("user_id", "item_id", "timestamp", "row"),
            rejected=[
                json.dumps({"file": name, "row": row + 1, "reason": reasons[row]})
                for row in sorted(reasons)
            ],
            rows=len(good) + len(reasons),
        )


def _holds_numbers(frame: pl.LazyFrame, column: str) -> bool:
    """Whether times are numbers rather than dates, by most of the first of them."""
    values = frame.select(pl.col(column).cast(pl.String)).head(_FIRST_TIMES).collect()
    known = values.to_series().drop_nulls().to_list()
    return 2 * sum(map(_times.looks_like_number, known)) >= len(known)


def _slices(
    table: Table, events: Events, first: int, count: int | None
) -> Iterator[tuple[int, pl.DataFrame, dict[int, str]]]:
    """Rows of a file that Polars reads in parts: start, rows, nothing broken."""
    needed = [events.user_column, events.item_column, events.time_column]
    frame = table.frame.select(sorted(set(needed)))
    try:
        if count is None:
            count = frame.select(pl.len()).collect().item() - first
        for start in range(first, first + count, ROWS):
            rows = min(ROWS, first + count - start)
            yield start, frame.slice(start, rows).collect(), {}
    except pl.exceptions.PolarsError as error:
        raise table.unreadable(error) from None


def _text_frames(
    path: Path, layout: TextLayout, columns: list[str]
) -> Iterator[tuple[int, pl.DataFrame, dict[int, str]]]:
    """Rows of a text file: number of the first, strings, why some are broken.

    A broken row is blank in the frame.
    """
    schema = dict.fromkeys(columns, pl.String)
    start = 0
    for block in _text_blocks(path, layout):
        broken: dict[int, str] = {}
        try:
            frame = pl.read_csv(
                block,
                has_header=False,
                schema=schema,
                separator=layout.separator,
                quote_char=layout.quote,
            )
        except pl.exceptions.PolarsError:
            rows, broken = _read_line_by_line(block, layout, len(columns), start)
            frame = pl.DataFrame(rows, schema=schema, orient="row")
        yield start, frame, broken
        start += len(frame)


def _text_blocks(path: Path, layout: TextLayout) -> Iterator[bytes]:
    """The bytes of a file without its header, cut between records."""
    quote = (layout.quote or "").encode()
    try:
        with open(path, "rb") as file:
            if layout.columns is None:
                file.readline()
            rest = b""
            while chunk := file.read(BYTES):
                rest += chunk
                stop = _end_of_records(rest, quote)
                if not stop and len(rest) > _LONGEST_RECORD:
                    stop = rest.rfind(b"\n") + 1
                if stop:
                    yield rest[:stop]
                    rest = rest[stop:]
            if rest:
                yield rest
    except OSError as error:
        raise InputError(
            f"{path} must be readable. Received: {error.strerror}. Check the file."
        ) from None


def _end_of_records(text: bytes, quote: bytes) -> int:
    """Where the last whole record ends: after a line break outside of quotes."""
    stop = len(text)
    odd = text.count(quote) % 2 if quote else 0
    while True:
        cut = text.rfind(b"\n", 0, stop)
        if cut < 0:
            return 0
        if quote:
            odd ^= text.count(quote, cut + 1, stop) % 2
        if not odd:
            return cut + 1
        stop = cut


def _read_line_by_line(
    block: bytes, layout: TextLayout, width: int, start: int
) -> tuple[list[list[Any]], dict[int, str]]:
    """Reads a block that Polars refuses: rows of `width` fields, and what is wrong."""
    rows: list[list[Any]] = []
    broken: dict[int, str] = {}
    for record in _records(block, (layout.quote or "").encode()):
        fields: list[Any] = []
        reason = None
        try:
            text = record.decode("utf-8")
            fields = next(text_reader(io.StringIO(text, newline=""), layout), [])
        except UnicodeDecodeError:
            reason = "is not UTF-8 text"
        except csv.Error as error:
            reason = f"cannot be split into fields ({error})"
        if len(fields) > width:
            reason = f"has {len(fields)} fields instead of {width}"
        elif layout.quote and record.count(layout.quote.encode()) % 2:
            reason = "has a quote that is never closed"
        if reason is not None:
            broken[start + len(rows)] = f"The row {reason}."
            fields = []
        values = [field or None for field in fields]
        rows.append(values + [None] * (width - len(values)))
    return rows, broken


def _records(block: bytes, quote: bytes) -> Iterator[bytes]:
    """Lines; several where a quoted field spans them, but not for a stray quote."""
    lines = block.removesuffix(b"\n").split(b"\n")
    place = 0
    while place < len(lines):
        stop = place + 1
        if quote and lines[place].count(quote) % 2:
            for last in range(stop, min(place + _LONGEST_FIELD, len(lines))):
                if lines[last].count(quote) % 2:
                    stop = last + 1
                    break
        yield b"\n".join(itertools.islice(lines, place, stop)).removesuffix(b"\r")
        place = stop
