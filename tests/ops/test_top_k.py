"""`tfrs_selfattn.ops.top_k` against `tf.math.top_k` and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn.ops import top_k as module
from tfrs_selfattn.ops.top_k import LOWEST_SCORE, block_top_k, exact_search

# Few distinct values, so that nearly every example has ties, also across blocks; both
# zeros and an infinity, because the order must not depend on which zero it is.
TIED = st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 1.0, 1.5])


def assert_same_bits(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


@st.composite
def scores_and_k(draw):
    block = draw(st.integers(1, 7))
    width = draw(st.integers(1, 60))
    batch_size = draw(st.integers(1, 3))
    k = draw(st.integers(1, -(-width // block)))
    values = draw(st.lists(TIED, min_size=batch_size * width, max_size=None))
    values = np.array(values[: batch_size * width], np.float32)
    return values.reshape(batch_size, width), k, block


@settings(max_examples=200)
@given(scores_and_k())
def test_two_levels_equal_one_level_bit_for_bit(case):
    scores, k, block = case
    actual = module.two_level_top_k(tf.constant(scores), k, block)
    assert_same_bits(actual, tf.math.top_k(scores, k))


@pytest.mark.parametrize("width", [19_999, 20_000, 20_011, 30_000])
@pytest.mark.parametrize("k", [1, 10, 104, 105, 700])
@pytest.mark.parametrize("distinct", [3, 10_000_000])
def test_block_top_k_equals_top_k_on_both_sides_of_its_thresholds(width, k, distinct):
    rng = np.random.default_rng(width + k)
    scores = rng.integers(0, distinct, (3, width)).astype(np.float32)
    assert_same_bits(block_top_k(tf.constant(scores), k), tf.math.top_k(scores, k))


def test_block_top_k_uses_two_levels_where_they_are_faster_only():
    def op_count(width, k):
        function = tf.function(block_top_k).get_concrete_function(
            tf.TensorSpec([None, width], tf.float32), k
        )
        return sum(op.type == "TopKV2" for op in function.graph.get_operations())

    assert op_count(width=1_000_000, k=100) > 1
    assert op_count(width=20_000, k=100) > 1
    assert op_count(width=19_999, k=10) == 1
    assert op_count(width=20_000, k=200) == 1
    assert op_count(width=None, k=10) == 1


def search_oracle(queries, candidates, k, excluded=None, allowed=None):
    """One query, one candidate, one exclusion at a time."""
    all_scores, all_rows = [], []
    for b, query in enumerate(queries):
        eligible = []
        for row, candidate in enumerate(candidates):
            if excluded is not None and row in list(excluded[b]):
                continue
            if allowed is not None and row not in list(allowed[b]):
                continue
            score = sum(q * c for q, c in zip(query, candidate, strict=True))
            eligible.append((score, row))
        best = sorted(eligible, key=lambda pair: (-pair[0], pair[1]))[:k]
        best += [(LOWEST_SCORE, -1)] * (k - len(best))
        all_scores.append([score for score, _ in best])
        all_rows.append([row for _, row in best])
    return np.array(all_scores), np.array(all_rows)


@st.composite
def searches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    B, N, D = draw(st.integers(1, 3)), draw(st.integers(1, 11)), draw(st.integers(1, 3))
    k = draw(st.integers(1, 13))

    # Small integers: ties abound, and every order of summation gives the same float.
    def matrix(rows, columns, low, high):
        return rng.integers(low, high, (rows, columns))

    lists = []
    for _ in range(2):
        width = draw(st.one_of(st.none(), st.integers(0, 9)))
        lists.append(None if width is None else matrix(B, width, -2, N + 2))
    queries, candidates = matrix(B, D, -2, 3), matrix(N, D, -2, 3)
    return queries.astype(np.float32), candidates.astype(np.float32), k, *lists


@settings(max_examples=200)
@given(searches())
def test_exact_search_equals_loops(case):
    scores, rows = exact_search(*case)
    expected_scores, expected_rows = search_oracle(*case)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(scores, expected_scores.astype(np.float32))
    assert scores.dtype == tf.float32 and rows.dtype == tf.int32


def test_exact_search_over_many_candidates_equals_a_sort():
    rng = np.random.default_rng(5)
    queries = rng.normal(size=(3, 7)).astype(np.float32)
    candidates = rng.normal(size=(20_011, 7)).astype(np.float32)
    excluded = rng.integers(-1, 20_011, (3, 500)).astype(np.int32)
    _, rows = exact_search(queries, candidates, 50, excluded=excluded)
    scores = tf.matmul(queries, candidates, transpose_b=True).numpy()
    for b in range(3):
        scores[b, excluded[b][excluded[b] >= 0]] = -math.inf
        expected = np.argsort(-scores[b], kind="stable")[:50]
        np.testing.assert_array_equal(rows[b], expected)


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_exact_search_in_a_graph_with_unknown_sizes(static):
    rng = np.random.default_rng(3)
    queries = rng.integers(-3, 3, (2, 3)).astype(np.float32)
    candidates = rng.integers(-3, 3, (7, 3)).astype(np.float32)
    excluded = np.array([[1, -1, 1, 9], [0, 2, 3, 4]], np.int32)
    function = tf.function(
        lambda q, c, e, a: exact_search(q, c, 11, excluded=e, allowed=a),
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32),
            tf.TensorSpec([7 if static else None, 3], tf.float32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        ],
    )
    allowed = np.array([[1, 2, 3], [0, 0, 6]], np.int32)
    scores, rows = function(queries, candidates, excluded, allowed)
    expected = search_oracle(queries, candidates, 11, excluded, allowed)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(scores, expected[0].astype(np.float32))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_query_gets_padding_and_its_neighbors_their_answers(bad):
    candidates = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 2, 3], [1, bad, 3], [3, 2, 1]], np.float32)
    scores, rows = exact_search(queries, candidates, 2)
    np.testing.assert_array_equal(rows, [[2, 1], [-1, -1], [0, 1]])
    np.testing.assert_array_equal(scores[1], [LOWEST_SCORE, LOWEST_SCORE])


def test_top_k_never_sorts_nan(monkeypatch):
    # Comparing with NaN is no order, and what a sort does without one is undefined.
    sorted_scores = []

    def spy(scores, k):
        sorted_scores.append(scores.numpy())
        return tf.math.top_k(scores, k)

    monkeypatch.setattr(module, "block_top_k", spy)
    queries = np.array([[math.nan, 1], [math.inf, 1], [1, 2]], np.float32)
    exact_search(queries, np.array([[0, 1], [2, 3]], np.float32), 1)
    assert not np.isnan(sorted_scores).any()


def test_scores_stay_finite_when_products_overflow():
    candidates = np.array([[1e38], [-1e38]], np.float32)
    scores, rows = exact_search(np.array([[1e5]], np.float32), candidates, 3)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(rows, [[0, -1, -1]])


def test_half_precision_embeddings_give_float32_scores():
    candidates = tf.constant([[1.0], [2.0]], tf.float16)
    scores, rows = exact_search(tf.constant([[3.0]]), candidates, 1)
    assert scores.dtype == tf.float32
    np.testing.assert_array_equal(scores, [[6.0]])
    np.testing.assert_array_equal(rows, [[1]])


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_k_must_be_positive(k):
    with pytest.raises(ValueError, match=r"`k` must be a positive integer. Received"):
        exact_search(np.ones([1, 2], np.float32), np.ones([3, 2], np.float32), k)
