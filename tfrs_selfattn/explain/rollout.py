"""Attention roll-out: where a stack of attention looked. No measure of what it changed.

A weight says how much of an item's value entered a sum, and neither whether the value
mattered nor which way. `leave_one_out` says that; `faithfulness` compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def attention_rollout(weights: Sequence[tf.Tensor]) -> tf.Tensor:
    r"""Follows attention through all blocks, from each position to the inputs.

    $R = \prod_l \frac12 (\bar A_l + I)$, the later block on the left, where
    $\bar A_l$ is the mean of the heads of block $l$ and $I$ stands for the residual
    connection. A position that may attend to nothing keeps to itself.

    Args:
        weights: list of float `[B, H, T, T]`, the attention weights of each block, the
            first block first.

    Returns:
        float32 `[B, T, T]`. Row t holds shares of the inputs in position t that sum
        to 1; none is negative.

    Raises:
        ValueError: when there are no weights.

    Example:

    >>> weights = tf.constant([[[[1.0, 0.0], [0.6, 0.4]]]])
    >>> attention_rollout([weights]).numpy()[0, 1]
    array([0.3, 0.7], dtype=float32)

    References:
        - [Abnar and Zuidema, 2020](https://arxiv.org/abs/2005.00928), section 3.
        - [Jain and Wallace, 2019](https://arxiv.org/abs/1902.10186), on why attention
          is no explanation.
    """
    if not len(weights):
        raise ValueError(
            "`weights` must hold the attention weights of at least one block. "
            "Received: none. Take them from `QueryTower.attention_scores`."
        )
    rolled = None
    for block in weights:
        mean = tf.reduce_mean(tf.cast(block, tf.float32), axis=1)  # [B, T, T]
        itself = tf.eye(tf.shape(mean)[-1])
        attended = tf.reduce_sum(mean, axis=-1, keepdims=True)
        # A row of zeros may attend to nothing.
        mean = tf.where(attended > 0.0, mean, itself)
        mixed = 0.5 * (mean + itself)
        rolled = mixed if rolled is None else tf.matmul(mixed, rolled)
    return rolled
