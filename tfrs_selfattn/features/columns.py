"""Reads the columns of features from an event log; no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn.data.side import ReadColumn
from tfrs_selfattn.features.feature import Feature
from tfrs_selfattn.features.feature_set import FeatureSet


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
