"""Dropout: how often, and that its randomness is its argument and nothing else."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.ops import stateless_dropout
from tfrs_selfattn.ops.dropout import effective_rate, keep_mask

SEED = tf.constant([12, 34], tf.int64)
SIZE = 200_000


def dropped(rate, seed=SEED, size=SIZE):
    return ~keep_mask(tf.constant([size]), rate, seed).numpy()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.2, 0.5, 0.9])
def test_rate_is_met_within_chance(rate):
    # Within half a step of 1/256 of the rate, plus five standard deviations of a count.
    chance = 5 * math.sqrt(rate * (1 - rate) / SIZE)
    assert abs(effective_rate(rate) - rate) <= 1 / 512
    assert abs(dropped(rate).mean() - effective_rate(rate)) < chance


def test_rates_at_the_ends_stay_inside():
    assert effective_rate(1e-9) == 1 / 256
    assert effective_rate(1 - 1e-9) == 255 / 256


def test_each_byte_of_a_random_number_is_as_good_as_the_others():
    by_byte = dropped(0.25).reshape([-1, 4])
    chance = 5 * math.sqrt(0.25 * 0.75 / len(by_byte))
    assert np.abs(by_byte.mean(axis=0) - 0.25).max() < chance
    correlation = np.corrcoef(by_byte.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / math.sqrt(len(by_byte))


def test_the_same_seed_draws_the_same():
    np.testing.assert_array_equal(dropped(0.3), dropped(0.3))


@pytest.mark.parametrize("other", [[12, 35], [13, 34], [12 + (1 << 32), 34]])
def test_another_seed_or_counter_draws_another_mask(other):
    first, second = dropped(0.5), dropped(0.5, tf.constant(other, tf.int64))
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < 5 / math.sqrt(SIZE)


@pytest.mark.parametrize("shape", [[], [1], [3], [2, 3, 5], [0], [4, 0]])
def test_any_shape(shape):
    kept = keep_mask(tf.constant(shape, tf.int32), 0.5, SEED)
    assert kept.shape == shape
    assert kept.dtype == tf.bool


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_survivors_are_scaled_so_that_the_mean_stays(dtype):
    outputs = stateless_dropout(tf.ones([SIZE], dtype), 0.2, SEED)
    assert outputs.dtype == dtype
    values = tf.cast(outputs, tf.float32).numpy()
    scale = float(tf.cast(1 / (1 - effective_rate(0.2)), dtype))
    assert set(np.unique(values)) == {0.0, np.float32(scale)}
    assert abs(values.mean() - 1.0) < 0.01


def test_rate_zero_is_the_identity():
    inputs = tf.ones([3])
    assert stateless_dropout(inputs, 0.0, SEED) is inputs


def test_a_dropped_infinity_is_zero():
    outputs = stateless_dropout(tf.fill([1000], math.inf), 0.5, SEED).numpy()
    assert set(np.unique(outputs)) == {0.0, math.inf}


def test_gradient_flows_through_survivors_only():
    inputs = tf.ones([1000])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = stateless_dropout(inputs, 0.5, SEED)
        loss = tf.reduce_sum(outputs)
    np.testing.assert_array_equal(tape.gradient(loss, inputs), outputs)


def test_graph_and_xla_draw_what_eager_draws():
    def draw():
        return stateless_dropout(tf.ones([7, 11, 13]), 0.3, SEED)

    expected = draw()
    np.testing.assert_array_equal(tf.function(draw)(), expected)
    np.testing.assert_array_equal(tf.function(draw, jit_compile=True)(), expected)


@pytest.mark.parametrize("rate", [1.5, -0.1, 1.0, float("nan"), "half"])
def test_rates_that_are_none(rate):
    message = f"`rate` must be a number in [0, 1). Received: rate={rate!r}."
    with pytest.raises(ValueError, match=re.escape(message)):
        stateless_dropout(tf.ones([3]), rate, SEED)
