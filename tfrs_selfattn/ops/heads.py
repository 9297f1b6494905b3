"""From one vector a position to one a head and position, and back.

Shape alphabet: B users, T positions, H heads, K head width.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def split_heads(inputs: tf.Tensor, num_heads: int) -> tf.Tensor:
    """`[B, T, H * K]` to `[B, H, T, K]`; a single head costs no transpose."""
    if num_heads == 1:
        return tf.expand_dims(inputs, 1)  # a slice would copy, and its gradient too
    shape = [-1, static_or_dynamic(inputs, 1), num_heads, inputs.shape[-1] // num_heads]
    return tf.transpose(tf.reshape(inputs, shape), [0, 2, 1, 3])


def merge_heads(heads: tf.Tensor) -> tf.Tensor:
    """`[B, H, T, K]` to `[B, T, H * K]`; a single head costs no transpose."""
    num_heads, width = heads.shape[1], heads.shape[3]
    if num_heads == 1:
        return tf.squeeze(heads, 1)
    merged = tf.transpose(heads, [0, 2, 1, 3])
    return tf.reshape(merged, [-1, static_or_dynamic(heads, 2), num_heads * width])


def static_or_dynamic(tensor: tf.Tensor, axis: int) -> Any:
    """The size of an axis: an int where it is known, else a scalar tensor."""
    size = tensor.shape[axis]
    return tf.shape(tensor)[axis] if size is None else size
