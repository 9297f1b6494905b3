"""One category a value: a brand, a country, the hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.features._categories import Categories
from tfrs_selfattn.features.feature import Encoded, nothing, stripped


@dataclass(frozen=True)
class Category(Categories):
    """A string that names a category; each has a vector.

    Categories that training shows less than `min_count` times share one vector, which
    thus learns to stand for what is rare. A category that training never showed takes
    it too. With `hash_buckets` there are as many such vectors, chosen by the name.

    Args:
        name: str. Of the feature and of its column.
        min_count: int. Of a category with a vector of its own. Defaults to `2`.
        hash_buckets: int. Vectors for other categories; 0 is one. Defaults to `0`.
        vocabulary: tuple of str, or None before `fit`. Defaults to `None`.
        has_rare: bool. Whether training showed rare ones. Defaults to `False`.
        has_missing: bool. Whether training showed `""`. Defaults to `False`.
    """

    kind: ClassVar[str] = "category"

    def fit(self, values: npt.NDArray[Any], place: str) -> Category:
        return self._fitted_to([[name] if name else [] for name in stripped(values)])

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        names = tf.strings.strip(values)
        tokens, weights = self._tokens(names, state)
        missing = names == ""
        tokens = tf.where(missing, 0, tokens)
        weights = tf.where(missing, np.float32(self.has_missing), weights)
        dense = nothing(values)[2]
        return Encoded(tokens[:, tf.newaxis], weights[:, tf.newaxis], dense)
