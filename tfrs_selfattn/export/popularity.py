"""The answer to a history the model knows nothing about: the most popular items.

Works on ranks of popularity, not on scores of the catalogue, so it costs the same for
any number of items and stands beside any kind of index.

Shape alphabet: B users, N items, k answers, E excluded items, C candidates. An item is
its row 0..N-1; -1 stands for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.ops.top_k import LOWEST_SCORE, PADDING_ROW

# An item that was never seen counts as half an event: below all others, yet finite.
_UNSEEN = 0.5


def all_events(counts: npt.ArrayLike) -> float:
    """What counts are shares of: their sum, or that of unseen items if it is 0."""
    events = np.asarray(counts, np.float64)
    return float(events.sum() or _UNSEEN * events.size)


def log_shares(
    counts: npt.ArrayLike, total: float | None = None
) -> npt.NDArray[np.float32]:
    """The popularity score of each item: the log of its share of all events.

    Where no event was counted at all, every item has the same share.

    Args:
        counts: int `[N]`.
        total: float. All events, where these are not all items; None adds them up.
    """
    events = np.maximum(np.asarray(counts, np.float64), _UNSEEN)
    shares = np.log(events / (all_events(counts) if total is None else total))
    return np.asarray(shares, np.float32)


class Popularity(tf.Module):  # type: ignore[misc]
    """The items by popularity; equally popular ones in the order of their rows.

    Args:
        counts: int `[N]`. Events of each item.
        total: float. As of `log_shares`. Defaults to `None`.
    """

    def __init__(self, counts: npt.ArrayLike, total: float | None = None) -> None:
        super().__init__(name="popularity")
        shares = log_shares(counts, total)
        # Not read by the graph: a refresh goes on from them.
        self.counts = tf.Variable(
            np.asarray(counts, np.int64), trainable=False, name="counts"
        )
        order = np.argsort(-shares, kind="stable").astype(np.int32)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order), dtype=np.int32)

        def variable(value: Any, name: str) -> tf.Variable:
            return tf.Variable(value, trainable=False, name=name)

        self.order = variable(order, "order")  # [N], rank to row
        self.ranks = variable(ranks, "ranks")  # [N], row to rank
        self.shares = variable(shares[order], "shares")  # [N], by rank

    def top_k(self, k: int, excluded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The k most popular items outside int32 `[B, E]` excluded rows.

        Returns:
            scores float32 `[B, k]`, rows int32 `[B, k]`; where no item is left,
            `LOWEST_SCORE` and -1.
        """
        batch_size, width = tf.shape(excluded)[0], tf.shape(excluded)[1]
        # The first k + E ranks hold the answer whatever is excluded.
        reach = tf.minimum(k + width, self.shares.shape[0])
        ranks = tf.minimum(self._ranks_of(excluded), reach)  # [B, E], reach = not there
        users = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(ranks))
        times_excluded = tf.scatter_nd(
            tf.stack([users, ranks], axis=-1),
            tf.ones_like(ranks),
            tf.stack([batch_size, reach + 1]),
        )
        eligible = times_excluded[:, :reach] == 0  # [B, reach]
        # Those that stay, in order: top-k prefers the lower index among equals.
        _, first = tf.math.top_k(
            tf.cast(_widened(eligible, k, False), tf.int32), k
        )  # [B, k]
        found = tf.gather(_widened(eligible, k, False), first, batch_dims=1)
        return self._answer(first, found)

    def top_k_among(self, k: int, allowed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The k most popular of int32 `[B, C]` rows, each answered once.

        Returns:
            As `top_k`.
        """
        nowhere = self.shares.shape[0]
        ranks = tf.sort(_widened(self._ranks_of(allowed), k, nowhere), axis=-1)
        repeated = tf.pad(ranks[:, 1:] == ranks[:, :-1], [[0, 0], [1, 0]])
        ranks = tf.sort(tf.where(repeated, nowhere, ranks), axis=-1)[:, :k]
        return self._answer(ranks, ranks < nowhere)

    def _ranks_of(self, rows: tf.Tensor) -> tf.Tensor:
        """The rank of each row, and N for nothing."""
        ranks = tf.gather(self.ranks, tf.maximum(rows, 0))
        return tf.where(rows >= 0, ranks, self.shares.shape[0])

    def _answer(
        self, ranks: tf.Tensor, found: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        ranks = tf.where(found, ranks, 0)
        return (
            tf.where(found, tf.gather(self.shares, ranks), LOWEST_SCORE),
            tf.where(found, tf.gather(self.order, ranks), PADDING_ROW),
        )


def _widened(values: tf.Tensor, k: int, fill: bool | int) -> tf.Tensor:
    """Brings `[B, …]` to k columns at least."""
    missing = tf.maximum(k - tf.shape(values)[1], 0)
    return tf.pad(values, [[0, 0], [0, missing]], constant_values=fill)
