"""A number a value: a price, a duration, a rating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError, check_not_negative
from tfrs_selfattn.features.feature import Encoded, Feature, nothing


@dataclass(frozen=True)
class Number(Feature):
    """A number, normalized by training's mean and deviation, or put into buckets.

    A number outside of what training showed counts as the nearest one that it showed;
    so do infinities in a request, where in a table they are refused. NaN is a missing
    value.

    Args:
        name: str. Of the feature and of its column.
        buckets: int. As many ranges of about equally many values, each with a vector; 0
            normalizes. Defaults to `0`.
        log: bool. Take log(1 + value) before, for amounts. Defaults to `False`.
        low: float, or None before `fit`. Training's lowest. Defaults to `None`.
        high: float. Training's highest. Defaults to `0.0`.
        mean: float. Of training, after the logarithm. Defaults to `0.0`.
        deviation: float. Likewise. Defaults to `1.0`.
        edges: tuple of float. Between buckets, after the logarithm. Defaults to `()`.
        has_missing: bool. Whether training showed NaN. Defaults to `False`.
    """

    kind: ClassVar[str] = "number"
    dtype: ClassVar[str] = "float32"

    buckets: int = 0
    log: bool = False
    low: float | None = None
    high: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0
    edges: tuple[float, ...] = ()
    has_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("buckets", self.buckets)
        object.__setattr__(self, "edges", tuple(self.edges))

    @property
    def fitted(self) -> bool:
        return self.low is not None

    @property
    def num_tokens(self) -> int:
        return len(self.edges) + 2 if self.buckets else 0

    @property
    def num_dense(self) -> int:
        return 0 if self.buckets else 2

    def missing(self) -> Any:
        return np.float32(np.nan)

    def read(self, column: pl.Series, place: str) -> npt.NDArray[Any]:
        texts = column.dtype == pl.String
        if not (texts or column.dtype.is_numeric() or column.dtype == pl.Boolean):
            raise InputError(
                f"{place}, column {column.name!r} must hold numbers. Received: "
                f"{column.dtype}. Convert the column or choose another kind."
            )
        if texts:
            column = column.str.strip_chars()
            column = column.set(column == "", None)
        numbers = column.cast(pl.Float64, strict=False)
        self._refuse(column, numbers.is_null() & column.is_not_null(), place)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused
            values = numbers.fill_null(np.nan).to_numpy().astype(np.float32)
        self._refuse(column, pl.Series(np.isinf(values)), place)
        if self.log:
            self._refuse(column, pl.Series(values < 0), place)
        return values

    def _refuse(self, column: pl.Series, wrong: pl.Series, place: str) -> None:
        """Raises for the first value that is wrong."""
        row = wrong.arg_max()
        if row is None or not wrong[row]:
            return
        expected = "finite numbers of 0 or more" if self.log else "finite numbers"
        raise InputError(
            f"{place}, column {column.name!r} must hold {expected}, or nothing where "
            f"one is missing. Received: {column[row]!r} in row {row + 1}. Correct it "
            "or leave it empty."
        )

    def fit(self, values: npt.NDArray[Any], place: str) -> Number:
        known = values[~np.isnan(values)]
        if not len(known):
            raise InputError(
                f"{place}, column {self.name!r} must hold at least one number. "
                "Received: none. Leave the feature out."
            )
        low, high = float(known.min()), float(known.max())
        known = self._shaped(known.astype(np.float64))
        edges: npt.NDArray[Any] = np.zeros(0)
        if self.buckets:
            shares = np.arange(1, int(self.buckets)) / int(self.buckets)
            # Each edge belongs to the bucket above it, as `searchsorted` has it.
            edges = np.unique(np.quantile(known, shares).astype(np.float32))
            edges = edges[edges > known.min()]
        deviation = float(known.std())
        return replace(
            self,
            low=low,
            high=high,
            mean=float(known.mean()),
            deviation=deviation if deviation > 0 else 1.0,
            edges=tuple(map(float, edges)),
            has_missing=bool(np.isnan(values).any()),
        )

    def _shaped(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.log1p(values) if self.log else values

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        missing = tf.math.is_nan(values)
        inside = tf.clip_by_value(values, self.low or 0.0, self.high)
        known = tf.where(missing, tf.constant(self.low or 0.0, tf.float32), inside)
        if self.log:
            known = tf.math.log1p(known)
        none = tf.cast(missing, tf.float32) * np.float32(self.has_missing)
        tokens, weights, dense = nothing(values)
        if not self.buckets:
            scaled = (known - self.mean) * np.float32(1.0 / self.deviation)
            scaled = tf.where(missing, 0.0, scaled)
            return Encoded(tokens, weights, tf.stack([scaled, none], axis=1))
        edges = tf.constant(self.edges, tf.float32, shape=[len(self.edges)])
        bucket = tf.searchsorted(edges, known, side="right") + 1
        tokens = tf.where(missing, 0, bucket)
        weights = tf.where(missing, none, 1.0)
        return Encoded(tokens[:, tf.newaxis], weights[:, tf.newaxis], dense)
