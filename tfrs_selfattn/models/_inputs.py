"""Checks of what a query tower is called with."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def check_ids(history: tf.Tensor) -> tf.Tensor:
    """Item indices `[B, T]`, of ragged histories padded; else `ValueError`."""
    if isinstance(history, tf.RaggedTensor):
        history = history.to_tensor()
    history = tf.convert_to_tensor(history)
    if history.shape.rank != 2 or not history.dtype.is_integer:
        raise ValueError(
            "`history` must be an integer tensor [B, T] of item indices, 0 for "
            f"padding. Received: dtype={history.dtype.name}, shape={history.shape}. "
            "Encode string ids with the vocabulary first (`Vocabulary.encode`)."
        )
    return history


def check_times(name: str, times: Any, shape: tf.TensorShape) -> tf.Tensor:
    """Times of this shape as int64, else `ValueError`."""
    if times is None:
        raise ValueError(
            f"`{name}` must be given to a time-aware model, as Unix seconds. "
            f"Received: {name}=None. Pass when each item was taken and when the next "
            "one is asked for, or use a model without time biases."
        )
    if isinstance(times, tf.RaggedTensor):
        times = times.to_tensor()
    times = tf.convert_to_tensor(times)
    if not (times.dtype.is_integer and times.shape.is_compatible_with(shape)):
        raise ValueError(
            f"`{name}` must be an integer tensor of shape {tuple(shape)}, Unix "
            f"seconds. Received: dtype={times.dtype.name}, "
            f"shape={tuple(times.shape)}. Use int64 (float32 is two minutes off), one "
            "time for each item, and one request a user."
        )
    return tf.cast(times, tf.int64)


def needs_times(encoder: Any) -> bool:
    """Whether a layer of the encoder, or the encoder, is biased by time."""
    layers = (encoder, *getattr(encoder, "submodules", ()))
    return any(getattr(layer, "needs_times", False) for layer in layers)
