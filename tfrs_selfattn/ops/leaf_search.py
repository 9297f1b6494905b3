"""Approximate top-k search: the best k candidates within the most promising leaves.

A catalogue lies in leaves, blocks of `[capacity, D]` beside each other. A search scores
the leaves' centers, then all vectors of the best leaves, and if these are quantized,
the best of them again. Pure functions over rows, as `exact_search` is; how the leaves
are made is the business of `tfrs_selfattn.index`.

Shape alphabet: B users, D width, k answers, E exclusions, C allowed candidates, R rows,
L leaves, Q leaf capacity, P leaves searched, A leaves that a row lies in (1 or 2), M
scores at hand for a query.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_selfattn.ops.top_k import (
    LOWEST_SCORE,
    PADDING_ROW,
    best_of,
    block_top_k,
    distinct_rows,
)

_INELIGIBLE = float("-inf")
# Elements; 64 MB in float32. Of a larger catalogue so many are cast at a time where all
# of it has to be looked at.
_CAST_AT_ONCE = 16_000_000


class Leaves(NamedTuple):
    """A catalogue of rows 0..R-1 in leaves.

    Attributes:
        centers: float32 `[L, D]`. A query's product with them ranks the leaves.
        vectors: float32, bfloat16 or int8 `[L, Q, D]`.
        members: int32 `[L, Q]`, the row in each slot, -1 where there is none.
        slots: int32 `[R, A]`, the slot (leaf · Q + place) of each row, -1 for none.
        scales: float32 `[D]` or None. What int8 vectors are to be multiplied by.
        originals: float32 or bfloat16 `[R, D]`, or None: what to score rows again by.
        compiled: bool. Whether XLA compiles the scan of the leaves.
    """

    centers: tf.Tensor
    vectors: tf.Tensor
    members: tf.Tensor
    slots: tf.Tensor
    scales: tf.Tensor | None = None
    originals: tf.Tensor | None = None
    compiled: bool = False


def leaf_search(
    queries: tf.Tensor,
    leaves: Leaves,
    k: int,
    *,
    num_leaves_to_search: int,
    num_reordering_candidates: int | None = None,
    excluded: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The k best candidates that are found in the best leaves, for each query.

    A query that finds fewer than k there (because of exclusions, or because k is
    large) is searched once more in all leaves, so an answer is short only when no
    eligible candidate is left. To search all leaves from the start gives the answer of
    `exact_search` over the same vectors.

    Args:
        queries: float32 `[B, D]`. A query with a NaN or an infinity gets no answer.
        leaves: `Leaves`.
        k: int. Number of columns of the answer.
        num_leaves_to_search: int, P.
        num_reordering_candidates: int or None. How many of the best rows are scored
            again by their originals.
        excluded: int32 `[B, E]` or None. Rows to leave out; -1 stands for nothing.

    Returns:
        scores float32 `[B, k]` in descending order, rows int32 `[B, k]`; -1 and
        `LOWEST_SCORE` where no eligible candidate is left.
    """
    if num_leaves_to_search >= leaves.members.shape[0]:
        return full_search(queries, leaves, k, excluded=excluded)
    return _search_some(
        queries, leaves, k, num_leaves_to_search, num_reordering_candidates, excluded
    )


def _search_some(
    queries: tf.Tensor,
    leaves: Leaves,
    k: int,
    num_leaves_to_search: int,
    num_reordering_candidates: int | None,
    excluded: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1, keepdims=True)
    queries = tf.where(usable, queries, 0.0)  # [B, D]
    likely = tf.matmul(queries, leaves.centers, transpose_b=True)  # [B, L]
    _, probes = block_top_k(likely, num_leaves_to_search)  # [B, P]
    scores = _scan(queries, probes, leaves)  # [B, M], M = P * Q
    members = tf.gather(leaves.members, probes)  # [B, P, Q]
    members = tf.reshape(members, tf.shape(scores))
    members.set_shape(scores.shape)
    if excluded is not None:
        scores = _without(scores, probes, excluded, leaves)
    scores = tf.where(members >= 0, scores, _INELIGIBLE)
    scores, rows = _reduced(
        queries, scores, members, k, num_reordering_candidates, leaves
    )
    short = tf.logical_and(usable[:, 0], rows[:, k - 1] < 0)  # [B]
    scores, rows = tf.cond(
        tf.reduce_any(short),
        lambda: _deeper(queries, leaves, k, excluded, short, scores, rows),
        lambda: (scores, rows),
    )
    return tf.where(usable, scores, LOWEST_SCORE), tf.where(usable, rows, PADDING_ROW)


def _scan(queries: tf.Tensor, probes: tf.Tensor, leaves: Leaves) -> tf.Tensor:
    """The products float32 `[B, P * Q]` of queries with the vectors of their leaves."""
    if leaves.scales is not None:
        queries = queries * leaves.scales
    if leaves.compiled:
        return _compiled_scan(queries, probes, leaves.vectors)
    num_probes, width = probes.shape[1], queries.shape[1]
    num_scores = num_probes * leaves.members.shape[1]

    def one(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        query, best = inputs
        # In float32 whatever the leaves hold, as XLA does it: a product in bfloat16
        # would round the query and each score to 8 bits, too.
        vectors = tf.cast(tf.gather(leaves.vectors, best), tf.float32)  # [P, Q, D]
        vectors = tf.reshape(vectors, [num_scores, width])
        return tf.linalg.matvec(vectors, query)  # [M]

    # A query at a time: what it gathers is multiplied while still in the cache.
    return tf.map_fn(
        one, (queries, probes), fn_output_signature=tf.TensorSpec([num_scores])
    )


def _compiled_scan(
    queries: tf.Tensor, probes: tf.Tensor, vectors: tf.Tensor
) -> tf.Tensor:
    """The scan by XLA."""
    batch_size = tf.shape(queries)[0]
    # XLA compiles for each batch size. Up to the next power of 2, there are few.
    bits = tf.math.ceil(tf.math.log(tf.cast(batch_size, tf.float32)) / tf.math.log(2.0))
    missing = tf.cast(tf.round(2.0**bits), tf.int32) - batch_size
    missing = tf.maximum(missing, 0)
    queries = tf.pad(queries, [[0, missing], [0, 0]])
    probes = tf.pad(probes, [[0, missing], [0, 0]])
    return _xla_scan(queries, probes, vectors)[:batch_size]


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _xla_scan(queries: tf.Tensor, probes: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    num_scores, width = probes.shape[1] * vectors.shape[1], vectors.shape[2]

    def one(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        query, best = inputs
        # Gather and cast become one loop; the product is a library call. Four times as
        # fast in batches as a sum over the products, which XLA does not vectorize.
        block = tf.cast(tf.gather(vectors, best), tf.float32)  # [P, Q, D]
        return tf.linalg.matvec(tf.reshape(block, [num_scores, width]), query)

    return tf.map_fn(
        one, (queries, probes), fn_output_signature=tf.TensorSpec([num_scores])
    )


def _without(
    scores: tf.Tensor, probes: tf.Tensor, excluded: tf.Tensor, leaves: Leaves
) -> tf.Tensor:
    """Makes the excluded rows' scores `[B, M]` ineligible where they were scanned."""
    num_rows, ways = leaves.slots.shape
    capacity = leaves.members.shape[1]
    batch_size = tf.shape(scores)[0]
    known = tf.logical_and(excluded >= 0, excluded < num_rows)  # [B, E]
    slots = tf.gather(leaves.slots, tf.where(known, excluded, 0))  # [B, E, A]
    slots = tf.where(known[..., tf.newaxis], slots, -1)
    slots = tf.reshape(slots, [batch_size, tf.shape(excluded)[1] * ways])
    leaf = tf.where(slots >= 0, slots // capacity, -1)
    same = tf.equal(leaf[..., tf.newaxis], probes[:, tf.newaxis, :])  # [B, E * A, P]
    scanned = tf.reduce_any(same, axis=-1)
    place = tf.argmax(tf.cast(same, tf.int8), axis=-1, output_type=tf.int32)
    place = tf.where(scanned, place * capacity + slots % capacity, 0)
    user = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(place))
    # A minimum, so that what was not scanned may write +inf into place 0.
    return tf.tensor_scatter_nd_min(
        scores,
        tf.stack([user, place], axis=-1),
        tf.where(scanned, _INELIGIBLE, float("inf")),
    )


def _reduced(
    queries: tf.Tensor,
    scores: tf.Tensor,
    members: tf.Tensor,
    k: int,
    num_reordering_candidates: int | None,
    leaves: Leaves,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best k of `[B, M]` scores and the rows they belong to."""
    ways = leaves.slots.shape[1]
    kept = k * ways
    again = leaves.originals is not None and num_reordering_candidates is not None
    if again:
        kept = max(kept, num_reordering_candidates * ways)
    kept = min(kept, scores.shape[1])
    scores, position = block_top_k(scores, kept)  # [B, kept]
    rows = tf.gather(members, position, batch_dims=1)
    if again:
        scores = _again(queries, scores, rows, leaves.originals)
    if ways > 1:
        scores, rows = distinct_rows(scores, rows)
    if kept < k:
        fill = [[0, 0], [0, k - kept]]
        scores = tf.pad(scores, fill, constant_values=_INELIGIBLE)
        rows = tf.pad(rows, fill, constant_values=PADDING_ROW)
    if again or ways > 1:
        scores, position = tf.math.top_k(scores, k)
        rows = tf.gather(rows, position, batch_dims=1)
    return _padded(scores, rows)


def _padded(scores: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    found = scores > _INELIGIBLE
    scores = tf.where(found, tf.minimum(scores, tf.float32.max), LOWEST_SCORE)
    return scores, tf.where(found, rows, PADDING_ROW)


def _again(
    queries: tf.Tensor, scores: tf.Tensor, rows: tf.Tensor, originals: tf.Tensor
) -> tf.Tensor:
    """Scores `[B, M]` of rows by their originals; ineligible ones stay so."""
    vectors = tf.gather(originals, tf.maximum(rows, 0))  # [B, M, D]
    vectors = tf.cast(vectors, tf.float32)
    exact = tf.linalg.matvec(vectors, queries)
    return tf.where(scores > _INELIGIBLE, exact, _INELIGIBLE)


def _deeper(
    queries: tf.Tensor,
    leaves: Leaves,
    k: int,
    excluded: tf.Tensor | None,
    short: tf.Tensor,
    scores: tf.Tensor,
    rows: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The answers `[B, k]`, with those of `short` queries from all leaves."""
    which = tf.where(short)  # [S, 1]
    some = which[:, 0]
    more_scores, more_rows = full_search(
        tf.gather(queries, some),
        leaves,
        k,
        excluded=None if excluded is None else tf.gather(excluded, some),
    )
    return (
        tf.tensor_scatter_nd_update(scores, which, more_scores),
        tf.tensor_scatter_nd_update(rows, which, more_rows),
    )


def full_search(
    queries: tf.Tensor,
    leaves: Leaves,
    k: int,
    excluded: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """What `exact_search` answers, over all leaves, by the best vectors at hand."""
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1, keepdims=True)
    queries = tf.where(usable, queries, 0.0)
    if leaves.originals is not None:
        vectors = tf.cast(leaves.originals, tf.float32)
        scores = tf.matmul(queries, vectors, transpose_b=True)  # [B, R]
    else:
        scores = tf.gather(_all_scores(queries, leaves), _first(leaves), axis=1)
    scores = tf.where(leaves.slots[:, 0] >= 0, scores, _INELIGIBLE)
    return best_of(scores, usable, k, excluded=excluded)


def _first(leaves: Leaves) -> tf.Tensor:
    return tf.maximum(leaves.slots[:, 0], 0)  # [R]


def _all_scores(queries: tf.Tensor, leaves: Leaves) -> tf.Tensor:
    """The products float32 `[B, L * Q]` with what is in each slot."""
    if leaves.scales is not None:
        queries = queries * leaves.scales
    vectors, width = leaves.vectors, queries.shape[-1]
    num_leaves, capacity = leaves.members.shape
    step = max(1, _CAST_AT_ONCE // (capacity * width))

    def products(start: int | tf.Tensor, stop: int | tf.Tensor) -> tf.Tensor:
        block = tf.reshape(tf.cast(vectors[start:stop], tf.float32), [-1, width])
        return tf.matmul(queries, block, transpose_b=True)

    if vectors.dtype == tf.float32 or step >= num_leaves:
        return products(0, num_leaves)

    def some(turn: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, Any]:
        found = products(turn * step, (turn + 1) * step)
        return turn + 1, parts.write(turn, tf.transpose(found))

    turns = -(-num_leaves // step)
    shape = tf.TensorShape([None, None])  # the last part may be shorter
    parts = tf.TensorArray(tf.float32, turns, infer_shape=False, element_shape=shape)
    _, parts = tf.while_loop(
        lambda turn, _: turn < turns, some, (0, parts), parallel_iterations=1
    )
    return tf.transpose(parts.concat())


def among_search(
    queries: tf.Tensor,
    leaves: Leaves,
    k: int,
    allowed: tf.Tensor,
    excluded: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best k of the rows `allowed` `[B, C]` for each query, all looked at.

    Args:
        queries: float32 `[B, D]`. A query with a NaN or an infinity gets no answer.
        leaves: `Leaves`.
        k: int. Number of columns of the answer.
        allowed: int32 `[B, C]`. Unknown rows and duplicates are harmless.
        excluded: int32 `[B, E]` or None. Rows that are not allowed after all.

    Returns:
        As `leaf_search` does; among equal scores the lower row comes first.
    """
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1, keepdims=True)
    queries = tf.where(usable, queries, 0.0)
    known = tf.logical_and(allowed >= 0, allowed < leaves.slots.shape[0])
    allowed = tf.where(known, allowed, PADDING_ROW)
    if excluded is not None:
        same = tf.equal(allowed[..., tf.newaxis], excluded[:, tf.newaxis, :])
        allowed = tf.where(tf.reduce_any(same, axis=-1), PADDING_ROW, allowed)
    used = tf.gather(leaves.slots[:, 0], tf.maximum(allowed, 0)) >= 0
    allowed = tf.where(used, allowed, PADDING_ROW)

    def one(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        query, rows = inputs
        vectors = row_vectors(leaves, rows)  # [C, D]
        return tf.matmul(query[tf.newaxis], vectors, transpose_b=True)[0]

    # A query at a time: all vectors of a batch of long lists may be a lot.
    scores = tf.map_fn(
        one, (queries, allowed), fn_output_signature=tf.TensorSpec([None])
    )
    scores, rows = distinct_rows(scores, allowed)
    missing = tf.maximum(k - tf.shape(scores)[1], 0)
    fill = [[0, 0], [0, missing]]
    scores = tf.pad(scores, fill, constant_values=_INELIGIBLE)
    rows = tf.pad(rows, fill, constant_values=PADDING_ROW)
    scores, position = tf.math.top_k(scores, k)
    scores, rows = _padded(scores, tf.gather(rows, position, batch_dims=1))
    return tf.where(usable, scores, LOWEST_SCORE), tf.where(usable, rows, PADDING_ROW)


def row_vectors(leaves: Leaves, rows: tf.Tensor) -> tf.Tensor:
    """The vectors float32 `[..., D]` of rows, the best ones at hand; zeros for -1."""
    real = tf.logical_and(rows >= 0, rows < leaves.slots.shape[0])
    rows = tf.where(real, rows, 0)
    if leaves.originals is not None:
        vectors = tf.cast(tf.gather(leaves.originals, rows), tf.float32)
        real = tf.logical_and(real, tf.gather(leaves.slots[:, 0], rows) >= 0)
    else:
        vectors = _row_vectors(leaves, rows)
    return tf.where(real[..., tf.newaxis], vectors, 0.0)


def _row_vectors(leaves: Leaves, rows: tf.Tensor) -> tf.Tensor:
    """Vectors float32 `[..., D]` out of the leaves; zeros for rows without a slot."""
    num_leaves, capacity = leaves.members.shape
    slots = tf.gather(leaves.slots[:, 0], rows)
    place = tf.maximum(slots, 0)
    width = leaves.vectors.shape[2]
    flat = tf.reshape(leaves.vectors, [num_leaves * capacity, width])
    vectors = tf.gather(flat, place)
    vectors = tf.cast(vectors, tf.float32)
    if leaves.scales is not None:
        vectors *= leaves.scales
    return tf.where(slots[..., tf.newaxis] >= 0, vectors, 0.0)
