"""Exact top-k search: the best k candidates of each query, by dot product.

Pure functions over rows 0..N-1 of a candidate matrix. What the rows are called, and
how an identifier becomes a row, is the business of `tfrs_selfattn.index`.

Shape alphabet: B users, N candidates, D width, k answers, E exclusions, C allowed
candidates.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int

# Stands where no eligible candidate is left. Finite, because JSON has no infinity.
LOWEST_SCORE: float = float(tf.float32.min)
PADDING_ROW = -1

# Measured on 2 cores with batches of 1 and 32 (benchmarks of 3,000 to 1,000,000
# candidates, k 1 to 500): blocks of 64 are the best or within noise of it, and two
# levels win once there are 20,000 scores and three times as many blocks as answers.
_BLOCK = 64
_TWO_LEVEL_MIN_CANDIDATES = 20_000
_TWO_LEVEL_MIN_BLOCKS_PER_ANSWER = 3

# Below every finite score, so that an overflow is the only other way to reach it.
_INELIGIBLE = float("-inf")


def block_top_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The same as `tf.math.top_k`, faster over many scores.

    Takes the maximum of each block of neighboring scores, the k blocks with the
    highest maxima, and the k highest scores within these. That is exact: a score
    outside the k blocks is beaten by the maxima of all k. Among equal scores the lower
    index wins, as in `tf.math.top_k`. Where one level is faster (few scores, a large
    k, or a number of scores unknown until run time) it is one level.

    Args:
        scores: float `[B, N]` without NaN.
        k: int, at most N.

    Returns:
        values `[B, k]` in descending order, indices int32 `[B, k]`.
    """
    width = scores.shape[-1]
    if width is None or not _two_levels_win(width, k):
        values, indices = tf.math.top_k(scores, k)
        return values, indices
    return two_level_top_k(scores, k, _BLOCK)


def _two_levels_win(num_scores: int, k: int) -> bool:
    num_blocks = num_scores // _BLOCK
    return (
        num_scores >= _TWO_LEVEL_MIN_CANDIDATES
        and num_blocks >= _TWO_LEVEL_MIN_BLOCKS_PER_ANSWER * k
    )


def two_level_top_k(
    scores: tf.Tensor, k: int | tf.Tensor, block: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """`block_top_k` in two levels, whatever the sizes; k may be a tensor.

    Needs at least k blocks, of which the last may be partly filled.
    """
    batch_size, width = tf.shape(scores)[0], tf.shape(scores)[1]
    fill = -width % block
    scores = tf.pad(scores, [[0, 0], [0, fill]], constant_values=_INELIGIBLE)
    return blocks_top_k(tf.reshape(scores, [batch_size, -1, block]), k)


def blocks_top_k(blocks: tf.Tensor, k: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`two_level_top_k` of scores that are whole blocks already, `[B, n, block]`."""
    batch_size, _, block = tf.unstack(tf.shape(blocks))
    _, best = tf.math.top_k(tf.reduce_max(blocks, axis=-1), k)  # [B, k]
    # In ascending order, so that among equal scores the lower index still comes first.
    best = tf.sort(best, axis=-1)
    survivors = tf.gather(blocks, best, batch_dims=1)  # [B, k, block]
    survivors = tf.reshape(survivors, [batch_size, k * block])
    values, position = tf.math.top_k(survivors, k)  # [B, k]
    indices = tf.gather(best, position // block, batch_dims=1) * block
    return values, indices + position % block


def exact_search(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    k: int,
    excluded: tf.Tensor | None = None,
    allowed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The k candidates with the highest dot product, for each query.

    Every row of the answer stands for itself: whatever one query or one list of
    exclusions holds, the other rows keep their answers, and none raises an error.
    Exclusions never shorten an answer while eligible candidates remain.

    Args:
        queries: float `[B, D]`. A query with a NaN or an infinity gets no answer.
        candidates: float `[N, D]`, finite.
        k: int. Number of columns of the answer; may exceed N.
        excluded: int `[B, E]` or None. Rows of `candidates` to leave out of each
            answer. Numbers outside 0..N-1, such as -1, stand for nothing, and
            duplicates are harmless. E may be unknown when the graph is built.
        allowed: int `[B, C]` or None. If given, only these rows of `candidates`
            may be answered, with the same freedoms.

    Returns:
        scores float32 `[B, k]` in descending order, rows int32 `[B, k]`. Among equal
        scores the lower row comes first. Where no eligible candidate is left, the
        score is `LOWEST_SCORE` and the row -1.
    """
    k = check_positive_int("k", k)
    queries = tf.cast(queries, candidates.dtype)
    usable = tf.reduce_all(tf.math.is_finite(queries), axis=-1, keepdims=True)
    # A NaN would break the order that top-k sorts by, not only its own row.
    queries = tf.where(usable, queries, tf.zeros_like(queries))  # [B, D]
    scores = tf.matmul(queries, candidates, transpose_b=True)  # [B, N]
    return best_of(tf.cast(scores, tf.float32), usable, k, excluded, allowed)


def best_of(
    scores: tf.Tensor,
    usable: tf.Tensor,
    k: int,
    excluded: tf.Tensor | None = None,
    allowed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The second half of `exact_search`, from scores.

    Args:
        scores: float32 `[B, N]` without NaN; -inf where no candidate is eligible.
        usable: bool `[B, 1]`. False for a query that gets no answer.
        k: int. As in `exact_search`, and so are the others.
        excluded: int `[B, E]` or None.
        allowed: int `[B, C]` or None.

    Returns:
        scores float32 `[B, k]`, rows int32 `[B, k]`, as `exact_search` does.
    """
    scores = _at_least_columns(scores, k, _INELIGIBLE)
    if excluded is not None:
        scores = _without(scores, tf.cast(excluded, tf.int32))
    if allowed is None:
        values, rows = block_top_k(scores, k)  # [B, k]
    else:
        values, rows = _top_k_among(scores, tf.cast(allowed, tf.int32), k)
    answered = tf.logical_and(usable, values > _INELIGIBLE)
    values = tf.minimum(values, tf.float32.max)
    return (
        tf.where(answered, values, LOWEST_SCORE),
        tf.where(answered, rows, PADDING_ROW),
    )


def _at_least_columns(values: tf.Tensor, k: int, fill: float | int) -> tf.Tensor:
    """Widens `[B, N]` to k columns if N is less."""
    width = values.shape[-1]
    if width is not None and width >= k:
        return values
    missing = tf.maximum(k - tf.shape(values)[1], 0)
    return tf.pad(values, [[0, 0], [0, missing]], constant_values=fill)


def _without(scores: tf.Tensor, excluded: tf.Tensor) -> tf.Tensor:
    """Makes the excluded columns of `[B, N]` ineligible."""
    batch_size, width = tf.shape(scores)[0], tf.shape(scores)[1]
    real = tf.logical_and(excluded >= 0, excluded < width)  # [B, E]
    columns = tf.where(real, excluded, 0)
    row_of = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(excluded))
    # A minimum, not an assignment: what stands for nothing writes +inf into column 0,
    # which changes nothing, and an out-of-range index would fail the whole batch.
    return tf.tensor_scatter_nd_min(
        scores,
        tf.stack([row_of, columns], axis=-1),  # [B, E, 2]
        tf.where(real, _INELIGIBLE, float("inf")),
    )


def _top_k_among(
    scores: tf.Tensor, allowed: tf.Tensor, k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The top k of `[B, N]` within the columns `allowed` `[B, C]`."""
    width = tf.shape(scores)[1]
    # Sorted, so that duplicates are neighbors and equal scores keep the row order.
    allowed = tf.sort(_at_least_columns(allowed, k, PADDING_ROW), axis=-1)
    repeated = tf.concat(
        [tf.zeros_like(allowed[:, :1], tf.bool), allowed[:, 1:] == allowed[:, :-1]], 1
    )
    real = tf.logical_and(allowed >= 0, allowed < width)
    columns = tf.where(real, allowed, 0)
    values = tf.where(
        tf.logical_and(real, tf.logical_not(repeated)),
        tf.gather(scores, columns, batch_dims=1),
        _INELIGIBLE,
    )
    values, position = block_top_k(values, k)
    return values, tf.gather(columns, position, batch_dims=1)


def merge_interests(scores: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The answer to several queries of one user: each row counts its best score.

    The k best rows by that score are among the k best of some query, so that merging
    answers loses nothing.

    Args:
        scores: float32 `[B, K, k]`, the answers to K queries of each user.
        rows: int32 `[B, K, k]`, -1 where there is none.

    Returns:
        scores float32 `[B, k]` in descending order, rows int32 `[B, k]`; among equal
        scores the lower row comes first.
    """
    k = scores.shape[-1]
    width = tf.shape(scores)[1] * k
    scores, rows = tf.reshape(scores, [-1, width]), tf.reshape(rows, [-1, width])
    values, rows = distinct_rows(scores, rows)
    values, position = tf.math.top_k(values, k)
    found = values > _INELIGIBLE
    rows = tf.gather(rows, position, batch_dims=1)
    return tf.where(found, values, LOWEST_SCORE), tf.where(found, rows, PADDING_ROW)


def distinct_rows(scores: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorts an answer by row and makes all but the best of equal rows ineligible.

    Args:
        scores: float32 `[B, M]`.
        rows: int32 `[B, M]`, -1 where there is none.

    Returns:
        scores `[B, M]`, -inf where a row has stood before or is -1; rows `[B, M]` in
        ascending order.
    """
    # Two stable sorts: by score, then by row, so that the first of equal rows is best.
    order = tf.argsort(scores, axis=-1, direction="DESCENDING", stable=True)
    scores, rows = (tf.gather(values, order, batch_dims=1) for values in (scores, rows))
    order = tf.argsort(rows, axis=-1, stable=True)
    scores, rows = (tf.gather(values, order, batch_dims=1) for values in (scores, rows))
    first = tf.not_equal(rows[:, 1:], rows[:, :-1])
    first = tf.pad(first, [[0, 0], [1, 0]], constant_values=True)
    real = tf.logical_and(first, rows >= 0)
    return tf.where(real, scores, _INELIGIBLE), rows
