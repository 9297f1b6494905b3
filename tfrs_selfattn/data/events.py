"""Reads event logs: who took which item when.

Files are scanned lazily and checked while they are read for use (`Events.collect`);
columns and layout are checked at once. Ordering events by user is `sequences.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data import _faults, _times
from tfrs_selfattn.data._tables import SUFFIXES, Table, scan_table

# Files that hold the events of a folder in which there are others.
_KNOWN = ("u.data", "ratings.dat", "interactions.csv")


@dataclass(frozen=True, eq=False)
class Events:
    """An event log that has not been read yet.

    Args:
        tables: the files, in the order their events count as recorded.
        name: str. What the user calls this log, for messages.
        user_column: str. The column of user ids.
        item_column: str. The column of item ids.
        time_column: str. The column of times.
    """

    tables: tuple[Table, ...]
    name: str
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"

    @property
    def frame(self) -> pl.LazyFrame:
        """`user_id` and `item_id` as strings, `timestamp` as Int64 Unix seconds.

        Nothing is checked: a time that cannot be read is null.
        """
        return pl.concat(
            [table.frame.select(self.columns(table)) for table in self.tables]
        )

    def columns(self, table: Table, numbers: bool | None = None) -> list[pl.Expr]:
        """Returns the expressions that make the columns of `frame` out of a table's.

        Args:
            table: one of the log's.
            numbers: bool or None. Whether times that are text hold numbers or dates;
                None looks at the first. Defaults to `None`.
        """
        dtype = table.schema()[self.time_column]
        if numbers is None:
            numbers = dtype == pl.String and self._holds_numbers(table)
        seconds = _times.unix_seconds(self.time_column, dtype, numbers=numbers)
        return [
            pl.col(self.user_column).cast(pl.String).alias("user_id"),
            pl.col(self.item_column).cast(pl.String).alias("item_id"),
            seconds.alias("timestamp"),
        ]

    def collect(self, more: Sequence[str] = ()) -> pl.DataFrame:
        """Reads and checks all events; ids come as categorical columns.

        Args:
            more: columns of the log to read beside, as they are; they come as
                `"more/NAME"`. Defaults to `()`.

        Raises:
            InputError: at the first row with an id or time that cannot be used, or when
                a column is absent.
        """
        categorical = pl.col("user_id", "item_id").cast(pl.Categorical)
        canonical = ("user_id", "item_id", "timestamp")
        try:
            events = self._with_more(more).with_columns(categorical)
            log: pl.DataFrame = events.collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise _faults.unreadable(self, error) from None
        if _faults.has_faults(log.select(canonical)):
            _faults.raise_first(self)
            log = log.drop_nulls(canonical)  # Only blank lines were at fault.
        if log.is_empty():
            raise _faults.no_events(self.name)
        return log

    def _with_more(self, more: Sequence[str]) -> pl.LazyFrame:
        """`frame` with further columns of the log."""
        for table in self.tables:
            for column in more:
                if column not in table.schema():
                    raise InputError(
                        f"{table.name} must have the column {column!r} of a feature. "
                        f"Received: columns {', '.join(table.schema())}. Correct the "
                        "name, or leave the feature out."
                    )
        others = [pl.col(column).alias(f"more/{column}") for column in more]
        return pl.concat(
            [
                table.frame.select([*self.columns(table), *others])
                for table in self.tables
            ]
        )

    def _holds_numbers(self, table: Table) -> bool:
        first = table.frame.select(self.time_column).drop_nulls()
        values = table.head(first).to_series().to_list()
        return not values or _times.looks_like_number(values[0])


def read_events(
    path: str | os.PathLike[str],
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str = "timestamp",
) -> Events:
    """Opens an event log.

    Args:
        path: a `.csv`, `.tsv`, `.parquet` or `.avro` file or a folder of them, a
            MovieLens folder or file (`u.data`, `ratings.dat`), a folder with
            `interactions.csv` beside other files, or RecBole's `.inter`.
        user_column: str. Defaults to `"user_id"`.
        item_column: str. Defaults to `"item_id"`.
        time_column: str. Unix seconds or ISO times. Defaults to `"timestamp"`.

    Example:

    ```python
    events = tfrs_selfattn.data.read_events("events.csv", user_column="visitor")
    sequences = tfrs_selfattn.data.build_sequences(events)
    ```
    """
    path = Path(path)
    tables = tuple(scan_table(file) for file in _event_files(path))
    return _checked(Events(tables, str(path), user_column, item_column, time_column))


def events_from_frame(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str = "timestamp",
) -> Events:
    """Takes an event log that is a Polars frame; arguments as of `read_events`."""
    table = Table(frame.lazy())
    return _checked(Events((table,), table.name, user_column, item_column, time_column))


def _event_files(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(
            f"The event log must be a file or a folder. Received: {path}, which does "
            "not exist. Check the path."
        )
    for name in _KNOWN:
        if (path / name).is_file():
            return [path / name]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1:
        found = f"files of several kinds ({', '.join(kinds)})" if kinds else "none"
        raise InputError(
            f"A folder of events must hold files of one kind out of "
            f"{', '.join(SUFFIXES)}. Received: {path}, which holds {found}. "
            "Pass one file, or keep the events in a folder of their own."
        )
    return files


def _checked(events: Events) -> Events:
    """Checks columns, types and that there is an event; reads almost nothing."""
    for table in events.tables:
        schema = table.schema()
        for option, column in (
            ("user", events.user_column),
            ("item", events.item_column),
            ("time", events.time_column),
        ):
            if column not in schema:
                raise InputError(
                    f"{table.name} must have a column {column!r}. Received: columns "
                    f"{', '.join(schema)}. Name the column with --{option}-column "
                    f"(in Python: {option}_column=…)."
                )
            dtype = schema[column]
            if not (_times.is_time(dtype) if option == "time" else _is_id(dtype)):
                expected = (
                    _times.EXPECTED if option == "time" else "strings or integers"
                )
                raise InputError(
                    f"{table.name}, column {column!r} must hold {expected}. Received: "
                    f"{dtype}. Convert the column or name another one."
                )
    if all(table.is_empty() for table in events.tables):
        raise _faults.no_events(events.name)
    return events


def _is_id(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum)
