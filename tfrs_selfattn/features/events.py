"""Features of events and requests, encoded once for all that are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn.data.side import ReadColumn, SideTable
from tfrs_selfattn.features.encoder import FeatureEncoder
from tfrs_selfattn.features.feature import Feature
from tfrs_selfattn.features.feature_set import FeatureSet


def table_of_events(
    features: FeatureSet, raw: Mapping[str, npt.NDArray[Any]]
) -> SideTable:
    """Encodes what is known of E events.

    Events of which the same is known are encoded once and share their numbers: all of
    a user's, say.

    Args:
        features: `FeatureSet`, fitted.
        raw: by name of a feature, raw values `[E]` or `[E, d]`.
    """
    codes = np.zeros(len(next(iter(raw.values()))), np.int64)
    for feature in features:
        mine = _codes(raw[feature.name])
        # Numbered anew each time: the product of two numberings cannot overflow.
        codes = codes * (int(mine.max(initial=0)) + 1) + mine
        codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    _, first = np.unique(codes, return_index=True)
    rows = FeatureEncoder(features).rows(
        {each.name: raw[each.name][first] for each in features}
    )
    return SideTable(
        rows.splits, rows.tokens, rows.weights, rows.dense, codes.astype(np.int32)
    )


def _codes(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """A number for each of `[E]` values or `[E, d]` vectors; equal ones share it."""
    if values.dtype == object:
        known: dict[bytes, int] = {}
        found = (known.setdefault(value, len(known)) for value in values)
        return np.fromiter(found, np.int64, len(values))
    if values.ndim == 2:
        return _codes(np.array([row.tobytes() for row in values], object))
    codes: npt.NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
    return codes.reshape(-1)


def column_readers(*sets: FeatureSet | None) -> dict[str, ReadColumn]:
    """Functions that read the columns of features from an event log.

    Args:
        *sets: `FeatureSet`, or None for none.
    """
    return {each.name: _reader(each) for some in sets if some for each in some}


def _reader(feature: Feature) -> ReadColumn:
    def read(column: pl.Series, place: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any]
        if feature.dtype != "string" or column.dtype != pl.String:
            values = feature.read(column, place)
            return values
        # A log of millions of events has few different values, kept once each.
        kept = column.fill_null("").cast(pl.Categorical)
        distinct = kept.unique()
        codes = distinct.to_physical().to_numpy()
        place_of = np.zeros(int(codes.max(initial=0)) + 1, np.int64)
        place_of[codes] = np.arange(len(codes))
        values = feature.read(distinct.cast(pl.String).alias(column.name), place)
        values = values[place_of[kept.to_physical().to_numpy()]]
        return values

    return read
