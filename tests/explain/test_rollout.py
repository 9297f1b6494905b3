"""Attention roll-out against loops over paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.explain import attention_rollout

USERS, HEADS, LENGTH = 2, 3, 4


def causal_weights(seed):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=[USERS, HEADS, LENGTH, LENGTH])
    weights = np.exp(logits) * np.tri(LENGTH)
    return weights / weights.sum(-1, keepdims=True)


def test_equals_the_sum_over_all_paths():
    blocks = [causal_weights(seed) for seed in range(3)]
    step = [0.5 * (w.mean(1) + np.eye(LENGTH)) for w in blocks]
    wanted = np.zeros([USERS, LENGTH, LENGTH])
    for user, start, end in itertools.product(
        range(USERS), range(LENGTH), range(LENGTH)
    ):
        for a, b in itertools.product(range(LENGTH), repeat=2):
            # From the last block down to the inputs.
            wanted[user, start, end] += (
                step[2][user, start, a] * step[1][user, a, b] * step[0][user, b, end]
            )
    found = attention_rollout([tf.constant(w, tf.float32) for w in blocks])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(tf.reduce_sum(found, -1), 1.0, rtol=1e-5)
    assert not np.triu(found.numpy(), 1).any()


def test_what_may_attend_to_nothing_keeps_to_itself():
    weights = causal_weights(0)
    weights[0, :, :2] = 0.0  # padding on the left
    found = attention_rollout([tf.constant(weights, tf.float32)] * 2).numpy()
    np.testing.assert_allclose(found[0, :2], np.eye(LENGTH)[:2], rtol=1e-6)


def test_no_weights_are_refused():
    with pytest.raises(ValueError, match=r"of at least one block\. Received: none"):
        attention_rollout([])
