"""The query tower: a user's history in, one vector out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers.pooling import SequencePooling
from tfrs_selfattn.ops.masks import align_right


@register
class QueryTower(keras.Model):  # type: ignore[misc]
    """Encodes a user's sequence of items as the query of a two-tower model.

    The same items give the same vector however they arrive: padded on either side or
    in between, in a wider batch, or behind older items than `max_length` reaches. The
    tower first moves the newest real items to the right end of the row. It derives the
    mask from the ids themselves, so that no layer in between can lose it: the item
    embedding needs no `mask_zero`.

    Args:
        item_embedding: `Embedding` of N + 1 rows, where row 0 stands for padding.
        encoder: layer from float `[B, T, D]` to `[B, T, D]`, usually
            `tfrs_selfattn.layers.SequenceEncoder`.
        pooling: layer from `[B, T, D]` to `[B, D]`, or to `[B, K, D]` for several
            interests a user. None takes `SequencePooling("newest")`. Defaults to
            `None`.
        max_length: int. Items of a history that are used, the newest. Defaults to
            `200`.
        normalize: bool. L2-normalize the query. Defaults to `False`.
        **kwargs: passed to `keras.Model` (`name`, …).

    Call arguments:
        history: int `[B, T]` item indices, oldest first, 0 = padding.
        training: bool.

    Returns:
        float32 `[B, D]`, or `[B, K, D]`. A history without a real item gives zeros.

    Raises:
        ValueError: when `max_length` is not positive, or ids are not an integer
            `[B, T]`.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> embedding = keras.layers.Embedding(100 + 1, 16)
    >>> block = TransformerBlock(MultiHeadSelfAttention(1, 16), FeedForward(64))
    >>> tower = QueryTower(embedding, SequenceEncoder([block]))
    >>> tower(tf.constant([[0, 7, 9], [3, 0, 0]])).shape
    TensorShape([2, 16])
    """

    def __init__(
        self,
        item_embedding: Any,
        encoder: Any,
        *,
        pooling: Any = None,
        max_length: int = 200,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.item_embedding = item_embedding
        self.encoder = encoder
        self.pooling = SequencePooling() if pooling is None else pooling
        self.max_length = check_positive_int("max_length", max_length)
        self.normalize = bool(normalize)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "item_embedding": serialize(self.item_embedding),
            "encoder": serialize(self.encoder),
            "pooling": serialize(self.pooling),
            "max_length": self.max_length,
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QueryTower:
        restore = keras.saving.deserialize_keras_object
        parts = ("item_embedding", "encoder", "pooling")
        return cls(**{**config, **{part: restore(config[part]) for part in parts}})

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a reloaded tower; Keras would call it on floats, which are no ids."""
        self(tf.zeros([1, 1], tf.int32))

    def call(self, history: tf.Tensor, training: Any = None) -> tf.Tensor:
        (history,) = align_right(_check_ids(history), self.max_length)
        states = self._states(history, None, training)
        return self._finish(self.pooling(states, mask=history != 0))

    def encode(
        self,
        history: tf.Tensor,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
    ) -> tf.Tensor:
        """The query after every position, for training on each of them.

        Args:
            history: int `[B, T]` item indices, 0 = padding. Taken as it lies.
            segment_ids: int `[B, T]` of packed rows, 0 = padding.
            training: bool.

        Returns:
            float32 `[B, T, D]`. Row t is the query of a user whose history ends at t.
        """
        return self._finish(self._states(_check_ids(history), segment_ids, training))

    def _states(
        self, history: tf.Tensor, segment_ids: tf.Tensor | None, training: Any
    ) -> tf.Tensor:
        return self.encoder(
            self.item_embedding(history),
            mask=history != 0,
            segment_ids=segment_ids,
            training=training,
        )

    def _finish(self, queries: tf.Tensor) -> tf.Tensor:
        """Towers emit float32 whatever they compute in: losses and indexes need it."""
        queries = tf.cast(queries, tf.float32)
        return tf.math.l2_normalize(queries, axis=-1) if self.normalize else queries


def _check_ids(history: tf.Tensor) -> tf.Tensor:
    history = tf.convert_to_tensor(history)
    if history.shape.rank != 2 or not history.dtype.is_integer:
        raise ValueError(
            "`history` must be an integer tensor [B, T] of item indices, 0 for "
            f"padding. Received: dtype={history.dtype.name}, shape={history.shape}. "
            "Encode string ids with the vocabulary first (`Vocabulary.encode`)."
        )
    return history
