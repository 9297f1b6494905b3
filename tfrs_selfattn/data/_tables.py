"""Opens one table file lazily, whatever its layout, and finds rows in it again.

Knows file formats, not events: what the columns mean is decided in `events.py`.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tfrs_selfattn._checks import InputError


@dataclass(frozen=True)
class TextLayout:
    """How a text file writes rows down. `columns` name the fields without a header."""

    separator: str
    columns: tuple[str, ...] | None = None
    quote: str | None = None


_RATINGS = ("user_id", "item_id", "rating", "timestamp")
MOVIELENS_100K = TextLayout("\t", _RATINGS)
# The separator is "::"; Polars takes one character, which leaves empty fields between.
MOVIELENS_1M = TextLayout(
    ":", ("user_id", "_1", "item_id", "_2", "rating", "_3", "timestamp")
)
RECBOLE = TextLayout("\t")

_BY_NAME = {"u.data": MOVIELENS_100K, "ratings.dat": MOVIELENS_1M}
_BY_SUFFIX = {
    ".csv": TextLayout(",", quote='"'),
    ".tsv": TextLayout("\t", quote='"'),
    ".inter": RECBOLE,
    ".item": RECBOLE,
    ".user": RECBOLE,
}
SUFFIXES = (".csv", ".tsv", ".parquet", ".avro", ".inter")


@dataclass(frozen=True)
class Table:
    """A lazy frame that remembers its file. Columns of text files are strings."""

    frame: pl.LazyFrame
    path: Path | None = None
    layout: TextLayout | None = None

    @property
    def name(self) -> str:
        return "the data frame" if self.path is None else str(self.path)

    def schema(self) -> pl.Schema:
        try:
            return self.frame.collect_schema()
        except pl.exceptions.NoDataError:
            raise InputError(
                f"{self.name} is empty. A header line and at least one event were "
                "expected. Check how the file was written."
            ) from None
        except pl.exceptions.PolarsError as error:
            raise self.unreadable(error) from None

    def head(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Reads the first row of a frame made from this table's."""
        try:
            return frame.head(1).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise self.unreadable(error) from None

    def is_empty(self) -> bool:
        """Whether there is no row. Rows that cannot be read are rows."""
        if self.path is None or self.layout is None:
            return self.head(self.frame).is_empty()
        with open(self.path, "rb") as file:
            if self.layout.columns is None:
                file.readline()
            return not any(line.strip() for line in file)

    def unreadable(self, error: Exception) -> InputError:
        """Explains why Polars could not read the file, with the line where it can."""
        fault = None
        if self.path is not None and self.layout is not None:
            fault = _broken_line(self.path, self.layout)
        return InputError(
            f"{self.name} cannot be read: {fault or str(error).splitlines()[0]}. "
            "Correct the file or write it anew."
        )

    def place(self, row: int) -> str:
        """Names a row, given from 0, the way a person looks for it."""
        if self.layout is None or self.path is None:
            return f"{self.name}, row {row + 1}"
        header = 0 if self.layout.columns else 1
        with open(self.path, encoding="utf-8", errors="replace", newline="") as file:
            reader = text_reader(file, self.layout)
            for _ in itertools.islice(reader, row + header):
                pass
            line = reader.line_num + 1
        return f"{self.name}, row {row + 1} (line {line})"


def scan_table(path: Path) -> Table:
    """Opens a file by its name: known MovieLens files, or by the ending."""
    if path.suffix == ".parquet":
        return Table(pl.scan_parquet(path, glob=False), path)
    if path.suffix == ".avro":
        return Table(_read_avro(path).lazy(), path)
    layout = _BY_NAME.get(path.name) or _BY_SUFFIX.get(path.suffix)
    if layout is None:
        raise InputError(
            f"The kind of a file is read off its ending, one of {', '.join(SUFFIXES)}, "
            f"or its MovieLens name, u.data or ratings.dat. Received: {path}. "
            "Rename or convert the file."
        )
    frame = pl.scan_csv(
        path,
        separator=layout.separator,
        has_header=layout.columns is None,
        new_columns=layout.columns,
        quote_char=layout.quote,
        infer_schema=False,  # Ids such as "007" must stay what they are.
        glob=False,
    )
    if layout is RECBOLE:  # Header fields read "user_id:token".
        frame = frame.rename(lambda column: column.partition(":")[0])
    return Table(frame, path, layout)


def _read_avro(path: Path) -> pl.DataFrame:
    """Reads a whole file: Polars has no lazy reader of Avro."""
    try:
        return pl.read_avro(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path} must be an Avro file of records. It cannot be read "
            f"({str(error).splitlines()[0]}). Write it anew."
        ) from None


def _broken_line(path: Path, layout: TextLayout) -> str | None:
    """Says which line is no UTF-8 or has too many fields, None if none does."""
    with open(path, "rb") as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return f"line {number} is not UTF-8 text"
    with open(path, encoding="utf-8", newline="") as file:
        reader = text_reader(file, layout)
        expected = len(layout.columns or next(reader, ()))
        for row in reader:
            if len(row) > expected:
                return (
                    f"line {reader.line_num} has {len(row)} fields instead of "
                    f"{expected}"
                )
    return None


def text_reader(file: Iterable[str], layout: TextLayout) -> Any:
    """Python's reader of such a file, which forgives what Polars does not."""
    return csv.reader(
        file,
        delimiter=layout.separator,
        quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
    )
