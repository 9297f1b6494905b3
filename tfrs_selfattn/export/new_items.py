"""Reads the file that says what a refreshed version may answer with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._tables import Table
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.features.table import read_table
from tfrs_selfattn.features.vector import Vector


@dataclass(frozen=True)
class NewItems:
    """The items of a refreshed version, all of them, in the order of the file.

    Args:
        ids: list of str.
        titles: list of str or None, one an item; None for one without. None when the
            file has no titles.
        events: list of int or None likewise: the events behind an item's popularity.
        embeddings: list of float32 `[D]` or None likewise.
        features: by name of a feature, an array of raw values, one an item, for those
            of the model's features that the file has; None when it has none.
    """

    ids: Sequence[str]
    titles: Sequence[str | None] | None = None
    events: Sequence[int | None] | None = None
    embeddings: Sequence[npt.NDArray[np.float32] | None] | None = None
    features: Mapping[str, npt.NDArray[Any]] | None = None

    def described(self) -> npt.NDArray[np.bool_]:
        """Of which items a feature is known, bool, one an item."""
        known = np.zeros(len(self.ids), bool)
        for values in (self.features or {}).values():
            if values.dtype == object:
                known |= np.array([bool(value.strip()) for value in values], bool)
            elif values.ndim == 2:
                known |= values.any(axis=1)
            else:
                known |= ~np.isnan(values)
        return known

    def tells_all(self, features: FeatureSet) -> bool:
        """Whether there are values of all of these features."""
        return set(features.names) <= (self.features or {}).keys()


def read_new_items(
    path: str | os.PathLike[str],
    *,
    item_column: str = "item_id",
    features: FeatureSet | None = None,
    vectors: Mapping[str, str | os.PathLike[str]] | None = None,
) -> NewItems:
    """Reads a file of items.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file with the column `item_id` and, each
            optional, `title`, `events` (an integer) and `embedding` (numbers between
            blanks or commas, brackets around them or not; in Parquet a list). A field
            may be empty. Or the films of MovieLens, `movies.dat` and `u.item`, or of
            RecBole, `.item`, which have `item_id`, `title` and `genres`.
        item_column: str. Defaults to `"item_id"`.
        features: `FeatureSet` of the export, whose columns are read too, those that
            are there. Defaults to `None`.
        vectors: mapping from the name of a `Vector` among the features to a `.npy`
            matrix with a row for each row of the file, which is taken in place of a
            column. Defaults to `None`.

    Raises:
        InputError: when the file or a matrix cannot be read, an id is empty or
            repeated, or a field is not what its column needs. The message names the
            column and the row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"The item file must be a file. Received: {path}, which is none. "
            "Check the path."
        )
    frame, table = read_table(path)
    schema = frame.schema
    if item_column not in schema:
        raise InputError(
            f"{table.name} must have a column {item_column!r}. Received: "
            f"{', '.join(schema.names())}. Name the one with the ids by --item-column."
        )
    ids = [item or "" for item in frame[item_column].cast(pl.String).to_list()]
    _check_ids(table, ids)
    columns: dict[str, Any] = {}
    for name, column, read in (
        ("titles", "title", _title),
        ("events", "events", _events),
        ("embeddings", "embedding", _embedding),
    ):
        if column in schema:
            columns[name] = [
                _read(table, row, column, value, read)
                for row, value in enumerate(frame[column].to_list())
            ]
    matrices = _matrices(features, vectors or {}, len(ids))
    told = {
        feature.name: feature.read(frame[feature.name], table.name)
        for feature in features or ()
        if feature.name in schema and feature.name not in matrices
    } | matrices
    return NewItems(ids, **columns, features=told or None)


def _matrices(
    features: FeatureSet | None,
    vectors: Mapping[str, str | os.PathLike[str]],
    num_items: int,
) -> dict[str, npt.NDArray[Any]]:
    """The given vectors that stand in files of their own, by feature."""
    taken = {each.name: each for each in features or () if isinstance(each, Vector)}
    for name in vectors:
        if name not in taken:
            raise InputError(
                "--vectors must be NAME=FILE.npy, of a feature of the kind vector that "
                f"the export knows items by: {', '.join(taken) or 'none'}. Received: "
                f"{name!r}. Correct the name, or leave it out."
            )
    return {
        name: taken[name].read_file(os.fspath(path), num_items)
        for name, path in vectors.items()
    }


def _check_ids(table: Table, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    if not ids:
        raise InputError(
            f"{table.name} must hold at least one item. Received: none. Check how it "
            "was written."
        )
    for row, item in enumerate(ids):
        fault = ""
        if not item:
            fault = "has no id"
        elif "\n" in item or "\r" in item:
            fault = f"has the id {item!r}, which holds a line break"
        elif item in seen:
            fault = f"repeats the id {item!r}"
        if fault:
            raise InputError(
                "Every item must have an id of its own, on one line. Received: "
                f"{table.place(row)} {fault}. Correct the file."
            )
        seen.add(item)


def _read(table: Table, row: int, column: str, value: Any, read: Any) -> Any:
    if value is None or value == "":
        return None
    try:
        return read(value)
    except (TypeError, ValueError):
        raise InputError(
            f"Column {column!r} must hold {_EXPECTED[column]}. Received: {value!r} in "
            f"{table.place(row)}. Correct it or leave it empty."
        ) from None


_EXPECTED = {
    "title": "text",
    "events": "a number of events, 0 or more",
    "embedding": "finite numbers, as in [0.1, -0.2, 0.3]",
}


def _title(value: Any) -> str | None:
    return str(value).strip() or None


def _events(value: Any) -> int:
    count = int(value)
    if count < 0 or count != float(value):
        raise ValueError
    return count


def _embedding(value: Any) -> npt.NDArray[np.float32]:
    if isinstance(value, str):
        value = value.strip().strip("[]").replace(",", " ").split()
    vector = np.array([float(number) for number in value], np.float32)
    if not len(vector) or not np.isfinite(vector).all():
        raise ValueError
    return vector
