"""Where an item stands in its history."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_mask,
    check_segment_ids,
    check_start,
    real_items,
)
from tfrs_selfattn.ops.masks import item_positions


@register
class PositionEmbedding(SequenceLayer):
    r"""Adds a learned vector for each item's place in its history.

    Computes $x_t + P_{p(t)}$, where $p(t)$ counts real items only, so that the side and
    the length of padding change nothing.

    Args:
        max_length: int. Number of learned positions. In a history with more real
            items, those past it share the last position.
        count_from: str. "newest" gives the last item position 0, so that recency means
            the same in short and long histories (SASRec's right-aligned positions);
            "oldest" gives the first item position 0. Defaults to `"newest"`.
        embeddings_initializer: initializer of the table. Defaults to `None`, a normal
            distribution of standard deviation 0.02.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`.
        mask: bool `[B, T]`, True = real item. None takes every position for real.
        segment_ids: int `[B, T]`, contiguous; positions restart in each segment.
        start: int `[B]`. Items that came before these ones (incremental encoding).

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`,
            a mask has another shape, or a static T exceeds `max_length` and no
            `segment_ids` say that a row holds several histories.

    Masking: consumes and passes on the mask.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> PositionEmbedding(max_length=50)(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras_hub.layers.PositionEmbedding`, which counts slots from the
    left, padding included, and returns the vectors without adding them. From SASRec,
    whose position is the slot of a row padded on the left: the same as "newest".

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.1.
    """

    def __init__(
        self,
        max_length: int,
        *,
        count_from: str = "newest",
        embeddings_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_length = check_positive_int("max_length", max_length)
        self.count_from = check_choice("count_from", count_from, ("newest", "oldest"))
        if embeddings_initializer is None:
            embeddings_initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_length": self.max_length,
            "count_from": self.count_from,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }

    def build(self, input_shape: Any) -> None:
        self._embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_length, self.check_inputs_shape(input_shape)),
            initializer=self.embeddings_initializer,
        )
        self.built = True

    def call(
        self,
        inputs: tf.Tensor,
        mask: tf.Tensor | None = None,
        segment_ids: tf.Tensor | None = None,
        start: tf.Tensor | None = None,
    ) -> tf.Tensor:
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        segment_ids = check_segment_ids(self, segment_ids, inputs)
        length = inputs.shape[1]
        # A packed row may be longer than any of its histories.
        if segment_ids is None and length is not None and length > self.max_length:
            raise ValueError(
                "`inputs` must have at most `max_length` positions. Received: "
                f"T={length}, max_length={self.max_length}. Keep the newest items of "
                "each history, or build the layer with a larger max_length."
            )
        real = real_items(mask, segment_ids)
        if real is None:
            real = tf.ones(tf.shape(inputs)[:2], tf.bool)
        places = item_positions(real, segment_ids, count_from=self.count_from)
        start = check_start(self, start, inputs)
        if start is not None:
            places += start[:, tf.newaxis]
        table = tf.cast(self._embeddings, self.compute_dtype)
        places = tf.clip_by_value(places, 0, self.max_length - 1)
        return inputs + tf.gather(table, places)
