"""Leave-one-out: what a score loses without one item, against scoring by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.explain import leave_one_out, occlusion

USERS, LENGTH = 5, 7
HISTORY = np.random.default_rng(0).integers(1, 12, [USERS, LENGTH]).astype(np.int32)
HISTORY[1, :3] = 0  # padded on the left, on the right, in between, empty
HISTORY[2, 4:] = 0
HISTORY[3, [1, 3]] = 0
HISTORY[4] = 0
ITEM = np.array([3, 1, 4, 1, 5], np.int32)


def score(history, item, *times):
    """Depends on the order of what is real, and on times when there are some."""
    real = tf.cast(history != 0, tf.float32)
    place = tf.cumsum(real, axis=1) * real
    value = tf.sin(tf.cast(history * item[:, tf.newaxis], tf.float32)) * place
    if times:
        ages = tf.cast(times[1][:, tf.newaxis] - times[0], tf.float32)
        value *= ages
    return tf.reduce_sum(value, axis=1)


def by_hand(*times):
    """One history at a time, the item cut out of the list."""
    found = np.zeros([USERS, LENGTH])
    for user in range(USERS):
        kept = [t for t in range(LENGTH) if HISTORY[user, t]]

        def scored(places, user=user):
            asked = [times[0][user, places], times[1][user]] if times else []
            row = tf.constant([HISTORY[user, places]], tf.int32)
            asked = [tf.constant([value]) for value in asked]
            return score(row, tf.constant([ITEM[user]]), *asked).numpy()[0]

        for t in kept:
            found[user, t] = scored(kept) - scored([s for s in kept if s != t])
    return found


@pytest.mark.parametrize("at_once", [1, LENGTH, 3 * LENGTH, 10_000])
def test_equals_cutting_each_item_out_of_the_list(monkeypatch, at_once):
    monkeypatch.setattr(occlusion, "_POSITIONS_AT_ONCE", at_once)
    found = leave_one_out(score, tf.constant(HISTORY), tf.constant(ITEM))
    np.testing.assert_allclose(found, by_hand(), rtol=1e-4, atol=1e-4)
    assert not found.numpy()[HISTORY == 0].any()


def test_times_go_with_their_items():
    times = np.cumsum(np.full([USERS, LENGTH], 3), axis=1), np.full(USERS, 40)
    given = [tf.constant(HISTORY), tf.constant(ITEM), *map(tf.constant, times)]
    found = leave_one_out(score, *given)
    np.testing.assert_allclose(found, by_hand(*times), rtol=1e-4, atol=1e-3)


def test_in_a_graph_of_unknown_sizes():
    signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    compiled = tf.function(
        lambda history, item: leave_one_out(score, history, item),
        input_signature=signature,
        autograph=False,
    )
    found = compiled(tf.constant(HISTORY), tf.constant(ITEM))
    np.testing.assert_allclose(found, by_hand(), rtol=1e-4, atol=1e-4)
    for shape in ([0, 4], [3, 0]):
        found = compiled(tf.zeros(shape, tf.int32), tf.zeros(shape[:1], tf.int32))
        assert found.shape == shape


def test_memory_does_not_grow_with_the_number_of_items():
    seen = []

    def watched(history, item):
        seen.append(int(history.shape[0]))
        return score(history, item)

    history = tf.ones([300, 500], tf.int32)
    leave_one_out(watched, history, tf.ones([300], tf.int32))
    assert max(seen[1:]) == 32_768 // 500
    assert sum(seen[1:]) == 300 * 500
