"""The generated logs keep what they promise, on both sides."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from tfrs_selfattn.data import (
    build_sequences,
    events_from_frame,
    generate_events,
    markov_events,
)


def test_generated_events_have_the_asked_for_shape():
    log = generate_events(5000, 100, 8.0, seed=1)
    sequences = build_sequences(events_from_frame(log))
    assert sequences.num_users == 5000
    assert sequences.lengths.min() == 1
    assert abs(sequences.lengths.mean() - 8.0) < 0.4
    assert len(sequences.vocabulary) == 100
    counts = sequences.vocabulary.counts
    assert abs(counts[0] / counts[9] - 10) < 1.5  # Zipf: rank 1 against rank 10.
    assert log["timestamp"].is_sorted()


def test_exponent_0_makes_all_items_alike():
    log = generate_events(5000, 10, 10.0, seed=1, exponent=0.0)
    counts = log["item_id"].value_counts()["count"]
    assert counts.min() > 0.9 * counts.max()


def test_the_seed_decides_the_log():
    one, same, other = (generate_events(50, 20, 5.0, seed=s) for s in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)
    one, same, other = (markov_events(9, 40, 5, seed=s).frame for s in (1, 1, 2))
    assert one.equals(same)
    assert not one.equals(other)


@pytest.fixture(scope="module")
def markov():
    return markov_events(4000, 61, 12, probabilities=(0.2, 0.5, 0.3), seed=5)


def test_markov_transitions_have_the_given_probabilities(markov):
    """The most frequent successors, learned by counting, hit as often as promised."""
    sequences = build_sequences(events_from_frame(markov.frame))
    successors = {}
    for user in range(sequences.num_users):
        items = sequences.user(user)[0].tolist()
        for item, following in itertools.pairwise(items):
            successors.setdefault(item, Counter())[following] += 1
    assert all(len(counts) == 3 for counts in successors.values())
    total = sum(sum(counts.values()) for counts in successors.values())
    for k in (1, 2, 3, 4):
        hits = sum(
            count
            for counts in successors.values()
            for _, count in counts.most_common(k)
        )
        assert abs(hits / total - markov.best_hit_rate(k)) < 0.01
    assert markov.best_hit_rate(1) == 0.5
    assert markov.best_hit_rate(2) == 0.8
    assert markov.best_hit_rate(9) == 1.0


def test_markov_users_never_meet_an_item_twice(markov):
    sequences = build_sequences(events_from_frame(markov.frame))
    assert (sequences.lengths == 12).all()
    for user in range(100):
        assert len(set(sequences.user(user)[0].tolist())) == 12


def test_markov_items_are_equally_popular_and_unordered(markov):
    sequences = build_sequences(events_from_frame(markov.frame))
    counts = sequences.vocabulary.counts
    assert counts.min() > 0.85 * counts.max()
    # Ids say nothing about the place on the ring.
    numbers = np.array([int(item[1:]) for item in markov.frame["item_id"]])
    numbers = numbers.reshape(12, -1)
    assert (np.abs(np.diff(numbers, axis=0)) > 3).mean() > 0.7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: markov_events(9, 10, 5), "`num_items` must be at least .* = 20"),
        (
            lambda: markov_events(9, 99, 5, probabilities=(0.5, 0.6)),
            "`probabilities` must be at least 0 and sum to 1",
        ),
        (lambda: generate_events(0, 5, 5.0, 0), "`num_users` must be a positive"),
        (lambda: generate_events(5, 5, 0.5, 0), "`mean_length` must be at least 1"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
