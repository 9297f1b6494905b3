"""One category a value: a brand, a country, the hour of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import check_not_negative, check_positive_int
from tfrs_selfattn.features._vocabulary import (
    bucket_of,
    common_names,
    look_up,
    vocabulary_state,
)
from tfrs_selfattn.features.feature import Encoded, Feature, nothing, stripped


@dataclass(frozen=True)
class Category(Feature):
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

    min_count: int = 2
    hash_buckets: int = 0
    vocabulary: tuple[str, ...] | None = None
    has_rare: bool = False
    has_missing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_int("min_count", self.min_count)
        check_not_negative("hash_buckets", self.hash_buckets)
        if self.vocabulary is not None:  # JSON has lists
            object.__setattr__(self, "vocabulary", tuple(self.vocabulary))

    @property
    def fitted(self) -> bool:
        return self.vocabulary is not None

    @property
    def num_tokens(self) -> int:
        # The missing one, the others, and the vocabulary.
        return 1 + max(self.hash_buckets, 1) + len(self.vocabulary or ())

    def fit(self, values: npt.NDArray[Any], place: str) -> Category:
        names = stripped(values)
        known, has_rare = common_names([n for n in names if n], self.min_count)
        return replace(
            self,
            vocabulary=tuple(known),
            has_rare=has_rare,
            has_missing=not all(names),
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return dict(vocabulary_state(self.vocabulary or (), f"Feature {self.name!r}"))

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        names = tf.strings.strip(values)
        tokens, weights = encode_names(
            names,
            state,
            hash_buckets=self.hash_buckets,
            has_rare=self.has_rare,
        )
        missing = names == ""
        tokens = tf.where(missing, 0, tokens)
        weights = tf.where(missing, np.float32(self.has_missing), weights)
        dense = nothing(values)[2]
        return Encoded(tokens[:, tf.newaxis], weights[:, tf.newaxis], dense)


def encode_names(
    names: Any, state: Mapping[str, Any], *, hash_buckets: int, has_rare: bool
) -> tuple[Any, Any]:
    """Tokens and weights `[n]` of names that are not missing."""
    import tensorflow as tf

    others = max(hash_buckets, 1)
    found = look_up(names, state)
    other = bucket_of(names, others) + 1
    known = found >= 0
    tokens = tf.where(known, found + 1 + others, other)
    return tokens, tf.where(known, 1.0, np.float32(has_rare))
