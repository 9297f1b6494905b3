"""The baselines against counting by hand and in loops."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from tfrs_selfattn.evaluation import ItemToItem, MostPopular, evaluate_ranking

# Held out of the first three users: the last two events. "dc" trains whole.
HISTORIES = ("ababcd", "bacda", "acbbd", "dc")


@pytest.fixture
def split(split_of):
    return split_of(*HISTORIES)


def training_parts(histories):
    return [h[:-2] if len(h) >= 3 else h for h in histories]


def histories_of(split, *texts):
    vocabulary = split.sequences.vocabulary
    width = max(map(len, texts))
    padded = [vocabulary.encode([""] * (width - len(t)) + list(t)) for t in texts]
    return np.array(padded, np.int32)


def by_letter(split, scores):
    return dict(zip(split.sequences.vocabulary.ids, scores.tolist(), strict=True))


def test_most_popular_counts_training_events(split):
    scores = MostPopular(split)(histories_of(split, "a", "bd"))
    assert scores.shape == (2, 4) and scores.dtype == np.float32
    # Training parts: abab, bac, acb, dc.
    assert by_letter(split, scores[0]) == {"a": 4, "b": 4, "c": 3, "d": 1}
    np.testing.assert_array_equal(scores[0], scores[1])


def test_item_to_item_counts_transitions_of_training_parts_only(split):
    score = ItemToItem(split)
    after_a, after_c, after_d = score(histories_of(split, "a", "bc", "dd"))
    popularity = {"a": 4 / 5, "b": 4 / 5, "c": 3 / 5, "d": 1 / 5}

    def expected(**transitions):
        return pytest.approx({i: popularity[i] + transitions.get(i, 0) for i in "abcd"})

    # ab ba ab | ba ac | ac cb | dc. Not ca or cd, which cross into a held-out part or
    # into the next user.
    assert by_letter(split, after_a) == expected(b=2, c=2)
    assert by_letter(split, after_c) == expected(b=1)
    assert by_letter(split, after_d) == expected(c=1)
    assert after_a.dtype == np.float32


def test_item_to_item_without_a_last_item_is_popularity(split):
    score = ItemToItem(split)
    empty = score(np.zeros([2, 3], np.int32))
    order = np.argsort(-MostPopular(split)(empty)[0], kind="stable")
    np.testing.assert_array_equal(np.argsort(-empty[0], kind="stable"), order)
    assert empty.max() < 1
    np.testing.assert_array_equal(score(np.zeros([2, 0], np.int32)), empty)


def test_item_to_item_finds_the_last_item_on_either_side_of_padding(split):
    a, b = split.sequences.vocabulary.encode(["a", "b"])
    rows = np.array([[0, b, a], [b, a, 0], [a, 0, 0]], np.int32)
    scores = ItemToItem(split)(rows)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_item_to_item_equals_loops_on_random_logs(split_of):
    rng = np.random.default_rng(7)
    letters = list("abcdefghijk")
    histories = ["".join(rng.choice(letters, rng.integers(1, 13))) for _ in range(40)]
    split = split_of(*histories)
    parts = training_parts(histories)
    transitions = Counter(pair for part in parts for pair in pairwise(part))
    counts = Counter("".join(parts))
    largest = max(counts.values())
    ids = split.sequences.vocabulary.ids
    for last in ids:
        scores = ItemToItem(split)(histories_of(split, last))[0]
        for item, score in zip(ids, scores, strict=True):
            fraction = counts[item] / (largest + 1)
            assert score == pytest.approx(transitions[last, item] + fraction, rel=1e-6)


def test_they_find_what_is_there_to_find(split_of):
    # A circle a → b → … → j → a, from random starts: the next item is certain, and
    # popularity is worthless.
    rng = np.random.default_rng(1)
    circle = "abcdefghij" * 3
    histories = [circle[s : s + 9] for s in rng.integers(0, 10, 60)]
    cases = split_of(*histories).test
    split = split_of(*histories)
    best = evaluate_ranking(ItemToItem(split), cases, ks=(1,), filter_seen=False)
    popular = evaluate_ranking(MostPopular(split), cases, ks=(1,), filter_seen=False)
    assert best.metrics["hr@1"] == 1
    assert popular.metrics["hr@1"] < 0.3
