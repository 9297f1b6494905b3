"""Repeats, look-ups and masks of sampled negatives, against loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import tensorflow as tf

from tfrs_selfattn.ops.interests import best_interest
from tfrs_selfattn.ops.negatives import (
    among,
    find_columns,
    leave_out,
    merge_repeats,
)

random = np.random.default_rng(0)
N = 11
ITEMS = random.integers(0, N, [3, 8]).astype("int32")


def test_repeats_count_once_and_are_counted():
    items, counts = (each.numpy() for each in merge_repeats(tf.constant(ITEMS)))
    np.testing.assert_array_equal(items, np.sort(ITEMS, axis=1))
    for line, found, drawn in zip(items, counts, ITEMS, strict=True):
        wanted = Counter(drawn.tolist())
        assert {i: c for i, c in zip(line.tolist(), found, strict=True) if c} == wanted
        assert (found[1:][line[1:] == line[:-1]] == 0).all()


def test_a_run_does_not_go_on_in_the_next_line():
    items, counts = merge_repeats(tf.constant([[1, 5, 5], [5, 5, 7]]))
    np.testing.assert_array_equal(items, [[1, 5, 5], [5, 5, 7]])
    np.testing.assert_array_equal(counts, [[1, 2, 0], [2, 0, 1]])


def test_columns_are_those_of_the_first_place_in_the_group():
    items, _ = merge_repeats(tf.constant(ITEMS))
    groups, wanted = np.divmod(np.arange(3 * N, dtype=np.int32), N)
    found = find_columns(items, tf.constant(groups), tf.constant(wanted), N).numpy()
    for group, item, column in zip(groups, wanted, found, strict=True):
        line = items[group].numpy().tolist()
        assert column == (line.index(item) if item in line else -1)
    assert -1 in found
    empty = find_columns(items[:, :0], tf.constant(groups), tf.constant(wanted), N)
    assert (empty.numpy() == -1).all()


def test_keys_of_many_groups_of_many_items_do_not_overflow():
    items = tf.constant([[0, 2**30], [5, 2**30]], tf.int32)
    groups = tf.constant([0, 1, 1, 0])
    found = find_columns(items, groups, tf.constant([2**30, 2**30, 5, 5]), 2**31 - 1)
    assert found.numpy().tolist() == [1, 1, 0, -1]


def test_left_out_pairs():
    adjust = leave_out(
        tf.ones([3, 4]), tf.constant([0, 2, 1, 2]), tf.constant([1, 3, -1, 0]), -9.0
    )
    picture = [[1, -9, 1, 1], [1, 1, 1, 1], [-9, 1, 1, -9]]
    np.testing.assert_array_equal(adjust, picture)


def test_among_equals_the_loop():
    owners = random.integers(0, 4, 15).astype("int32")
    owned = random.integers(0, N, 15).astype("int32")
    pairs = set(zip(owners.tolist(), owned.tolist(), strict=True))
    lines = np.array([3, 0, 2], np.int32)
    found = among(owners, owned, lines, ITEMS, N).numpy()
    expected = [
        [(int(line), int(item)) in pairs for item in row]
        for line, row in zip(lines, ITEMS, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)
    assert found.any() and not found.all()
    assert not among(owners[:0], owned[:0], lines, ITEMS, N).numpy().any()


def test_the_best_interest_is_the_one_with_the_highest_score():
    queries = random.normal(size=[7, 3, 5])
    positives = random.normal(size=[7, 5])
    found = best_interest(tf.constant(queries), tf.constant(positives)).numpy()
    for query, positive, chosen in zip(queries, positives, found, strict=True):
        best = max(query, key=lambda interest: float(np.dot(interest, positive)))
        np.testing.assert_array_equal(chosen, best)
