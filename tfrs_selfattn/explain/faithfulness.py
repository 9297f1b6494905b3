"""How far an explanation can be trusted: take away what it names, and look.

Not a test of whether people find an explanation plausible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.explain.occlusion import Score


class Deletion(NamedTuple):
    """What the score of each explained item loses.

    Args:
        top: float32 `[B]`. When the items that the explanation ranks highest go.
        random: float32 `[B]`. When as many random ones go, the mean of the draws.
    """

    top: tf.Tensor
    random: tf.Tensor


def deletion(
    score: Score,
    history: tf.Tensor,
    item: tf.Tensor,
    contribution: tf.Tensor,
    *times: tf.Tensor,
    num_deleted: int = 5,
    num_draws: int = 10,
    seed: int = 0,
) -> Deletion:
    r"""Deletes the items of a history that an explanation ranks highest, and others.

    A faithful explanation names items without which the score falls further than
    without random ones: $\mathrm{top} > \mathrm{random}$. With `num_deleted=1`
    nothing can do better than `leave_one_out`, which measures just that.

    Args:
        score: as in `leave_one_out`, like `history`, `item` and `times`.
        history: int `[B, T]`, 0 = padding.
        item: int `[B]`.
        contribution: float `[B, T]`. The explanation.
        *times: of a time-aware model.
        num_deleted: int. Items to delete; a shorter history loses all but one.
            Defaults to `5`.
        num_draws: int. Random deletions of each history. Defaults to `10`.
        seed: int. Of the draws. Defaults to `0`.

    Returns:
        `Deletion`.

    Raises:
        ValueError: when a number is not positive.

    Example:

    >>> history = tf.constant([[1, 2, 4]])
    >>> def score(history, item):
    ...     return tf.cast(tf.reduce_sum(history, axis=1) * item, tf.float32)
    >>> item = tf.constant([1])
    >>> found = leave_one_out(score, history, item)
    >>> deletion(score, history, item, found, num_deleted=1).top.numpy()
    array([4.], dtype=float32)

    References:
        - [Samek et al., 2015](https://arxiv.org/abs/1509.06321), on deletion in the
          order of an explanation.
    """
    count = check_positive_int("num_deleted", num_deleted)
    draws = check_positive_int("num_draws", num_draws)
    real = history != 0
    lengths = tf.reduce_sum(tf.cast(real, tf.int32), axis=1, keepdims=True)
    count = tf.minimum(count, tf.maximum(lengths - 1, 0))  # [B, 1]
    whole = tf.cast(score(history, item, *times), tf.float32)

    def loss(order: tf.Tensor) -> tf.Tensor:
        """What is lost with the real items that come first in this order."""
        order = tf.where(real, tf.cast(order, tf.float32), tf.float32.min)
        ranks = tf.argsort(
            tf.argsort(order, axis=1, direction="DESCENDING", stable=True), axis=1
        )
        kept = tf.where(ranks < count, tf.zeros_like(history), history)
        return whole - tf.cast(score(kept, item, *times), tf.float32)

    draw = np.random.default_rng(seed)
    shape = history.shape
    lost = [loss(tf.constant(draw.random(shape, np.float32))) for _ in range(draws)]
    return Deletion(loss(contribution), tf.add_n(lost) / draws)
