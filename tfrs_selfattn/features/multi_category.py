"""Several categories a value: the genres of a film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.features._categories import Categories
from tfrs_selfattn.features.feature import Encoded, nothing, stripped


@dataclass(frozen=True)
class MultiCategory(Categories):
    """Categories between separators; their vectors are added and scaled.

    The sum of n vectors is divided by √n, so that an item of many categories is no
    longer than one of few. Rare and new categories are as of `Category`.

    Args:
        name: str. Of the feature and of its column, which may also hold lists.
        min_count: int. Of a category with a vector of its own. Defaults to `2`.
        hash_buckets: int. Vectors for other categories; 0 is one. Defaults to `0`.
        vocabulary: tuple of str, or None before `fit`. Defaults to `None`.
        has_rare: bool. Whether training showed rare ones. Defaults to `False`.
        has_missing: bool. Whether training showed values without any. Defaults to
            `False`.
        separator: str. Between two categories. Defaults to `"|"`.
        max_values: int. Categories of a value that count, the first. Defaults to `32`.
    """

    kind: ClassVar[str] = "multi"

    separator: str = "|"
    max_values: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.separator.strip():
            raise ValueError(
                "`separator` must be a character that is no blank. Received: separator="
                f"{self.separator!r}. Use kind text for words."
            )
        check_positive_int("max_values", self.max_values)

    def read(self, column: pl.Series, place: str) -> npt.NDArray[Any]:
        if isinstance(column.dtype, pl.List | pl.Array):
            texts = column.cast(pl.List(pl.String)).list.drop_nulls()
            column = texts.list.join(self.separator).rename(column.name)
        return super().read(column, place)

    def fit(self, values: npt.NDArray[Any], place: str) -> MultiCategory:
        return self._fitted_to([self._split(value) for value in values])

    def _split(self, value: bytes) -> list[bytes]:
        parts = stripped(np.array(bytes(value).split(self.separator.encode()), object))
        return [part for part in parts if part][: self.max_values]

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        parts = tf.strings.split(values, self.separator)  # ragged [n, (parts)]
        parts = parts.with_flat_values(tf.strings.strip(parts.flat_values))
        parts = tf.ragged.boolean_mask(parts, parts != "")[:, : self.max_values]
        tokens, weights = self._tokens(parts.flat_values, state)
        kept = tf.RaggedTensor.from_row_lengths(tokens, parts.row_lengths())
        scales = kept.with_flat_values(weights)
        count = tf.maximum(tf.reduce_sum(scales, axis=1, keepdims=True), 1.0)
        weights = scales.to_tensor() * tf.math.rsqrt(count)  # [n, L]
        tokens = kept.to_tensor()
        missing = parts.row_lengths() == 0
        # A column of its own for "missing": there may be no other.
        none = tf.cast(missing, tf.float32) * np.float32(self.has_missing)
        return Encoded(
            tf.pad(tokens, [[0, 0], [1, 0]]),
            tf.concat([none[:, tf.newaxis], weights], axis=1),
            nothing(values)[2],
        )
