"""Text: a title, a description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import check_not_negative, check_positive_int
from tfrs_selfattn.features._vocabulary import bucket_of
from tfrs_selfattn.features.feature import Encoded, Feature, nothing

_ROWS = 4096  # Texts taken at a time when fitting.


@dataclass(frozen=True)
class Text(Feature):
    """Text as a bag of hashed words, pairs of words and, if asked, pieces of words.

    Letters are lowered, everything but letters and digits separates words. Buckets that
    fewer than `min_count` training texts fall into have no vector: what stands in one
    text only says nothing about others, and a new word rarely falls into a bucket that
    has one. The sum of n vectors is divided by √n.

    Args:
        name: str. Of the feature and of its column.
        words: int. Up to so many words in a row make a token. Defaults to `2`.
        letters: int. Also pieces of so many letters of each word; 0 for none. Defaults
            to `0`.
        buckets: int. Of the hash. Defaults to `65536`.
        min_count: int. Texts behind a bucket with a vector. Defaults to `2`.
        max_tokens: int. Tokens of a text that count, the first. Defaults to `256`.
        kept: tuple of int, or None before `fit`. The buckets with a vector. Defaults to
            `None`.
    """

    kind: ClassVar[str] = "text"

    words: int = 2
    letters: int = 0
    buckets: int = 65536
    min_count: int = 2
    max_tokens: int = 256
    kept: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("letters", self.letters)
        for name in ("words", "buckets", "min_count", "max_tokens"):
            check_positive_int(name, getattr(self, name))
        if self.kept is not None:
            object.__setattr__(self, "kept", tuple(self.kept))

    @property
    def fitted(self) -> bool:
        return self.kept is not None

    @property
    def num_tokens(self) -> int:
        return len(self.kept or ())

    def fit(self, values: npt.NDArray[Any], place: str) -> Text:
        # By the very operations that a served model runs: the hash is theirs.
        counts = np.zeros(self.buckets, np.int64)
        for start in range(0, len(values), _ROWS):
            hashed = self._hashed(values[start : start + _ROWS].tolist())
            rows = np.repeat(
                np.arange(int(hashed.nrows())), hashed.row_lengths().numpy()
            )
            pairs = np.unique(
                rows.astype(np.int64) * self.buckets + hashed.flat_values.numpy()
            )
            counts += np.bincount(pairs % self.buckets, minlength=self.buckets)
        kept = np.flatnonzero(counts >= self.min_count)
        return replace(self, kept=tuple(map(int, kept)))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        places = np.full(self.buckets, -1, np.int32)
        kept = np.array(self.kept or (), np.int64)
        places[kept] = np.arange(len(kept), dtype=np.int32)
        return {"places": places}

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        hashed = self._hashed(values)
        tokens = hashed.with_flat_values(tf.gather(state["places"], hashed.flat_values))
        tokens = tf.ragged.boolean_mask(tokens, tokens >= 0)
        tokens = tokens[:, : self.max_tokens]
        count = tf.cast(tf.maximum(tokens.row_lengths(), 1), tf.float32)
        real = tf.sequence_mask(tokens.row_lengths(), dtype=tf.float32)
        weights = real * tf.math.rsqrt(count)[:, tf.newaxis]
        return Encoded(tokens.to_tensor(), weights, nothing(values)[2])

    def _hashed(self, values: Any) -> Any:
        """The bucket of each token of `[n]` texts: int32 ragged `[n, (tokens)]`."""
        import tensorflow as tf

        texts = tf.convert_to_tensor(values, tf.string)
        texts = tf.strings.lower(texts, encoding="utf-8")
        texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{N}]+", " ")
        words = tf.strings.split(tf.strings.strip(texts))  # ragged [n, (words)]
        parts = [
            tf.strings.ngrams(words, width, separator=" ")
            for width in range(1, self.words + 1)
        ]
        if self.letters:
            parts.append(_pieces(words, self.letters))
        tokens = tf.concat(parts, axis=1)
        buckets = bucket_of(tokens.flat_values, self.buckets)
        return tokens.with_flat_values(buckets)


def _pieces(words: Any, size: int) -> Any:
    """Pieces of `size` letters of ragged `[n, (words)]`, "#" at a word's ends."""
    import tensorflow as tf

    marked = tf.strings.join(["#", words.flat_values, "#"])
    letters = tf.strings.unicode_split(marked, "UTF-8")
    pieces = tf.strings.ngrams(letters, size, separator="")
    return words.with_flat_values(pieces).merge_dims(1, 2)
