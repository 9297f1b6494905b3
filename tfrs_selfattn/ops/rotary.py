"""Rotary position embedding: distances enter the product of query and key."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_BASE = 10_000.0


def rotate(heads: tf.Tensor, start: Any = 0) -> tf.Tensor:
    r"""Rotates pairs of channels by angles that grow with the position.

    Channels $(c, c + K/2)$ at position t turn by $t\,\theta_c$ with
    $\theta_c = 10000^{-2c/K}$, so that the product of a query at t and a key at s
    depends on t - s only.

    Args:
        heads: float `[B, H, T, K]`, K even.
        start: int or scalar tensor. Position of the first of the T.

    Returns:
        float `[B, H, T, K]`.

    References:
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864) (RoFormer), section 3.2.
          Channels are paired half against half, as in GPT-NeoX, not neighbor with
          neighbor: the same up to an order of channels.
    """
    half = heads.shape[-1] // 2
    exponents = tf.range(half, dtype=tf.float32) / half
    steps = tf.cast(start + tf.range(tf.shape(heads)[2]), tf.float32)
    angles = steps[:, tf.newaxis] * tf.pow(_BASE, -exponents)  # [T, K / 2]
    cos, sin = (
        tf.cast(tf.cos(angles), heads.dtype),
        tf.cast(tf.sin(angles), heads.dtype),
    )
    first, second = heads[..., :half], heads[..., half:]
    return tf.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)
