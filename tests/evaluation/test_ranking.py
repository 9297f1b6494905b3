"""Ranks against loops, metrics against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn.evaluation import ranking_metrics, target_ranks
from tfrs_selfattn.evaluation.ranking import UNRANKED


def rank_oracle(scores, target, seen):
    """Item index by item index, in plain Python."""
    if not 1 <= target <= len(scores):
        return UNRANKED
    rank = 1
    for item in range(1, len(scores) + 1):
        if item == target or item in seen:
            continue
        mine, other = float(scores[target - 1]), float(scores[item - 1])
        if math.isnan(mine) or math.isnan(other) or other >= mine:
            rank += 1
    return rank


@st.composite
def rankings(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    B, N, S = draw(st.integers(1, 4)), draw(st.integers(1, 11)), draw(st.integers(0, 7))
    values = np.array([math.nan, -math.inf, math.inf, 0.0, 1.0, 2.0, 3.0], np.float32)
    scores = rng.choice(values[draw(st.integers(0, 3)) :], (B, N))
    return scores, rng.integers(0, N + 2, B), rng.integers(-1, N + 2, (B, S))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(rankings())
def test_ranks_equal_loops(case):
    scores, targets, seen = case
    expected = [rank_oracle(*row) for row in zip(scores, targets, seen, strict=True)]
    np.testing.assert_array_equal(target_ranks(scores, targets, seen), expected)
    expected = [rank_oracle(*row, []) for row in zip(scores, targets, strict=True)]
    np.testing.assert_array_equal(target_ranks(scores, targets), expected)


def test_a_model_that_scores_all_alike_ranks_last():
    ranks = target_ranks(np.zeros([2, 5], np.float32), np.array([1, 5]))
    np.testing.assert_array_equal(ranks, [5, 5])


def test_a_seen_target_stays_eligible():
    scores = np.array([[3.0, 2.0, 1.0]], np.float32)
    ranks = target_ranks(scores, np.array([2]), np.array([[0, 1, 2, 2]]))
    np.testing.assert_array_equal(ranks, [1])


def test_ranks_in_a_graph_with_unknown_sizes():
    function = tf.function(
        target_ranks,
        input_signature=[
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None, None], tf.int32),
        ],
    )
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(3, 13)).astype(np.float32)
    targets, seen = rng.integers(1, 14, 3), rng.integers(0, 14, (3, 5))
    expected = [rank_oracle(*row) for row in zip(scores, targets, seen, strict=True)]
    np.testing.assert_array_equal(function(scores, targets, seen), expected)
    np.testing.assert_array_equal(
        function(scores, targets, np.zeros([3, 0], np.int32)),
        [rank_oracle(*row, []) for row in zip(scores, targets, strict=True)],
    )


def test_metrics_are_their_formulas():
    metrics = ranking_metrics(np.array([1, 3, 10, 11]), ks=(1, 10))
    discounts = 1 / math.log2(2) + 1 / math.log2(4) + 1 / math.log2(11)
    assert metrics == {
        "hr@1": pytest.approx(1 / 4),
        "ndcg@1": pytest.approx(1 / 4),
        "hr@10": pytest.approx(3 / 4),
        "map@1": pytest.approx(1 / 4),
        "ndcg@10": pytest.approx(discounts / 4),
        "map@10": pytest.approx((1 + 1 / 3 + 1 / 10) / 4),
        "mrr": pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11) / 4),
    }


def test_an_unknown_target_misses_even_when_k_exceeds_the_catalogue():
    ranks = target_ranks(np.ones([1, 3], np.float32), np.array([0])).numpy()
    metrics = ranking_metrics(ranks, ks=(10,))
    assert metrics["hr@10"] == metrics["ndcg@10"] == 0
    assert metrics["mrr"] < 1e-9


def test_metrics_of_nobody_are_an_error():
    with pytest.raises(ValueError, match=r"at least one target\. Received: none"):
        ranking_metrics(np.array([], np.int32))


def test_ks_must_be_positive():
    with pytest.raises(ValueError, match=r"`ks` must be a positive integer"):
        ranking_metrics(np.array([1]), ks=(0,))
