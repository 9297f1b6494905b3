"""Recommended items against sorting, coverage and novelty against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_selfattn.evaluation import recommended_items
from tfrs_selfattn.evaluation.recommended import RecommendedLists


def best_oracle(scores, k, seen):
    """Item by item, best first, padded with 0 to min(k, N)."""
    eligible = [
        (-float(score), item)
        for item, score in enumerate(scores, start=1)
        if item not in seen and not math.isnan(score) and score != -math.inf
    ]
    best = [item for _, item in sorted(eligible)[:k]]
    return best + [0] * (min(k, len(scores)) - len(best))


@st.composite
def score_matrices(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    B, N, S = draw(st.integers(1, 4)), draw(st.integers(1, 11)), draw(st.integers(0, 7))
    values = np.array([math.nan, -math.inf, math.inf, 0.0, 1.0, 2.0, 3.0], np.float32)
    scores = rng.choice(values[draw(st.integers(0, 3)) :], (B, N))
    return scores, draw(st.integers(1, 13)), rng.integers(-1, N + 2, (B, S))


@given(score_matrices())
def test_the_best_unseen_items_first(case):
    scores, k, seen = case
    expected = [
        best_oracle(*row) for row in zip(scores, [k] * len(scores), seen, strict=True)
    ]
    np.testing.assert_array_equal(recommended_items(scores, k, seen), expected)
    expected = [best_oracle(row, k, []) for row in scores]
    np.testing.assert_array_equal(recommended_items(scores, k), expected)


def test_lists_add_up_over_batches():
    lists = RecommendedLists(5, (1, 3), np.array([4, 2, 1, 0, 1]))
    lists.update(np.array([[2, 1, 4]]))
    lists.update(np.array([[2, 3, 0], [1, 0, 0]]))
    bits = {1: -math.log2(4 / 8), 2: -math.log2(2 / 8)}
    bits |= dict.fromkeys((3, 4), -math.log2(1 / 8))  # 4 counts as if it had one event
    assert lists.metrics() == {
        "coverage@1": 2 / 5,
        "novelty@1": pytest.approx((2 * bits[2] + bits[1]) / 3),
        "coverage@3": 4 / 5,
        "novelty@3": pytest.approx((2 * bits[2] + 2 * bits[1] + bits[4] + bits[3]) / 6),
    }


def test_lists_of_nobody_have_no_novelty():
    lists = RecommendedLists(2, (1,), np.array([1, 1]))
    lists.update(np.zeros([3, 1], np.int32))
    assert lists.metrics() == {"coverage@1": 0, "novelty@1": 0}


def test_counts_with_the_padding_item_are_an_error():
    with pytest.raises(ValueError, match=r"`item_counts` .*5 items.*\(6,\).*\[1:\]"):
        RecommendedLists(5, (1,), np.zeros(6))
