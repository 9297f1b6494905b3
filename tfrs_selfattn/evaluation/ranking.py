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
    num_items = tf.shape(scores)[1]
    targets = tf.cast(targets, tf.int32)
    known = tf.logical_and(targets >= 1, targets <= num_items)  # [B]
    target_columns = tf.where(known, targets - 1, 0)[:, tf.newaxis]  # [B, 1]
    target_scores = tf.gather(scores, target_columns, batch_dims=1)  # [B, 1]
    ahead = num_items - _count(scores < target_scores)  # A NaN is never below.
    # Counted among all items, then taken off for those that do not compete: few
    # numbers, where a mask of the catalogue would be another [B, N].
    columns = target_columns
    if seen is not None:
        columns = tf.concat([columns, tf.cast(seen, tf.int32) - 1], axis=1)
    columns = tf.sort(columns, axis=1)  # [B, 1 + S]
    competes_not = tf.logical_and(columns >= 0, columns < num_items)
    first = tf.concat(
        [tf.ones_like(columns[:, :1], tf.bool), columns[:, 1:] != columns[:, :-1]], 1
    )
    own = tf.gather(scores, tf.where(competes_not, columns, 0), batch_dims=1)
    competes_not = tf.logical_and(competes_not, first)
    not_below = tf.logical_not(own < target_scores)
    ahead -= _count(tf.logical_and(competes_not, not_below))
    return tf.where(known, 1 + ahead, UNRANKED)


def _count(flags: tf.Tensor) -> tf.Tensor:
    # `tf.math.count_nonzero` would count in int64, twice the memory of the scores.
    return tf.reduce_sum(tf.cast(flags, tf.int32), axis=1)


def case_metrics(
    ranks: np.ndarray[Any, Any], ks: Sequence[int] = (10,)
) -> dict[str, np.ndarray[Any, Any]]:
    """What each case contributes to the means of `ranking_metrics`.

    Args:
        ranks: int `[B]`, best = 1, of at least one user.
        ks: ints. Cut-offs. Defaults to `(10,)`.

    Returns:
        float64 `[B]` for each key of `ranking_metrics`.
    """
    position = np.asarray(ranks, dtype=np.float64)
    if position.size == 0:
        raise ValueError(
            "`ranks` must hold the rank of at least one target. Received: none. "
            "Metrics of nobody are undefined; check the evaluation set."
        )
    gains = {}
    for k in (check_positive_int("ks", k) for k in ks):
        hit = position <= k
        gains[f"hr@{k}"] = hit.astype(np.float64)
        gains[f"ndcg@{k}"] = hit / np.log2(position + 1)
        gains[f"map@{k}"] = hit / position
    gains["mrr"] = 1 / position
    return gains


def ranking_metrics(
    ranks: np.ndarray[Any, Any], ks: Sequence[int] = (10,)
) -> dict[str, float]:
    """Means of the usual metrics over cases with one target each.

    With one target, HR@k equals recall@k; NDCG@k is 1 / log2(rank + 1) within the
    first k and 0 beyond; and MAP@k, the precision at the only relevant position, is
    1 / rank within the first k and 0 beyond, which others call MRR@k. `mrr` has no
    cut-off.

    Args:
        ranks: int `[B]`, best = 1, of at least one user.
        ks: ints. Cut-offs. Defaults to `(10,)`.

    Returns:
        `{"hr@10": ..., "ndcg@10": ..., "map@10": ..., "mrr": ...}`, three entries a
        cut-off.
    """
    return {name: float(gain.mean()) for name, gain in case_metrics(ranks, ks).items()}
