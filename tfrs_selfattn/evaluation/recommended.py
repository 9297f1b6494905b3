"""What a recommender shows, beyond whether the target was there: coverage, novelty.

Shape alphabet: B users, N candidates, S seen items of a user, k recommended items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.ops.top_k import block_top_k


def recommended_items(
    scores: tf.Tensor, k: int, seen: tf.Tensor | None = None
) -> tf.Tensor:
    """The k best items of each user, as a server would answer.

    Unlike `target_ranks`, this knows no target: everything seen is left out. Among
    equal scores the lower index comes first, and a NaN is not recommended.

    Args:
        scores: float `[B, N]`. Column j belongs to item index j + 1.
        k: int.
        seen: int `[B, S]` or None. Item indices to leave out, 0 = padding. Defaults to
            `None`.

    Returns:
        int32 `[B, min(k, N)]` item indices, best first, then 0 where no more items are
        eligible.
    """
    scores = tf.convert_to_tensor(scores)
    lowest = tf.constant(float("-inf"), scores.dtype)
    scores = tf.where(tf.math.is_nan(scores), lowest, scores)
    batch_size, num_items = tf.shape(scores)[0], tf.shape(scores)[1]
    if seen is not None:
        columns = tf.cast(seen, tf.int32) - 1
        real = tf.logical_and(columns >= 0, columns < num_items)
        rows = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(columns))
        # A minimum, not an assignment: padding writes +inf, which changes nothing.
        scores = tf.tensor_scatter_nd_min(
            scores,
            tf.stack([rows, tf.where(real, columns, 0)], axis=-1),
            tf.where(real, lowest, -lowest),
        )
    width = scores.shape[1]
    values, best = block_top_k(scores, min(check_positive_int("k", k), width))
    return tf.where(values > lowest, best + 1, 0)


class RecommendedLists:
    """Adds up coverage and novelty over batches of recommended items.

    Coverage@k is the share of the catalogue that was recommended to anybody among the
    first k. Novelty@k is the mean self-information −log2 p(item) of the items
    recommended among the first k, in bits, where p is an item's share of the training
    events; an item without any counts as if it had one. That is the free-discovery
    novelty of Vargas and Castells, by events instead of users and without discount by
    rank or relevance.

    Memory: a flag and a number an item and cut-off, however many users there are.

    Args:
        num_items: int. N.
        ks: ints. Cut-offs.
        item_counts: int `[N]` or None. Training events of item index j + 1. None leaves
            novelty out. Defaults to `None`.

    References:
        - [Vargas and Castells, 2011](https://doi.org/10.1145/2043932.2043955), §4.
        - [Zhou et al., 2010](https://doi.org/10.1073/pnas.1000488107), for the mean
          self-information of recommended items.
    """

    def __init__(
        self,
        num_items: int,
        ks: Sequence[int],
        item_counts: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.num_items = check_positive_int("num_items", num_items)
        self.ks = tuple(check_positive_int("ks", k) for k in ks)
        self.shown = np.zeros([len(self.ks), self.num_items + 1], np.int64)
        self.information: np.ndarray[Any, Any] | None = None
        if item_counts is not None:
            self.information = _self_information(item_counts, self.num_items)

    def update(self, items: np.ndarray[Any, Any]) -> None:
        """Counts a batch: item indices `[B, max(ks)]`, best first, 0 = none."""
        for row, k in enumerate(self.ks):
            first = np.asarray(items)[:, :k].reshape(-1)
            self.shown[row] += np.bincount(first, minlength=self.num_items + 1)

    def metrics(self) -> dict[str, float]:
        """`{"coverage@10": ..., "novelty@10": ...}` of all batches."""
        metrics = {}
        for k, shown in zip(self.ks, self.shown[:, 1:], strict=True):
            metrics[f"coverage@{k}"] = int(np.count_nonzero(shown)) / self.num_items
            if self.information is not None:
                total = max(1, int(shown.sum()))
                metrics[f"novelty@{k}"] = float(shown @ self.information) / total
        return metrics


def _self_information(
    item_counts: np.ndarray[Any, Any], num_items: int
) -> np.ndarray[Any, Any]:
    counts = np.asarray(item_counts)
    if counts.shape != (num_items,):
        raise ValueError(
            f"`item_counts` must be the training events of each of the {num_items} "
            f"items. Received: shape {counts.shape}. Pass "
            "`split.train_counts()[1:]`; its first entry stands for padding."
        )
    information: np.ndarray[Any, Any] = -np.log2(
        np.maximum(counts, 1) / max(1, int(counts.sum()))
    )
    return information
