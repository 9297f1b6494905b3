"""Masks as pictures: literal matrices of 0 and 1, 1 = may attend."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfrs_selfattn.ops import AttentionMask


def from_picture(picture):
    return tf.constant(np.array(picture, bool))


def whole(mask, rows, columns=None):
    return mask.block(tf.range(rows), tf.range(rows if columns is None else columns))


def assert_picture(mask, picture, rows=None):
    found = whole(mask, np.shape(picture)[-2] if rows is None else rows)
    assert found.dtype == tf.bool
    assert found.shape.rank == 3
    np.testing.assert_array_equal(tf.cast(found, tf.int32), picture)


def test_causal():
    assert_picture(
        AttentionMask(causal=True),
        [
            [
                [1, 0, 0, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 1],
            ]
        ],
    )


def test_window():
    assert_picture(
        AttentionMask(window=2),
        [
            [
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1],
            ]
        ],
    )


def test_causal_window():
    assert_picture(
        AttentionMask(window=2, causal=True),
        [
            [
                [1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1],
            ]
        ],
    )


def test_causal_window_of_one_sees_itself():
    assert_picture(AttentionMask(window=1, causal=True), np.eye(3, dtype=int)[None])


def test_segments():
    assert_picture(
        AttentionMask(segment_ids=tf.constant([[1, 1, 2, 0]])),
        [
            [
                [1, 1, 0, 0],
                [1, 1, 0, 0],
                [0, 0, 1, 0],
                [0, 0, 0, 0],
            ]
        ],
    )


def test_padding_hides_keys_and_leaves_queries():
    assert_picture(
        AttentionMask(padding=tf.constant([[False, True, True]])),
        [[[0, 1, 1]]],  # the same for every query
        rows=3,
    )


def test_left_padding_and_causal_leave_rows_without_a_key():
    assert_picture(
        AttentionMask(padding=tf.constant([[False, True, True]]), causal=True),
        [
            [
                [0, 0, 0],
                [0, 1, 0],
                [0, 1, 1],
            ]
        ],
    )


ALL_BUT_A_PAIR = from_picture(
    [
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
    ]
)
ALL_TOGETHER = [
    [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
]


def all_together():
    return AttentionMask(
        padding=tf.constant([[True, True, True, False, True]]),
        segment_ids=tf.constant([[4, 4, 4, 9, 9]]),
        allowed=ALL_BUT_A_PAIR,
        causal=True,
        window=2,
    )


def test_all_masks_together():
    assert_picture(all_together(), ALL_TOGETHER)


def test_any_block_is_that_part_of_the_whole():
    mask, picture = all_together(), np.array(ALL_TOGETHER)
    for start, stop, key_start, key_stop in [(1, 4, 0, 3), (2, 5, 1, 5), (4, 5, 3, 5)]:
        found = mask.block(tf.range(start, stop), tf.range(key_start, key_stop))
        expected = picture[:, start:stop, key_start:key_stop]
        np.testing.assert_array_equal(found, expected)


def test_positions_past_the_end_are_drawn_all_the_same():
    # Blocks of one size run past the end of a row; what uses them hides that part.
    found = all_together().block(tf.range(3, 6), tf.range(3, 6))
    assert found.shape == (1, 3, 3)
    np.testing.assert_array_equal(found[:, :2, :2], [[[0, 0], [0, 1]]])


def test_arbitrary_mask_of_each_user():
    pictures = [[[1, 0], [1, 1]], [[0, 1], [0, 0]]]
    masks = from_picture(pictures)
    assert_picture(AttentionMask(allowed=masks), pictures)
    assert_picture(
        AttentionMask(allowed=masks, causal=True), [[[1, 0], [1, 1]], [[0, 0], [0, 0]]]
    )


@pytest.mark.parametrize("picture", [[[1, 0]], [[1], [0]], [[1]]])
def test_arbitrary_mask_that_is_broadcast(picture):
    assert_picture(AttentionMask(allowed=from_picture(picture)), [picture], rows=2)


def test_no_mask_hides_nothing():
    assert whole(AttentionMask(), 3) is None


@pytest.mark.parametrize("part", ["padding", "segment_ids", "allowed"])
def test_what_may_leave_a_row_without_a_key(part):
    assert not AttentionMask(causal=True).may_hide_all
    dtype = tf.int32 if part == "segment_ids" else tf.bool
    assert AttentionMask(**{part: tf.ones([1, 3, 3], dtype)}).may_hide_all


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"window": 0},
            "`window` must be a positive integer. Received: window=0. Or pass None.",
        ),
        (
            {"causal": "no"},
            "`causal` must be a bool. Received: causal='no'. Use True or False.",
        ),
        (
            {"padding": np.ones([1, 3], np.int32)},
            "`padding` must be bool, True = may be attended to. Received: dtype=int32. "
            "Use for example ids != 0.",
        ),
        (
            {"allowed": tf.ones([3, 3])},
            "`allowed` must be bool, True = may be attended to. Received: "
            "dtype=float32. Use for example ids != 0.",
        ),
        (
            {"segment_ids": [[1.0, 2.0]]},
            "`segment_ids` must be integers, 0 for padding. Received: dtype=float32. "
            "Number the users of each row 1, 2, … as int32.",
        ),
    ],
)
def test_parts_that_make_no_mask(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        AttentionMask(**arguments)


@settings(max_examples=60)
@given(
    st.integers(1, 6),
    st.booleans(),
    st.none() | st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_equals_the_loop(length, causal, window, padded, segmented, allowed, seed):
    random = np.random.default_rng(seed)
    options = {"causal": causal, "window": window}
    masks = dict(options)
    if padded:
        options["mask"] = random.random([2, length]) < 0.6
        masks["padding"] = tf.constant(options["mask"])
    if segmented:
        options["segment_ids"] = np.sort(random.integers(0, 3, [2, length]))
        masks["segment_ids"] = tf.constant(options["segment_ids"])
    if allowed:
        options["attention_mask"] = random.random([2, length, length]) < 0.6
        masks["allowed"] = tf.constant(options["attention_mask"])
    found = whole(AttentionMask(**masks), length)
    found = np.ones([1, 1, 1], bool) if found is None else found.numpy()
    found = np.broadcast_to(found, [2, length, length])
    for user, t, s in np.ndindex(2, length, length):
        assert found[user, t, s] == oracles.may_attend(user, t, s, **options)
