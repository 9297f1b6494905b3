"""What features of categories have in common: names, and a vector for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import check_not_negative, check_positive_int
from tfrs_selfattn.features._vocabulary import (
    bucket_of,
    common_names,
    look_up,
    vocabulary_state,
)
from tfrs_selfattn.features.feature import Feature

T = TypeVar("T", bound="Categories")


@dataclass(frozen=True)
class Categories(Feature):
    """Names; token 0 is what is missing, then come other names and the vocabulary.

    Args:
        name: as of `Category`, like all that follow.
        min_count: int.
        hash_buckets: int.
        vocabulary: tuple of str, or None before `fit`.
        has_rare: bool.
        has_missing: bool.
    """

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
        return 1 + self._num_others + len(self.vocabulary or ())

    @property
    def _num_others(self) -> int:
        return max(self.hash_buckets, 1)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return dict(vocabulary_state(self.vocabulary or (), f"Feature {self.name!r}"))

    def _fitted_to(self: T, rows: Sequence[Sequence[bytes]]) -> T:
        """The feature, fitted to the names of each value."""
        names = [name for row in rows for name in row]
        known, has_rare = common_names(names, self.min_count)
        return replace(
            self,
            vocabulary=tuple(known),
            has_rare=has_rare,
            has_missing=not all(rows),
        )

    def _tokens(self, names: Any, state: Mapping[str, Any]) -> tuple[Any, Any]:
        """Tokens and weights `[n]` of names that are not missing."""
        import tensorflow as tf

        found = look_up(names, state)
        other = bucket_of(names, self._num_others) + 1
        known = found >= 0
        tokens = tf.where(known, found + 1 + self._num_others, other)
        return tokens, tf.where(known, 1.0, np.float32(self.has_rare))
