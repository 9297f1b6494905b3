"""The full softmax loss as an object: means, configuration, errors."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.losses.sampling import value_and_gradients
from tfrs_selfattn.losses import FullSoftmax

M, N, D = 7, 11, 3
random = np.random.default_rng(4)
QUERIES = random.normal(size=[M, D]).astype("float32")
CANDIDATES = random.normal(size=[N, D]).astype("float32")
TARGETS = random.integers(0, N, M).astype("int32")
WEIGHTS = random.random(M).astype("float32")


def test_is_the_mean_over_queries():
    total = oracles.full_softmax(QUERIES, CANDIDATES, TARGETS, temperature=0.5)
    loss = FullSoftmax(0.5)(QUERIES, CANDIDATES, TARGETS)
    np.testing.assert_allclose(loss, total / M, rtol=1e-5)


def test_is_the_weighted_mean():
    total = oracles.full_softmax(QUERIES, CANDIDATES, TARGETS, WEIGHTS)
    loss = FullSoftmax(block_rows=3)(QUERIES, CANDIDATES, TARGETS, WEIGHTS)
    np.testing.assert_allclose(loss, total / WEIGHTS.sum(), rtol=1e-5)


def test_weights_of_nothing_give_zero():
    assert float(FullSoftmax()(QUERIES, CANDIDATES, TARGETS, np.zeros(M))) == 0.0
    empty = tf.zeros([0, D]), CANDIDATES, tf.zeros([0], tf.int32)
    assert float(FullSoftmax()(*empty)) == 0.0


def test_weight_zero_is_absence_to_the_last_bit():
    weights = np.where(np.arange(M) % 2 == 0, 0.0, WEIGHTS).astype("float32")
    kept = weights > 0
    queries = np.where(kept[:, None], QUERIES, np.nan)  # nothing may look at them
    with_zeros = value_and_gradients(
        lambda q, c: FullSoftmax()(q, c, TARGETS, weights), queries, CANDIDATES
    )
    without = value_and_gradients(
        lambda q, c: FullSoftmax()(q, c, TARGETS[kept], weights[kept]),
        QUERIES[kept],
        CANDIDATES,
    )
    np.testing.assert_array_equal(with_zeros[0], without[0])
    np.testing.assert_array_equal(with_zeros[1][kept], without[1])
    np.testing.assert_array_equal(with_zeros[1][~kept], 0.0)
    np.testing.assert_array_equal(with_zeros[2], without[2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_towers_in_half_precision(dtype):
    # Of the rounded inputs, but computed in float32.
    queries, candidates = tf.cast(QUERIES, dtype), tf.cast(CANDIDATES, dtype)
    loss = FullSoftmax()(queries, candidates, TARGETS)
    assert loss.dtype == tf.float32
    expected = oracles.full_softmax(
        tf.cast(queries, tf.float64).numpy(),
        tf.cast(candidates, tf.float64).numpy(),
        TARGETS,
    )
    np.testing.assert_allclose(loss, expected / M, rtol=1e-5)


def test_config_round_trip():
    config = FullSoftmax(0.25, block_rows=17).get_config()
    assert config == {"temperature": 0.25, "block_rows": 17}
    again = FullSoftmax.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"temperature": 0.0},
            "`temperature` must be a positive finite number. "
            "Received: temperature=0.0.",
        ),
        (
            {"temperature": float("nan")},
            "`temperature` must be a positive finite number. "
            "Received: temperature=nan.",
        ),
        (
            {"temperature": "low"},
            "`temperature` must be a positive finite number. "
            "Received: temperature='low'.",
        ),
        (
            {"block_rows": 0},
            "`block_rows` must be a positive integer. Received: block_rows=0.",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FullSoftmax(**arguments)
