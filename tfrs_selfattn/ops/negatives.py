"""Bookkeeping of sampled negatives: repeats, and what must not count as a negative.

Nothing here is of the size queries times history times negatives: an item is looked up
among the negatives of its group, which are sorted.
"""

from __future__ import annotations

import tensorflow as tf


def merge_repeats(items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorts every line and counts each item once, at its first place.

    Args:
        items: int32 `[G, n]`, draws that may repeat.

    Returns:
        int32 `[G, n]`, each line in rising order, and float32 `[G, n]`, how often the
        item was drawn; 0 at its further places.
    """
    items = tf.sort(items, axis=1)
    first = tf.pad(
        items[:, 1:] != items[:, :-1], [[0, 0], [1, 0]], constant_values=True
    )
    flat = tf.reshape(first, [-1])
    runs = tf.cumsum(tf.cast(flat, tf.int32)) - 1
    lengths = tf.math.unsorted_segment_sum(
        tf.ones_like(runs, tf.float32), runs, tf.size(runs)
    )
    counts = tf.where(flat, tf.gather(lengths, runs), 0.0)
    return items, tf.reshape(counts, tf.shape(items))


def find_columns(
    negatives: tf.Tensor, groups: tf.Tensor, items: tf.Tensor, num_items: int
) -> tf.Tensor:
    """Where items stand among the negatives of their groups.

    Args:
        negatives: int32 `[G, n]`, each line in rising order.
        groups: int32 `[P]`, lines of `negatives`.
        items: int32 `[P]`, below `num_items`.
        num_items: int, N.

    Returns:
        int32 `[P]`, the first column that holds the item, or -1.
    """
    num_groups, num = tf.unstack(tf.shape(negatives))
    lines = tf.range(tf.cast(num_groups, tf.int64))[:, tf.newaxis]
    keys = tf.reshape(lines * num_items + tf.cast(negatives, tf.int64), [-1])
    keys = tf.concat([keys, [tf.int64.max]], axis=0)  # never empty
    wanted = tf.cast(groups, tf.int64) * num_items + tf.cast(items, tf.int64)
    places = tf.searchsorted(keys, wanted)
    found = tf.gather(keys, places) == wanted
    return tf.where(found, places - groups * num, -1)


def leave_out(
    adjust: tf.Tensor, lines: tf.Tensor, columns: tf.Tensor, left_out: float
) -> tf.Tensor:
    """Writes `left_out` into `adjust` `[S, n]` at (line, column) of P pairs.

    Pairs of column -1 are no pairs.
    """
    kept = tf.where(columns >= 0)[:, 0]
    pairs = tf.stack([tf.gather(lines, kept), tf.gather(columns, kept)], axis=1)
    values = tf.fill([tf.size(kept)], left_out)
    return tf.tensor_scatter_nd_update(adjust, pairs, values)


def among(
    owners: tf.Tensor,
    items: tf.Tensor,
    lines: tf.Tensor,
    wanted: tf.Tensor,
    num_items: int,
) -> tf.Tensor:
    """Which of the items asked for belong to the one that they are asked for.

    Args:
        owners: int32 `[P]`, and
        items: int32 `[P]`, below `num_items`: pairs of an owner and an item of it.
        lines: int32 `[M]`, an owner for each line of `wanted`.
        wanted: int32 `[M, n]`, items.
        num_items: int, N.

    Returns:
        bool `[M, n]`.
    """
    owned = tf.cast(owners, tf.int64) * num_items + tf.cast(items, tf.int64)
    owned = tf.concat([tf.sort(owned), [tf.int64.max]], axis=0)  # never empty
    keys = tf.cast(lines, tf.int64)[:, tf.newaxis] * num_items
    keys += tf.cast(wanted, tf.int64)
    places = tf.searchsorted(owned, tf.reshape(keys, [-1]))
    return tf.reshape(tf.gather(owned, places), tf.shape(keys)) == keys
