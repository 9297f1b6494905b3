"""Masks and positions of padded and packed histories.

One meaning everywhere: True = a real item, or a position that may be attended to.

Shape alphabet: B users (rows), T positions, S attended positions, D width.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn._checks import check_choice


def lengths_mask(lengths: tf.Tensor, length: int | tf.Tensor) -> tf.Tensor:
    """The padding mask of histories padded on the right: bool `[B, T]`.

    Args:
        lengths: int `[B]`. Real items of each history.
        length: int or scalar tensor. T.
    """
    return tf.sequence_mask(lengths, length)


def item_positions(
    mask: tf.Tensor,
    segment_ids: tf.Tensor | None = None,
    *,
    count_from: str = "newest",
) -> tf.Tensor:
    """Numbers the real items of every history, ignoring padding wherever it is.

    Args:
        mask: bool `[B, T]`, True = real item.
        segment_ids: int `[B, T]`; numbering restarts in each segment. Segments are
            contiguous runs of equal ids.
        count_from: "newest" numbers the last item 0 and counts backwards in time;
            "oldest" numbers the first item 0.

    Returns:
        int32 `[B, T]`, at least 0. Padding gets some number of its row: mask it.

    Raises:
        ValueError: when `count_from` is neither.
    """
    check_choice("count_from", count_from, ("newest", "oldest"))
    real = tf.cast(mask, tf.int32)
    earlier = tf.cumsum(real, axis=1, exclusive=True)  # real items before t
    if segment_ids is None:
        total = tf.reduce_sum(real, axis=1, keepdims=True)
    else:
        runs = _flat_runs(segment_ids)
        size = tf.size(segment_ids)
        first = tf.math.unsorted_segment_min(tf.reshape(earlier, [-1]), runs, size)
        count = tf.math.unsorted_segment_sum(tf.reshape(real, [-1]), runs, size)
        earlier -= tf.reshape(tf.gather(first, runs), tf.shape(segment_ids))
        total = tf.reshape(tf.gather(count, runs), tf.shape(segment_ids))
    if count_from == "oldest":
        return earlier
    return tf.maximum(total - 1 - earlier, 0)


def _flat_runs(segment_ids: tf.Tensor) -> tf.Tensor:
    """Numbers the runs of equal ids over all rows: int32 `[B * T]`, below B * T."""
    starts = tf.pad(
        segment_ids[:, 1:] != segment_ids[:, :-1],
        [[0, 0], [1, 0]],
        constant_values=True,  # every row starts a run
    )
    return tf.cumsum(tf.reshape(tf.cast(starts, tf.int32), [-1])) - 1


def align_right(
    ids: tf.Tensor, max_length: int, *others: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Moves the newest real items of every row to its right end.

    However a history arrives (padded on the left, on the right, with unknown ids in
    the middle, longer than the model), the same items give the same row. The width
    shrinks to the longest history of the batch, so short histories cost less.

    Args:
        ids: int `[B, T]`; 0 = padding.
        max_length: int. At most so many items, the newest, are kept.
        *others: `[B, T]` tensors that move with the ids (their padding becomes 0).

    Returns:
        ids and `others`, each `[B, T']` with 1 <= T' <= `max_length`.
    """
    real = ids != 0
    newer = tf.cumsum(tf.cast(real, tf.int32), axis=1, exclusive=True, reverse=True)
    counts = tf.reduce_sum(tf.cast(real, tf.int32), axis=1)
    width = tf.clip_by_value(tf.reduce_max(counts, axis=None), 1, max_length)
    width = tf.maximum(width, 1)  # an empty batch has the lowest int as its maximum
    keep = tf.logical_and(real, newer < width)
    source = tf.where(keep)  # [M, 2], row-major
    rows = tf.cast(source[:, 0], tf.int32)
    columns = width - 1 - tf.gather_nd(newer, source)
    target = tf.stack([rows, columns], axis=1)
    shape = tf.stack([tf.shape(ids)[0], width])
    return tuple(
        tf.scatter_nd(target, tf.gather_nd(tensor, source), shape)
        for tensor in (ids, *others)
    )
