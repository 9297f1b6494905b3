"""Fixed sinusoids for an item's place in its history."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice
from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._base import (
    SequenceLayer,
    check_float,
    check_mask,
    check_segment_ids,
    check_start,
    real_items,
)
from tfrs_selfattn.ops.masks import item_positions

_BASE = 10_000.0


@register
class SinusoidalPositions(SequenceLayer):
    r"""Adds sinusoids of each item's place in its history; nothing is learned.

    Adds $\sin(p\,\theta_c)$ to the first half of the channels and $\cos(p\,\theta_c)$
    to the second, with $\theta_c = 10000^{-2c/D}$ and $p$ counting real items only.

    Args:
        count_from: str. "newest" gives the last item position 0, "oldest" the first.
            Defaults to `"newest"`.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, D even.
        mask: bool `[B, T]`, True = real item. None takes every position for real.
        segment_ids: int `[B, T]`, contiguous; positions restart in each segment.
        start: int `[B]`. Items that came before these ones (incremental encoding).

    Returns:
        float `[B, T, D]`, in the layer's compute dtype.

    Raises:
        ValueError: when an argument is out of range, inputs are not float `[B, T, D]`
            with D even, or a mask has another shape.

    Masking: consumes and passes on the mask.

    Serving: stock TF ops only; T may be dynamic and as long as it likes.

    Example:

    >>> SinusoidalPositions()(tf.zeros([3, 5, 16])).shape
    TensorShape([3, 5, 16])

    Differs from: `keras_hub.layers.SinePositionEmbedding`, which counts slots from the
    left, padding included, and returns the sinusoids without adding them. From the
    paper, which interleaves sines and cosines: the same up to an order of channels. And
    from both, positions count from the newest item unless told otherwise.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.5.
    """

    def __init__(self, *, count_from: str = "newest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count_from = check_choice("count_from", count_from, ("newest", "oldest"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count_from": self.count_from}

    def build(self, input_shape: Any) -> None:
        width = self.check_inputs_shape(input_shape)
        if width % 2:
            raise ValueError(
                "`SinusoidalPositions` needs an even width, half for sines and half "
                f"for cosines. Received: D={width}. Use D={width + 1}."
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
        real = real_items(mask, segment_ids)
        if real is None:
            real = tf.ones(tf.shape(inputs)[:2], tf.bool)
        places = item_positions(real, segment_ids, count_from=self.count_from)
        start = check_start(self, start, inputs)
        if start is not None:
            places += start[:, tf.newaxis]
        half = inputs.shape[-1] // 2
        rates = tf.pow(_BASE, -tf.range(half, dtype=tf.float32) / half)
        angles = tf.cast(places, tf.float32)[..., tf.newaxis] * rates  # [B, T, D / 2]
        waves = tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)
        return inputs + tf.cast(waves, inputs.dtype)
