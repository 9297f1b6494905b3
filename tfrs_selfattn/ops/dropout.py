"""Dropout whose randomness is an argument, drawn at a quarter of the usual cost."""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn._checks import check_fraction

_LEVELS = 256  # one random byte decides one element


def keep_mask(shape: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws which elements survive.

    One 32-bit random number decides four elements, a byte each. The rate is therefore
    rounded to a multiple of 1/256; `effective_rate` is what is applied.

    Args:
        shape: int `[rank]`.
        rate: float in (0, 1).
        seed: int `[2]`. The same seed draws the same mask.

    Returns:
        bool of the given shape, True = keep.
    """
    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform(
        [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    octets = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:size]
    threshold = tf.constant(round(effective_rate(rate) * _LEVELS), tf.uint8)
    return tf.reshape(octets >= threshold, shape)


def effective_rate(rate: float) -> float:
    """The multiple of 1/256 nearest to `rate`, between 1/256 and 255/256."""
    return min(max(round(rate * _LEVELS), 1), _LEVELS - 1) / _LEVELS


def stateless_dropout(inputs: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Zeroes elements at random and scales the rest by `1 / (1 - rate)`.

    Args:
        inputs: float tensor of any shape.
        rate: float in [0, 1). 0 returns the inputs.
        seed: int `[2]`, see `keep_mask`.

    Returns:
        Tensor of the shape and dtype of `inputs`.

    Raises:
        ValueError: when `rate` is not in [0, 1).
    """
    if check_fraction("rate", rate) == 0.0:
        return inputs
    keep = keep_mask(tf.shape(inputs), rate, seed)
    scale = tf.cast(1.0 / (1.0 - effective_rate(rate)), inputs.dtype)
    # `where`, not a product: an infinite element that is dropped becomes 0, not NaN.
    return tf.where(keep, inputs * scale, tf.zeros([], inputs.dtype))
