"""Reads what is known of items or users: a table with an id and a column a feature."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._tables import Table, scan_table
from tfrs_selfattn.features import movielens
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.features.vector import Vector


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Raw values of n items or users.

    Args:
        ids: list of n ids, all different.
        raw: by name of a feature, an array of n raw values.
        name: str. What the table is called, for messages.
    """

    ids: Sequence[str]
    raw: Mapping[str, npt.NDArray[Any]]
    name: str = "the table"

    def align(
        self, ids: Sequence[str], features: FeatureSet
    ) -> tuple[FeatureTable, list[str]]:
        """The rows of these ids, in this order, and the ids that have none.

        An id without a row gets missing values.

        Raises:
            InputError: when not one of the ids has a row.
        """
        row_of = {each: row for row, each in enumerate(self.ids)}
        rows = np.array([row_of.get(each, -1) for each in ids], np.int64)
        absent = [ids[place] for place in np.flatnonzero(rows < 0).tolist()]
        if ids and len(absent) == len(ids):
            raise InputError(
                f"{self.name} must hold the ids of the event log. Received: none of "
                f"{len(ids)}, the first of which is {ids[0]!r}, where the table begins "
                f"with {self.ids[0] if self.ids else ''!r}. Name the column of ids."
            )
        raw = {}
        nothing = features.missing(1)
        for feature in features:
            values = self.raw[feature.name]
            found = values[np.maximum(rows, 0)]
            if absent:
                empty = nothing[feature.name]
                if values.ndim == 2 and empty.shape[1:] != values.shape[1:]:
                    empty = np.zeros([1, values.shape[1]], np.float32)
                found[rows < 0] = empty[0]
            raw[feature.name] = found
        return FeatureTable(list(ids), raw, self.name), absent

    def take(self, rows: npt.NDArray[np.int64]) -> FeatureTable:
        """The rows at these places."""
        raw = {name: values[rows] for name, values in self.raw.items()}
        return FeatureTable([self.ids[row] for row in rows], raw, self.name)

    def save(self, path: Path) -> None:
        """Writes a Parquet file of `item_id` and the raw values."""
        columns: dict[str, pl.Series] = {"id": pl.Series(self.ids, dtype=pl.String)}
        for name, values in self.raw.items():
            if values.dtype == object:
                texts = [bytes(v).decode("utf-8", "replace") for v in values]
                columns[name] = pl.Series(texts, dtype=pl.String)
            elif values.ndim == 2:
                array = pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))
                columns[name] = array.arr.to_list()
            else:
                columns[name] = pl.Series(values.astype(np.float32))
        beside = path.with_name(f"{path.name}.part")
        pl.DataFrame(columns).write_parquet(beside)
        os.replace(beside, path)

    @classmethod
    def load(cls, path: Path) -> FeatureTable:
        """Reads what `save` wrote.

        Raises:
            InputError: when it cannot be read.
        """
        try:
            frame = pl.read_parquet(path)
            ids = frame["id"].to_list()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{path} must be the feature table of a run. It cannot be read "
                f"({str(error).splitlines()[0]}). Restore it, or train again."
            ) from None
        raw: dict[str, npt.NDArray[Any]] = {}
        for column in frame.drop("id"):
            if column.dtype == pl.String:
                texts = [text.encode() for text in column.to_list()]
                raw[column.name] = np.array(texts, object)
            elif isinstance(column.dtype, pl.List):
                raw[column.name] = np.array(column.to_list(), np.float32)
            else:
                raw[column.name] = column.to_numpy().astype(np.float32)
        return cls(ids, raw, str(path))


def read_feature_table(
    path: str | os.PathLike[str],
    features: FeatureSet,
    *,
    id_column: str = "item_id",
    optional: Iterable[str] = (),
) -> FeatureTable:
    """Reads and checks a table of features.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file, MovieLens' `movies.dat`,
            `users.dat`, `u.item` or `u.user`, or RecBole's `.item` or `.user`, whose
            films get `title` and `genres` like the others.
        features: which columns to read, and what they must hold.
        id_column: str. The column of ids. Defaults to `"item_id"`.
        optional: names of features whose column may be absent; they are then missing
            values. Defaults to `()`.

    Raises:
        InputError: when a column is absent, an id is empty or repeated, or a value is
            not what the feature needs. The message names the column and the row.
    """
    path = Path(path)
    frame = read_frame(path)
    columns = {each.name for each in features if getattr(each, "path", None) is None}
    for column in (id_column, *sorted(columns - set(optional))):
        if column not in frame.columns:
            raise InputError(
                f"{path} must have a column {column!r}. Received: columns "
                f"{', '.join(frame.columns)}. Correct the name, or choose another one."
            )
    ids = frame[id_column].cast(pl.String).fill_null("").to_list()
    _check_ids(ids, id_column, path)
    raw = {}
    for feature in features:
        if isinstance(feature, Vector) and feature.path is not None:
            raw[feature.name] = feature.read_file(feature.path, len(ids))
        elif feature.name in frame.columns:
            raw[feature.name] = feature.read(frame[feature.name], str(path))
        else:
            raw[feature.name] = FeatureSet((feature,)).missing(len(ids))[feature.name]
    return FeatureTable(ids, raw, str(path))


def read_frame(path: Path) -> pl.DataFrame:
    """A whole table; columns of text files are strings.

    Raises:
        InputError: when there is no such file, or it cannot be read.
    """
    return read_table(path)[0]


def read_table(path: Path) -> tuple[pl.DataFrame, Table]:
    """A whole table as `read_frame` gives it, and what finds its rows in the file.

    Raises:
        InputError: when there is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise InputError(
            f"The file of features must be a file. Received: {path}, which is none. "
            "Check the path."
        )
    known = movielens.read(path)
    if known is not None:
        return known, Table(known.lazy(), path)
    table = scan_table(path)
    table.schema()
    try:
        return movielens.with_usual_names(path, table.frame.collect()), table
    except pl.exceptions.PolarsError as error:
        raise table.unreadable(error) from None


def _check_ids(ids: Sequence[str], column: str, path: Path) -> None:
    seen: dict[str, int] = {}
    for row, each in enumerate(ids):
        fault = ""
        if not each:
            fault = "is empty"
        elif each in seen:
            fault = f"repeats {each!r} of row {seen[each] + 1}"
        if fault:
            raise InputError(
                f"{path}, column {column!r} must hold ids that are all different. "
                f"Received: row {row + 1} {fault}. Correct the file."
            )
        seen[each] = row
