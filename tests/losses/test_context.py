"""Contexts of packed and padded batches, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.losses import (
    CandidateLookup,
    FullSoftmax,
    SampledSoftmax,
    batch_context,
    takes_context,
)

HISTORY = np.array([[3, 1, 4, 1, 5, 0], [0, 0, 9, 2, 6, 5], [0] * 6])
TARGETS = np.array([[1, 4, 7, 5, 9, 0], [0, 0, 2, 0, 5, 3], [0] * 6])
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [0, 0, 1, 1, 2, 3], [0] * 6])


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["padded", "packed"])
def test_equals_the_loop(segments):
    context = batch_context(HISTORY, TARGETS, segments)
    places, owned = [], {}
    for row in range(3):
        for t in range(6):
            segment = 1 if segments is None else segments[row][t]
            items = owned.setdefault((row, segment), [])
            if HISTORY[row][t]:
                items.append(HISTORY[row][t] - 1)
            if TARGETS[row][t]:
                items.append(TARGETS[row][t] - 1)
                places.append((row, segment))
    np.testing.assert_array_equal(context.rows, [row for row, _ in places])
    # The same sequence, the same number; another one, another.
    numbers = dict(zip(places, context.sequences.numpy().tolist(), strict=True))
    assert [numbers[place] for place in places] == context.sequences.numpy().tolist()
    assert len(set(numbers.values())) == len(numbers)
    for place, number in numbers.items():
        mine = context.own_items.numpy()[context.own_sequences.numpy() == number]
        assert sorted(mine) == sorted(owned[place])


def test_numbers_follow_one_another():
    context = batch_context(HISTORY, TARGETS, SEGMENTS)
    assert context.sequences.numpy().tolist() == [0, 0, 0, 1, 1, 2, 3, 4]


def test_a_batch_of_nothing():
    context = batch_context(HISTORY[2:], TARGETS[2:], SEGMENTS[2:])
    assert [len(part) for part in context] == [0, 0, 0, 0]


def test_the_catalogue_of_a_lookup():
    table = tf.random.stateless_normal([5, 2], [0, 0])
    lookup = CandidateLookup(lambda rows: tf.gather(table, rows), 5)
    np.testing.assert_array_equal(lookup.catalogue(), table)
    lookup = CandidateLookup(None, 5, lambda: table)
    np.testing.assert_array_equal(lookup.catalogue(), table)


def test_a_loss_says_whether_it_takes_a_context():
    assert takes_context(SampledSoftmax())
    assert not takes_context(FullSoftmax())
    assert not takes_context(lambda queries, candidates, targets, weight: 0.0)
