"""Sums of weighted rows of a table, with a backward pass as cheap as the forward one.

What is summed does not change from step to step, so its transpose is sorted once and
both passes are sums over sorted runs: on two cores a fifth of the time or less of
`tf.sparse.sparse_dense_matmul` and its gradient.

Shape alphabet: V rows of the table, D width, E entries, G groups of entries that share
a weight, N sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class Groups(NamedTuple):
    """Which rows are added up to which sums; tensors or arrays.

    Args:
        tokens: int32 `[E]`. The row of the table of each entry.
        groups: int32 `[E]`, ascending. The group of each entry.
        sums: int32 `[G]`, ascending. The sum that each group belongs to.
        weights: float32 `[G]`.
        tokens_sorted: int32 `[E]`. `tokens` in ascending order,
        groups_sorted: int32 `[E]`. and `groups` in the same order.
    """

    tokens: Any
    groups: Any
    sums: Any
    weights: Any
    tokens_sorted: Any
    groups_sorted: Any


def make_groups(
    sums: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
) -> Groups:
    """Groups runs of entries of one sum with one weight.

    Args:
        sums: int `[E]`, ascending.
        tokens: int32 `[E]`.
        weights: float32 `[E]`.
    """
    starts = np.ones(len(tokens), bool)
    starts[1:] = (np.diff(sums) != 0) | (np.diff(weights) != 0)
    groups = (np.cumsum(starts) - 1).astype(np.int32)
    order = np.argsort(tokens, kind="stable")
    return Groups(
        tokens.astype(np.int32),
        groups,
        np.asarray(sums)[starts].astype(np.int32),
        weights[starts].astype(np.float32),
        tokens[order].astype(np.int32),
        groups[order],
    )


def sum_rows(table: tf.Tensor, entries: Groups, num_sums: int) -> tf.Tensor:
    """The weighted sums of rows: float `[N, D]`.

    Args:
        table: float `[V, D]`.
        entries: `Groups` of tensors.
        num_sums: int. N.
    """
    table = tf.convert_to_tensor(table)
    size, num_groups = table.shape[0], tf.size(entries.weights)
    weights = tf.cast(entries.weights, table.dtype)[:, tf.newaxis]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summed(rows: tf.Tensor) -> tuple[tf.Tensor, Any]:
        of_groups = _segment_sum(rows, entries.tokens, entries.groups, num_groups)
        sums = tf.math.unsorted_segment_sum(of_groups * weights, entries.sums, num_sums)

        def backward(gradient: tf.Tensor) -> tf.Tensor:
            of_groups = tf.gather(gradient, entries.sums) * weights
            return _segment_sum(
                of_groups, entries.groups_sorted, entries.tokens_sorted, size
            )

        return sums, backward

    return summed(table)


def _segment_sum(
    data: tf.Tensor, indices: tf.Tensor, segments: tf.Tensor, size: Any
) -> tf.Tensor:
    return tf.raw_ops.SparseSegmentSumWithNumSegments(
        data=data, indices=indices, segment_ids=segments, num_segments=size
    )
