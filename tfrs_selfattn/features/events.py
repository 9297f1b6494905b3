"""Features of events and requests, encoded once for all that are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.data.side import SideTable
from tfrs_selfattn.features.encoder import FeatureEncoder
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
