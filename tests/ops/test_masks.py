"""Lengths, positions of real items, and rows moved to their right end."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrs_selfattn.ops import align_right, item_positions, lengths_mask


def from_picture(picture):
    return tf.constant(np.array(picture, bool))


def test_lengths_mask():
    found = lengths_mask(tf.constant([2, 0, 3]), 3)
    assert found.dtype == tf.bool
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("count_from", "numbers"),
    [("newest", [2, 1, 0, 1, 0]), ("oldest", [0, 1, 2, 0, 1])],
)
def test_positions_of_real_items(count_from, numbers):
    mask = from_picture([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]])
    positions = item_positions(mask, count_from=count_from)
    assert positions.dtype == tf.int32
    assert int(tf.reduce_min(positions)) >= 0
    np.testing.assert_array_equal(positions.numpy()[mask.numpy()], numbers)


@pytest.mark.parametrize(
    ("count_from", "numbers"),
    [
        ("newest", [[1, 0, 2, 1, 0, 0], [0, 0, 0, 1, 0, 0]]),
        ("oldest", [[0, 1, 0, 1, 2, 0], [0, 0, 0, 0, 1, 0]]),
    ],
)
def test_positions_restart_in_each_segment(count_from, numbers):
    # The last segment of the first row and the first of the second share an id.
    segment_ids = tf.constant([[1, 1, 2, 2, 2, 3], [3, 5, 6, 7, 7, 8]])
    mask = tf.ones([2, 6], tf.bool)
    positions = item_positions(mask, segment_ids, count_from=count_from)
    np.testing.assert_array_equal(positions, numbers)


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from(["newest", "oldest"]),
)
def test_positions_equal_the_loop(parts, padding, left, count_from):
    ids = [number for number, part in enumerate(parts, 1) for _ in part]
    ids = [0] * padding + ids if left else ids + [0] * padding
    segment_ids = np.array([ids, ids[::-1]], np.int32)
    mask = segment_ids != 0
    found = item_positions(
        tf.constant(mask), tf.constant(segment_ids), count_from=count_from
    ).numpy()
    for user, t in np.argwhere(mask):
        expected = oracles.place(user, t, mask, segment_ids, count_from)
        assert found[user, t] == expected


def test_positions_from_neither_end():
    message = (
        "`count_from` must be one of 'newest', 'oldest'. Received: count_from='left'."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        item_positions(tf.ones([1, 2], tf.bool), count_from="left")


def test_align_right_picture():
    ids = tf.constant(
        [
            [0, 0, 7, 8],  # left
            [7, 8, 0, 0],  # right
            [7, 0, 0, 8],  # between
            [5, 6, 7, 8],  # longer than the model
            [0, 0, 0, 0],  # empty
        ]
    )
    np.testing.assert_array_equal(
        align_right(ids, 3)[0],
        [
            [0, 7, 8],
            [0, 7, 8],
            [0, 7, 8],
            [6, 7, 8],
            [0, 0, 0],
        ],
    )


def test_align_right_moves_the_others_along():
    ids = tf.constant([[3, 0, 4, 0], [0, 5, 6, 7]])
    times = tf.constant([[30, -1, 40, -1], [-1, 50, 60, 70]], tf.int64)
    moved, moved_times = align_right(ids, 2, times)
    np.testing.assert_array_equal(moved, [[3, 4], [6, 7]])
    np.testing.assert_array_equal(moved_times, [[30, 40], [60, 70]])
    assert moved_times.dtype == tf.int64


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0, 0), (2, 3)])
def test_align_right_of_nothing(shape):
    aligned = align_right(tf.zeros(shape, tf.int32), 5)[0]
    np.testing.assert_array_equal(aligned, np.zeros([shape[0], 1]))


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.integers(0, 9), min_size=6, max_size=6), min_size=1, max_size=4
    ),
    st.integers(1, 8),
)
def test_align_right_keeps_the_newest_items_in_order(rows, max_length):
    aligned = align_right(tf.constant(rows), max_length)[0].numpy()
    histories = [[item for item in row if item][-max_length:] for row in rows]
    width = max(1, *(len(history) for history in histories))
    expected = [[0] * (width - len(history)) + history for history in histories]
    np.testing.assert_array_equal(aligned, expected)
