"""EASE and item-KNN against loops and against what they minimize."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.evaluation import EASE, ItemKNN


@pytest.fixture
def split(split_of):
    rng = np.random.default_rng(7)
    letters, weights = list("abcdefghijkl"), np.arange(13, 1, -1.0)
    draws = [
        "".join(rng.choice(letters, rng.integers(1, 13), p=weights / weights.sum()))
        for _ in range(40)
    ]
    # "z" is held out everywhere: no training event.
    return split_of(*draws, "abz", "cdz")


def training_sets(split):
    """The item indices that each user has in training, one set a user."""
    sequences = split.sequences
    return [
        set(sequences.items[sequences.offsets[u] : split.train_stop[u]].tolist())
        for u in range(sequences.num_users)
    ]


def histories():
    return np.array([[0, 0, 3, 1], [5, 2, 5, 0], [0, 0, 0, 0], [13, 4, 7, 1]], np.int32)


def knn_oracle(split, neighbors, shrinkage):
    """similarity[i, j] = how strongly item i votes for item j, in loops."""
    sets, N = training_sets(split), len(split.sequences.vocabulary)
    counts = {i: sum(i in s for s in sets) for i in range(1, N + 1)}
    votes = np.zeros([N + 1, N + 1])
    for i in range(1, N + 1):
        similar = []
        for j in range(1, N + 1):
            both = sum(i in s and j in s for s in sets)
            if i != j and both:
                cosine = both / (math.sqrt(counts[i] * counts[j]) + shrinkage)
                similar.append((-cosine, j))
        for negative, j in sorted(similar)[:neighbors]:
            votes[i, j] = -negative
    return votes


def summed(votes, rows):
    """Adds up the votes of the distinct items of each history."""
    return np.array(
        [sum((votes[i] for i in set(row.tolist()) - {0}), votes[0]) for row in rows]
    )[:, 1:]


@pytest.mark.parametrize(("neighbors", "shrinkage"), [(3, 0.0), (5, 10.0), (100, 2.5)])
def test_item_knn_equals_loops(split, neighbors, shrinkage):
    score = ItemKNN(split, neighbors=neighbors, shrinkage=shrinkage)
    votes = knn_oracle(split, neighbors, shrinkage)
    scores = score(histories())
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, summed(votes, histories()), rtol=1e-6)
    every = np.arange(1, 14, dtype=np.int32)[:, None]
    np.testing.assert_allclose(score(every), votes[1:, 1:], rtol=1e-6)


def ease_oracle(split, l2):
    """Each item's ridge regression on all the others, solved by itself."""
    sets, N = training_sets(split), len(split.sequences.vocabulary)
    X = np.array([[float(i in s) for i in range(1, N + 1)] for s in sets])
    weights = np.zeros([N + 1, N + 1])
    for j in range(N):
        others = [i for i in range(N) if i != j]
        A = X[:, others]
        solved = np.linalg.solve(A.T @ A + l2 * np.eye(N - 1), A.T @ X[:, j])
        for i, weight in zip(others, solved, strict=True):
            weights[i + 1, j + 1] = weight
    return weights


@pytest.mark.parametrize("l2", [0.5, 20.0, 500.0])
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(split, l2):
    score = EASE(split, l2=l2)
    weights = ease_oracle(split, l2)
    scores = score(histories())
    assert scores.dtype == np.float32
    np.testing.assert_allclose(
        scores, summed(weights, histories()), rtol=1e-4, atol=1e-6
    )
    assert np.abs(weights).max() > 0.01


@pytest.mark.parametrize("baseline", [EASE, ItemKNN])
def test_order_and_repetition_do_not_matter(split, baseline):
    score = baseline(split)
    scores = score(np.array([[1, 2, 3, 0], [0, 3, 1, 2], [2, 3, 2, 1]], np.int32))
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("baseline", [EASE, ItemKNN])
def test_an_empty_history_scores_zero(split, baseline):
    scores = baseline(split)(np.zeros([2, 0], np.int32))
    np.testing.assert_array_equal(scores, np.zeros([2, 13], np.float32))


def test_they_find_what_goes_together(split_of):
    # Two kinds of users, who never share an item; everything else is chance.
    rng = np.random.default_rng(0)
    kinds = "abcdefg", "hijklmn"
    split = split_of(*("".join(rng.permutation(list(kinds[u % 2]))) for u in range(60)))
    vocabulary = split.sequences.vocabulary
    history = vocabulary.encode(["a", "b"])[None]
    for score in (EASE(split, l2=10.0), ItemKNN(split)):
        scores = score(history)[0]
        mine = scores[vocabulary.encode("cdefg") - 1]
        assert mine.min() > scores[vocabulary.encode("hijklmn") - 1].max() + 0.01


def test_ease_refuses_large_catalogues(split):
    message = r"at most `max_items` items\. Received: 13 items, max_items=12.*ItemKNN"
    with pytest.raises(InputError, match=message):
        EASE(split, max_items=12)
    assert EASE(split, max_items=13).weights.shape == (13, 13)


def test_arguments_are_checked(split):
    with pytest.raises(ValueError, match="`l2` must be a positive finite number"):
        EASE(split, l2=0.0)
    with pytest.raises(ValueError, match="`max_items` must be a positive integer"):
        EASE(split, max_items=0)
    with pytest.raises(ValueError, match="`neighbors` must be a positive integer"):
        ItemKNN(split, neighbors=0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`shrinkage` must be a finite number of"):
            ItemKNN(split, shrinkage=wrong)
