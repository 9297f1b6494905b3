"""Deletion: a right explanation beats chance, a wrong one does not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.explain import deletion, leave_one_out

draw = np.random.default_rng(2)
HISTORY = tf.constant(draw.integers(1, 50, [40, 12]), tf.int32)
ITEM = tf.ones([40], tf.int32)


def score(history, item):
    return tf.cast(tf.reduce_sum(history, axis=1) * item, tf.float32)


def test_what_is_lost_is_what_was_named():
    found = leave_one_out(score, HISTORY, ITEM)
    for count in (1, 3):
        lost = deletion(score, HISTORY, ITEM, found, num_deleted=count)
        largest = np.sort(HISTORY.numpy(), axis=1)[:, -count:].sum(1)
        np.testing.assert_allclose(lost.top, largest)
        average = count * HISTORY.numpy().mean()
        assert lost.random.numpy().mean() == pytest.approx(average, rel=0.1)
        assert (lost.top > lost.random).numpy().all()


def test_an_explanation_turned_round_is_found_out():
    found = leave_one_out(score, HISTORY, ITEM)
    lost = deletion(score, HISTORY, ITEM, -found, num_deleted=3)
    assert (lost.top < lost.random).numpy().all()


def test_one_item_is_left_and_padding_is_never_chosen():
    history = tf.constant([[0, 5, 0, 2], [0, 0, 0, 7], [0, 0, 0, 0]])
    lost = deletion(
        score,
        history,
        tf.ones([3], tf.int32),
        tf.constant([[9.0, 2.0, 9.0, 1.0], [9.0] * 4, [9.0] * 4]),
        num_deleted=3,
    )
    assert lost.top.numpy().tolist() == [5.0, 0.0, 0.0]


def test_the_same_seed_draws_the_same():
    def run(seed):
        return deletion(score, HISTORY, ITEM, HISTORY, seed=seed).random.numpy()

    np.testing.assert_array_equal(run(3), run(3))
    assert (run(3) != run(4)).any()
