"""Several interests of one user against one positive."""

from __future__ import annotations

import tensorflow as tf


def best_interest(queries: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
    """Of each user's K interests the one that scores the positive highest.

    Training that one alone is what taking the maximum over interests means in serving:
    the interest that wins an item is the one to move.

    Args:
        queries: float `[M, K, D]`.
        positives: float `[M, D]`.

    Returns:
        float `[M, D]`. Gradients flow to the chosen interest only.

    References:
        - [Cen et al., 2020](https://arxiv.org/abs/2005.09347) (ComiRec), equation 6.
    """
    positives = tf.cast(positives, queries.dtype)
    scores = tf.einsum("mkd,md->mk", queries, positives)
    return tf.gather(queries, tf.argmax(scores, axis=1), batch_dims=1)
