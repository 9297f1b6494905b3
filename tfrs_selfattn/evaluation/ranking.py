"""Ranks of the true next items among the whole catalogue, and metrics of ranks.

Shape alphabet: B users, N candidates, S seen items of a user. Score matrices cover the
catalogue: column j holds the score of item index j + 1. Item index 0 is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int

# The rank of a target that the catalogue does not have: a miss at every k, also where
# k exceeds the number of items.
UNRANKED: int = int(np.iinfo(np.int32).max)


def target_ranks(
    scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor | None = None
) -> tf.Tensor:
    """The rank of each user's target among all eligible items, best = 1.

    The rank is 1 + the number of other eligible items that do not score below the
    target. Ties thus count against the target, and so does every NaN, whether in the
    target's score or another's: a model that scores all items alike ranks last.

    Args:
        scores: float `[B, N]`. Column j belongs to item index j + 1.
        targets: int `[B]`, item indices 1..N; an index outside is `UNRANKED`.
        seen: int `[B, S]` or None. Item indices that are not eligible, in any order,
            with repetitions, 0 = padding. The target itself stays eligible. Defaults
            to `None`: every item is eligible.

    Returns:
        int32 `[B]`.
    """
    batch_size, num_items = tf.shape(scores)[0], tf.shape(scores)[1]
    targets = tf.cast(targets, tf.int32)
    known = tf.logical_and(targets >= 1, targets <= num_items)  # [B]
    targets = tf.where(known, targets, 0)
    not_compared = targets[:, tf.newaxis]
    if seen is not None:
        seen = tf.cast(seen, tf.int32)
        seen = tf.where(tf.logical_and(seen >= 1, seen <= num_items), seen, 0)
        not_compared = tf.concat([not_compared, seen], axis=1)  # [B, 1 + S]
    # Scattered into one flag an item, not compared item by item: memory stays [B, N].
    rows = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(not_compared))
    compared = tf.tensor_scatter_nd_update(
        tf.ones([batch_size, num_items + 1], tf.bool),  # Column 0 takes the padding.
        tf.stack([rows, not_compared], axis=-1),
        tf.zeros_like(not_compared, tf.bool),
    )[:, 1:]
    target_scores = tf.gather(scores, tf.maximum(targets - 1, 0), batch_dims=1)
    below = scores < target_scores[:, tf.newaxis]  # [B, N]; False where NaN.
    ahead = tf.logical_and(compared, tf.logical_not(below))
    ranks = 1 + tf.math.count_nonzero(ahead, axis=1, dtype=tf.int32)
    return tf.where(known, ranks, UNRANKED)


def ranking_metrics(
    ranks: np.ndarray[Any, Any], ks: Sequence[int] = (10,)
) -> dict[str, float]:
    """Means of the usual metrics over users with one target each.

    With one target, HR@k equals recall@k, and NDCG@k is 1 / log2(rank + 1) within
    the first k and 0 beyond.

    Args:
        ranks: int `[B]`, best = 1, of at least one user.
        ks: ints. Cut-offs. Defaults to `(10,)`.

    Returns:
        `{"hr@10": ..., "ndcg@10": ..., "mrr": ...}`, two entries a cut-off.
    """
    position = np.asarray(ranks, dtype=np.float64)
    if position.size == 0:
        raise ValueError(
            "`ranks` must hold the rank of at least one target. Received: none. "
            "Metrics of nobody are undefined; check the evaluation set."
        )
    metrics = {}
    for k in (check_positive_int("ks", k) for k in ks):
        hit = position <= k
        metrics[f"hr@{k}"] = float(np.mean(hit))
        metrics[f"ndcg@{k}"] = float(np.mean(hit / np.log2(position + 1)))
    metrics["mrr"] = float(np.mean(1 / position))
    return metrics
