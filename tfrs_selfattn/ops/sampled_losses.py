"""Losses of queries against a few candidates each, in tiles, gradients written out.

Queries that share their negatives form a group: the whole batch is one, or each row of
it, or each query. A tile is some queries of one group, or some whole groups; its scores
exist only while its loss and its gradients are taken, as in `softmax_loss.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# Elements of one tile of scores, or of its negatives: 16 MB of float32.
TILE_ELEMENTS = 1 << 22
_LEAST_ROWS = 64


class NegativeColumns(NamedTuple):
    """Which candidates are the negatives of which query.

    Attributes:
        columns: int32 `[G, n]`. Rows of the table of candidates, a group a line; or
            `[n]`, when all queries are one group.
        groups: int32 `[M]`. The group of each query, from 0 to G - 1.
        adjust: float32 `[S, n]`, S > 0. A number for each negative, by the line that
            `adjust_rows` names. Softmax adds it to the score, and leaves out negatives
            of the lowest float32; the sigmoid losses take it for the number of times
            that the negative counts.
        adjust_rows: int32 `[M]`. Each query's line of `adjust`.
        hits: int32 `[M]`. A column that does not count for the query, or -1. None
            when `adjust` says it all.
    """

    columns: tf.Tensor
    groups: tf.Tensor
    adjust: tf.Tensor
    adjust_rows: tf.Tensor
    hits: tf.Tensor | None = None


# From positive scores [...], negative scores [..., n] and what `adjust` holds to: the
# losses [...], their derivatives by the positive [...], and those by the negatives as
# a factor [...] of a tensor [..., n], which saves a pass over the latter.
Pull = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor],
    tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor],
]


def sampled_softmax_loss(
    queries: tf.Tensor,
    table: tf.Tensor,
    targets: tf.Tensor,
    negatives: NegativeColumns,
    weights: tf.Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> tf.Tensor:
    r"""Weighted sum of $-\log(e^{s_+} / (e^{s_+} + \sum_j e^{s_j + a_j}))$.

    Here $s$ are dot products over the temperature and $a$ is `adjust`.

    Args:
        queries: float `[M, D]`; half precision is computed in float32.
        table: float `[U, D]`, candidates.
        targets: int `[M]`, rows of the positives in `table`.
        negatives: `NegativeColumns` into `table`.
        weights: float32 `[M]`, constants. None weighs all 1.
        temperature: float above 0.

    Returns:
        float32 scalar.
    """
    lowest = tf.float32.min

    def pull(
        positive: tf.Tensor, scores: tf.Tensor, adjust: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        scores += adjust
        top = tf.maximum(tf.reduce_max(scores, -1), positive)
        shares = tf.exp(scores - top[..., tf.newaxis])
        others = tf.reduce_sum(shares, -1)
        mine = tf.exp(positive - top)
        total = mine + others
        losses = tf.math.log(total) + top - positive
        return losses, -others / total, 1.0 / total, shares

    return _tiled(
        queries, table, targets, negatives, weights, temperature, lowest, pull
    )


def sampled_sigmoid_loss(
    queries: tf.Tensor,
    table: tf.Tensor,
    targets: tf.Tensor,
    negatives: NegativeColumns,
    weights: tf.Tensor | None = None,
    *,
    num_negatives: int | tf.Tensor,
    temperature: float = 1.0,
    exponent: float = 1.0,
) -> tf.Tensor:
    r"""Weighted sum of $-(\log\sigma^\beta(s_+) + \sum_j \log(1-\sigma(s_j)))/(n+1)$.

    Negatives that do not count are made up for by the others: the sum over those that
    do is scaled to n of them.

    Args:
        queries: float `[M, D]`; half precision is computed in float32.
        table: float `[U, D]`, candidates.
        targets: int `[M]`, rows of the positives in `table`.
        negatives: `NegativeColumns` into `table`.
        weights: float32 `[M]`, constants. None weighs all 1.
        num_negatives: int, n. What a query's `adjust` adds up to with none left out.
        temperature: float above 0.
        exponent: float, $\beta$ of gBCE; 1 is binary cross-entropy.

    Returns:
        float32 scalar.
    """
    drawn = tf.cast(num_negatives, tf.float32)
    share = 1.0 / (drawn + 1.0)

    def pull(
        positive: tf.Tensor, scores: tf.Tensor, adjust: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        counted = tf.reduce_sum(adjust, -1)
        scale = share * tf.math.divide_no_nan(drawn, counted)
        wrong = tf.reduce_sum(adjust * tf.nn.softplus(scores), -1)
        losses = share * exponent * tf.nn.softplus(-positive) + scale * wrong
        slope = -share * exponent * tf.sigmoid(-positive)
        return losses, slope, scale, adjust * tf.sigmoid(scores)

    return _tiled(queries, table, targets, negatives, weights, temperature, 0.0, pull)


def _tiled(
    queries: tf.Tensor,
    table: tf.Tensor,
    targets: tf.Tensor,
    negatives: NegativeColumns,
    weights: tf.Tensor | None,
    temperature: float,
    left_out: float,
    pull: Pull,
) -> tf.Tensor:
    """The loss as a function of queries and table that knows its gradients."""
    queries = tf.cast(queries, tf.float32) * (1.0 / temperature)
    table = tf.cast(table, tf.float32)
    targets = tf.cast(targets, tf.int32)
    if weights is None:
        weights = tf.ones_like(targets, tf.float32)
    weights = tf.stop_gradient(tf.cast(weights, tf.float32))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def loss_of(
        queries: tf.Tensor, table: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        loss, query_gradient, table_gradient = _walk(
            queries, table, targets, negatives, weights, left_out, pull
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * table_gradient

        return loss, gradient

    return loss_of(queries, table)


def _walk(
    queries: tf.Tensor,
    table: tf.Tensor,
    targets: tf.Tensor,
    negatives: NegativeColumns,
    weights: tf.Tensor,
    left_out: float,
    pull: Pull,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Loss and its gradients for queries and table, tile by tile."""
    width = queries.shape[-1]
    size = tf.shape(table)[0]
    columns = negatives.columns
    num_columns = tf.shape(columns)[-1]
    shared = columns.shape.rank == 1
    if shared:
        tiles, slots = _tiles_of_queries(tf.shape(queries)[0], num_columns)
        everyone = tf.gather(table, columns)  # [n, D]
    else:
        tiles, slots = _tiles_of_groups(
            negatives.groups, tf.shape(columns)[0], num_columns, width
        )
        missing = tf.size(tiles[:, :, 0]) - tf.shape(columns)[0]
        columns = tf.pad(columns, [[0, missing], [0, 0]])
    # Places of a tile without a query hold M: a query of zeros that weighs 0.
    padded = tf.pad(queries, [[0, 1], [0, 0]])
    target_of = tf.pad(targets, [[0, 1]])
    weight_of = tf.pad(weights, [[0, 1]])
    adjust_row_of = tf.pad(negatives.adjust_rows, [[0, 1]])

    def step(
        tile: tf.Tensor,
        loss: tf.Tensor,
        total: tf.Tensor,
        parts: tf.TensorArray,
        slopes: tf.TensorArray,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray, tf.TensorArray]:
        members = tiles[tile]  # [l], or [g, l] for g groups of their own negatives
        rows = tf.gather(padded, members)  # [..., l, D]
        weight = tf.gather(weight_of, members)  # [..., l]
        positives = tf.gather(table, tf.gather(target_of, members))  # [..., l, D]
        if shared:
            others = everyone
        else:
            first = tile * tf.shape(members)[0]
            mine = columns[first : first + tf.shape(members)[0]]  # [g, n]
            others = tf.gather(table, mine)  # [g, n, D]
        adjust = tf.gather(negatives.adjust, tf.gather(adjust_row_of, members))
        if negatives.hits is not None:
            hit = tf.gather(tf.pad(negatives.hits, [[0, 1]]), members)
            is_hit = tf.range(num_columns) == hit[..., tf.newaxis]
            adjust = tf.where(is_hit, left_out, adjust)
        losses, slope, factor, shares = pull(
            tf.reduce_sum(rows * positives, -1),
            tf.matmul(rows, others, transpose_b=True),  # [..., l, n]
            adjust,
        )
        slope = slope * weight
        factor = (factor * weight)[..., tf.newaxis]
        pulled = factor * tf.matmul(shares, others) + slope[..., tf.newaxis] * positives
        pushed = tf.matmul(shares, factor * rows, transpose_a=True)  # [..., n, D]
        if not shared:
            pushed = tf.math.unsorted_segment_sum(pushed, mine, size)
        return (
            tile + 1,
            loss + tf.reduce_sum(losses * weight),
            total + pushed,
            parts.write(tile, tf.reshape(pulled, [-1, width])),
            slopes.write(tile, tf.reshape(slope, [-1])),
        )

    num_tiles = tf.shape(tiles)[0]

    def array(shape: list[int | None]) -> tf.TensorArray:
        return tf.TensorArray(tf.float32, num_tiles, element_shape=shape)

    _, loss, total, parts, slopes = tf.while_loop(
        lambda tile, *_: tile < num_tiles,
        step,
        (
            0,
            0.0,
            tf.zeros_like(everyone if shared else table),
            array([None, width]),
            array([None]),
        ),
        parallel_iterations=1,
    )
    if shared:
        total = tf.math.unsorted_segment_sum(total, columns, size)
    slope = tf.gather(slopes.concat(), slots)
    total += tf.math.unsorted_segment_sum(slope[:, tf.newaxis] * queries, targets, size)
    query_gradient = tf.ensure_shape(tf.gather(parts.concat(), slots), queries.shape)
    return loss, query_gradient, tf.ensure_shape(total, table.shape)


def _tiles_of_queries(
    num_queries: tf.Tensor, num_columns: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts M queries into equal tiles: `[tiles, l]`, and each query's place in it."""
    most = tf.maximum(TILE_ELEMENTS // tf.maximum(num_columns, 1), _LEAST_ROWS)
    num_tiles = tf.maximum((num_queries + most - 1) // most, 1)
    length = tf.maximum((num_queries + num_tiles - 1) // num_tiles, 1)
    places = tf.minimum(tf.range(num_tiles * length), num_queries)
    return tf.reshape(places, [num_tiles, length]), tf.range(num_queries)


def _tiles_of_groups(
    groups: tf.Tensor, num_groups: tf.Tensor, num_columns: tf.Tensor, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Lays groups side by side: `[tiles, g, l]`, and each query's place in it."""
    num_queries = tf.size(groups)
    order = tf.argsort(groups, stable=True)
    ordered = tf.gather(groups, order)
    sizes = tf.math.bincount(groups, minlength=num_groups, maxlength=num_groups)
    length = tf.maximum(tf.reduce_max(sizes), 1)
    rank = tf.range(num_queries) - tf.gather(tf.cumsum(sizes, exclusive=True), ordered)
    per_group = num_columns * tf.maximum(length, width)
    together = tf.clip_by_value(
        TILE_ELEMENTS // tf.maximum(per_group, 1), 1, tf.maximum(num_groups, 1)
    )
    num_tiles = tf.maximum((num_groups + together - 1) // together, 1)
    slots = tf.scatter_nd(order[:, tf.newaxis], ordered * length + rank, [num_queries])
    places = tf.tensor_scatter_nd_update(
        tf.fill([num_tiles * together * length], num_queries),
        slots[:, tf.newaxis],
        tf.range(num_queries),
    )
    return tf.reshape(places, [num_tiles, together, length]), slots
