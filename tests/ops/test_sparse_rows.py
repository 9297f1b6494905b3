"""Sums of weighted rows against plain loops, and their gradient."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_selfattn.ops.sparse_rows import Groups, make_groups, sum_rows


def drawn(num_sums=5, rows=7, width=3):
    draw = np.random.default_rng(0)
    sums = np.array([0, 0, 0, 2, 2, 3, 3, 3, 3])  # 1 and 4 are sums of nothing
    tokens = draw.integers(0, rows, len(sums)).astype(np.int32)
    weights = draw.choice([0.5, 2.0], len(sums)).astype(np.float32)
    table = draw.normal(size=[rows, width]).astype(np.float32)
    return sums, tokens, weights, table, num_sums


def test_sums_and_gradients_are_those_of_plain_loops():
    sums, tokens, weights, table, num_sums = drawn()
    groups = Groups(*map(tf.constant, make_groups(sums, tokens, weights)))
    assert len(groups.weights) < len(tokens)
    upstream = np.random.default_rng(1).normal(size=[num_sums, 3]).astype(np.float32)
    wanted = np.zeros([num_sums, 3])
    gradient = np.zeros_like(table, np.float64)
    for total, token, weight in zip(sums, tokens, weights, strict=True):
        wanted[total] += weight * table[token]
        gradient[token] += weight * upstream[total]
    variable = tf.Variable(table)
    with tf.GradientTape() as tape:
        found = sum_rows(variable, groups, num_sums)
        loss = tf.reduce_sum(found * upstream)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, variable), gradient, atol=1e-5)


def test_without_entries_all_sums_are_zero():
    empty = make_groups(
        np.zeros(0, int), np.zeros(0, np.int32), np.zeros(0, np.float32)
    )
    groups = Groups(*map(tf.constant, empty))
    assert not sum_rows(tf.ones([2, 3]), groups, 4).numpy().any()
