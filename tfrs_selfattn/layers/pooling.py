"""From one vector a position to one vector a user."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice
from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_mask,
    pad_ragged,
)


@register
class SequencePooling(SequenceLayer):
    r"""Reduces an encoded history to the user's query vector.

    With "newest", $x_{\max \{t : m_t\}}$, the vector of the newest real item: in a
    causal encoder it has seen the whole history. With "mean", $\sum_t m_t x_t / \sum_t
    m_t$ over real items. An empty history gives the zero vector, which scores every
    candidate 0.

    Args:
        method: str, "newest" or "mean". Defaults to `"newest"`.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, or a RaggedTensor of that, without `mask`.
        mask: bool `[B, T]`, True = real item. None takes every position for real.

    Returns:
        float `[B, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when `method` is unknown, inputs are not float `[B, T, D]`, or the
            mask has another shape.

    Masking: consumes the mask; padding may be on either side, or between.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> SequencePooling("mean")(tf.ones([3, 5, 16])).shape
    TensorShape([3, 16])

    Differs from: `keras.layers.GlobalAveragePooling1D`, which divides an empty history
    by 0 and, in legacy Keras, lets NaN under padding through. From SASRec, which reads
    the last slot of the row and so needs padding on the left.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.4.
    """

    _supports_ragged_inputs = True  # legacy Keras asks for it

    def __init__(self, method: str = "newest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.method = check_choice("method", method, ("newest", "mean"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "method": self.method}

    def build(self, input_shape: Any) -> None:
        self.check_inputs_shape(input_shape)
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No positions are left to mask."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (input_shape[0], input_shape[-1])

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        inputs, mask = pad_ragged(inputs, mask)
        check_float(self, inputs)
        mask = check_mask(self, mask, inputs)
        if mask is None:
            mask = tf.ones(tf.shape(inputs)[:2], tf.bool)
        zero = tf.zeros([], inputs.dtype)
        if self.method == "newest":
            steps = tf.range(1, tf.shape(inputs)[1] + 1)
            newest = tf.reduce_max(tf.where(mask, steps, 0), axis=1)  # [B], 0 = none
            picked = tf.gather(inputs, tf.maximum(newest - 1, 0), batch_dims=1)
            return tf.where(newest[:, tf.newaxis] > 0, picked, zero)
        # In float32: the sum of a long history overflows float16.
        states = tf.cast(tf.where(mask[..., tf.newaxis], inputs, zero), tf.float32)
        count = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1, keepdims=True)
        mean = tf.reduce_sum(states, axis=1) / tf.maximum(count, 1.0)
        return tf.cast(mean, inputs.dtype)
