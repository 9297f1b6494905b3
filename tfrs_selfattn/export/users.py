"""Reads whom to recommend to: histories in Parquet, or what `prepare` wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data import prepared
from tfrs_selfattn.export.query_side import QuerySide

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
        side: `QuerySide` of the export, whose features are columns of the files.
    """

    parts: tuple[str, ...]
    items: str | None = None
    side: QuerySide = field(default_factory=QuerySide)

    @cached_property
    def ids(self) -> pl.Series | None:
        """The item ids in index order."""
        return None if self.items is None else pl.read_parquet(self.items)["item_id"]

    def count(self, part: str | Path) -> int:
        """Users of a file, whose columns are checked."""
        frame = pl.scan_parquet(part, glob=False)
        try:
            if self.items is None:
                check_columns(frame.collect_schema(), str(part), self.side)
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
            frame of `user_id`, `history` (a list of ids, oldest first), the columns of
            features and, where the file has them, `exclude`, `timestamps` and
            `request_time`.
        """
        frame = pl.scan_parquet(part, glob=False).slice(first, count)
        if self.ids is None:
            columns, told = [], told_types(self.side)
            for name in frame.collect_schema():
                if name in _SCHEMA:
                    column = pl.col(name).cast(_SCHEMA[name], strict=False)
                    # Nobody's history is an empty one.
                    if name in _LISTS:
                        column = column.fill_null(pl.lit([], _LISTS[name]))
                    columns.append(column)
                elif name in told:
                    columns.append(pl.col(name).cast(told[name]))
            try:
                return frame.select(columns).collect()
            except pl.exceptions.InvalidOperationError as error:
                raise InputError(
                    f"Columns of features must hold what the model was trained on: "
                    f"{', '.join(told)}. Received: {part}, where one does not "
                    f"({str(error).splitlines()[0]}). Correct the file."
                ) from None
        table = frame.select("user_id", "items", "timestamps").collect()
        flat = table["items"].explode(empty_as_null=False) - 1
        history = to_lists(self.ids.gather(flat), table["items"].list.len().to_numpy())
        return table.select("user_id", "timestamps", history=history)


def told_types(side: QuerySide) -> Mapping[str, pl.DataType]:
    """The columns of features in a file of users: one value, or a list of them."""
    found: dict[str, pl.DataType] = {}
    for feature, of_event in side.features():
        value = pl.String() if feature.dtype == "string" else pl.Float32()
        several = of_event or bool(feature.shape)
        found[feature.name] = pl.List(value) if several else value
    return found


def find_users(
    users: str | os.PathLike[str], side: QuerySide | None = None
) -> UserSource:
    """Opens `--users`: a folder that `prepare` wrote, or Parquet of histories.

    Args:
        users: path of a prepared folder, a `.parquet` file, or a folder of them, with
            the columns `user_id` and `history`, a list of item ids, oldest first; and
            optionally `exclude`, a list of item ids, `timestamps`, a list of Unix
            seconds, and `request_time`.
        side: `QuerySide` of the export, or None. The files have a column of each of its
            features: one value a user, a list of numbers for a vector, and of events a
            list as long as the history. A value may be missing, the column may not.
            Defaults to `None`.

    Raises:
        InputError: when it is neither.
    """
    path, side = Path(users), side or QuerySide()
    if path.is_dir() and prepared.is_prepared(path):
        check_no_features(path, side)
        log = prepared.read_prepared(path)
        return UserSource(tuple(map(str, log.parts)), str(log.data / prepared.ITEMS))
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(
            "--users must be a folder written by `prepare`, a Parquet file or a folder "
            f"of them. Received: {path}, which is none. Write histories as Parquet "
            "with the columns user_id and history."
        )
    return UserSource(tuple(map(str, files)), side=side)


def check_no_features(path: object, side: QuerySide) -> None:
    """Checks that an export may be asked for users of a prepared folder.

    Raises:
        InputError: when it takes features, which `prepare` does not write.
    """
    told = told_types(side)
    if told:
        raise InputError(
            "--users must be Parquet files for an export that takes features of users, "
            f"requests or events: {', '.join(told)}. Received: {path}, written by "
            "`prepare`, which has none. Write user_id, history and these columns."
        )


def check_columns(schema: pl.Schema, name: str, side: QuerySide) -> None:
    """Checks the columns of a file of users."""
    told = told_types(side)
    missing = [column for column in (*_NEEDED, *told) if column not in schema]
    lists = [*_LISTS, *(name for name in told if isinstance(told[name], pl.List))]
    wrong = [
        f"{column} of {schema[column]}"
        for column in (*lists, *told)
        if column in schema and isinstance(schema[column], pl.List) != (column in lists)
    ]
    if missing or wrong:
        features = f", and features: {', '.join(told)}" if told else ""
        raise InputError(
            "Users must have the column user_id, and history as a list of ids"
            f"{features}. "
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
