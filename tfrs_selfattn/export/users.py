"""Reads whom to recommend to: histories in Parquet, or what `prepare` wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data import prepared

_LISTS: dict[str, pl.DataType] = {
    "history": pl.List(pl.String),
    "exclude": pl.List(pl.String),
    "timestamps": pl.List(pl.Int64),
}
_SCHEMA = pl.Schema({"user_id": pl.String(), **_LISTS, "request_time": pl.Int64()})
_NEEDED = ("user_id", "history")


@dataclass(frozen=True)
class UserSource:
    """Files of users.

    Args:
        parts: the Parquet files, in order.
        items: the items of a prepared log, whose files have item indices in place of
            ids; None for others.
    """

    parts: tuple[str, ...]
    items: str | None = None

    @cached_property
    def ids(self) -> pl.Series | None:
        """The item ids in index order."""
        return None if self.items is None else pl.read_parquet(self.items)["item_id"]

    def count(self, part: str | Path) -> int:
        """Users of a file, whose columns are checked."""
        frame = pl.scan_parquet(part, glob=False)
        try:
            if self.items is None:
                check_columns(frame.collect_schema(), str(part))
            users: int = frame.select(pl.len()).collect().item()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"--users must be Parquet files. {part} cannot be read "
                f"({str(error).splitlines()[0]}). Write it anew."
            ) from None
        return users

    def read(self, part: str | Path, first: int, count: int) -> pl.DataFrame:
        """Users `first:first + count` of a file.

        Returns:
            frame of `user_id`, `history` (a list of ids, oldest first) and, where the
            file has them, `exclude`, `timestamps` and `request_time`.
        """
        frame = pl.scan_parquet(part, glob=False).slice(first, count)
        if self.ids is None:
            columns = []
            for name in frame.collect_schema():
                if name in _SCHEMA:
                    column = pl.col(name).cast(_SCHEMA[name], strict=False)
                    # Nobody's history is an empty one.
                    if name in _LISTS:
                        column = column.fill_null(pl.lit([], _LISTS[name]))
                    columns.append(column)
            return frame.select(columns).collect()
        table = frame.select("user_id", "items", "timestamps").collect()
        flat = table["items"].explode(empty_as_null=False) - 1
        history = to_lists(self.ids.gather(flat), table["items"].list.len().to_numpy())
        return table.select("user_id", "timestamps", history=history)


def find_users(users: str | os.PathLike[str]) -> UserSource:
    """Opens `--users`: a folder that `prepare` wrote, or Parquet of histories.

    Args:
        users: path of a prepared folder, a `.parquet` file, or a folder of them, with
            the columns `user_id` and `history`, a list of item ids, oldest first; and
            optionally `exclude`, a list of item ids, `timestamps`, a list of Unix
            seconds, and `request_time`.

    Raises:
        InputError: when it is neither.
    """
    path = Path(users)
    if path.is_dir() and prepared.is_prepared(path):
        log = prepared.read_prepared(path)
        return UserSource(tuple(map(str, log.parts)), str(log.data / prepared.ITEMS))
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(
            "--users must be a folder written by `prepare`, a Parquet file or a folder "
            f"of them. Received: {path}, which is none. Write histories as Parquet "
            "with the columns user_id and history."
        )
    return UserSource(tuple(map(str, files)))


def check_columns(schema: pl.Schema, name: str) -> None:
    """Checks the columns of a file of users."""
    missing = [column for column in _NEEDED if column not in schema]
    wrong = [
        f"{column} of {schema[column]}"
        for column in _LISTS
        if column in schema and not isinstance(schema[column], pl.List)
    ]
    if missing or wrong:
        raise InputError(
            "Users must have the column user_id, and history as a list of ids. "
            f"Received: {name}, "
            + (f"without {', '.join(missing)}" if missing else f"with {wrong[0]}")
            + ". Write the file with these columns."
        )


def to_lists(flat: pl.Series, lengths: npt.NDArray[np.integer]) -> pl.Series:
    """Cuts values into lists of these lengths."""
    rows = pl.Series(np.repeat(np.arange(len(lengths)), lengths))
    found = pl.DataFrame({"row": rows, "values": flat}).group_by("row").agg("values")
    every = pl.DataFrame({"row": np.arange(len(lengths))})
    lists = every.join(found, on="row", how="left", maintain_order="left")["values"]
    nobody = pl.lit([], pl.List(flat.dtype))
    return lists.to_frame().select(pl.col("values").fill_null(nobody)).to_series()
