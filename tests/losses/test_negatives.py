"""The samplers draw what they say they draw."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.losses import (
    InBatchNegatives,
    PopularityNegatives,
    UniformNegatives,
)

N = 23
COUNTS = [int(count) for count in np.random.default_rng(2).integers(0, 9, N)]
TARGETS = tf.constant(np.random.default_rng(3).integers(0, N, 40), tf.int32)


def draw(sampler, groups=3, num_items=N, seed=0):
    items = sampler.draw(groups, num_items, tf.constant([seed, 1], tf.int64), TARGETS)
    assert items.dtype == tf.int32
    return items.numpy()


def expected(sampler, items, num_items=N):
    """How often one draw of a group holds each item, by the sampler's own account."""
    num = draw(sampler, 1, num_items).shape[1]
    return np.exp(sampler.log_expected(tf.constant(items), num_items, num))


SAMPLERS = {
    "uniform, few of many": UniformNegatives(1),
    "uniform, no repeats": UniformNegatives(9),
    "uniform, all": UniformNegatives(N + 1),
    "popularity": PopularityNegatives(COUNTS, 5),
    "popularity, proportional": PopularityNegatives(COUNTS, 5, exponent=1.0),
    "popularity, of those seen": PopularityNegatives(COUNTS, 5, exponent=0.0),
}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@every_sampler
def test_items_come_as_often_as_expected(name):
    groups = 20_000
    counts = np.bincount(draw(SAMPLERS[name], groups).ravel(), minlength=N)
    mean = expected(SAMPLERS[name], np.arange(N, dtype=np.int32))
    spread = 5 * np.sqrt(mean / groups) + 1e-9
    assert (np.abs(counts / groups - mean) < spread).all()


@every_sampler
def test_a_seed_repeats_and_another_does_not(name):
    first = draw(SAMPLERS[name], seed=1)
    np.testing.assert_array_equal(first, draw(SAMPLERS[name], seed=1))
    if name != "uniform, all":
        assert (draw(SAMPLERS[name], 40, seed=1) != draw(SAMPLERS[name], 40)).any()


def test_many_of_few_do_not_repeat():
    items = draw(UniformNegatives(9), 50)
    assert all(len(set(line)) == 9 for line in items.tolist())
    assert len({tuple(line) for line in items.tolist()}) > 40


def test_popularity_is_that_of_the_counts():
    sampler = PopularityNegatives(COUNTS, 1, exponent=0.5)
    found = expected(sampler, np.arange(N, dtype=np.int32))
    roots = [math.sqrt(count) for count in COUNTS]
    np.testing.assert_allclose(found, np.array(roots) / sum(roots), rtol=1e-5)


def test_no_item_is_too_rare_for_its_logarithm():
    # Two million items; one of them has one event in 2e11.
    counts = np.full(2_000_000, 100_000)
    counts[1_234_567] = 1
    sampler = PopularityNegatives(counts, 1, exponent=1.0)
    rare = tf.constant([1_234_567, 5])
    found = sampler.log_expected(rare, 2_000_000, 1).numpy()
    total = float(counts.sum())
    np.testing.assert_allclose(found, [-math.log(total), math.log(1e5 / total)], 1e-6)
    in_batch = InBatchNegatives(counts).log_expected(rare, 2_000_000, 1)
    np.testing.assert_allclose(in_batch, found, rtol=1e-6)
    items = draw(sampler, 5000, 2_000_000)
    assert len(np.unique(items)) > 4950  # all over the catalogue, to the last item
    assert items.max() > 1_990_000


def test_in_batch_negatives_are_targets():
    np.testing.assert_array_equal(draw(InBatchNegatives(COUNTS)), [TARGETS])
    some = draw(InBatchNegatives(COUNTS, 7))
    assert some.shape == (1, 7)
    left = np.bincount(TARGETS, minlength=N) - np.bincount(some[0], minlength=N)
    assert (left >= 0).all()
    np.testing.assert_array_equal(
        np.sort(draw(InBatchNegatives(COUNTS, 500))[0]), np.sort(TARGETS)
    )


def test_a_target_that_was_never_counted_counts_once():
    sampler = InBatchNegatives([0, 1, 2])
    found = np.exp(sampler.log_expected(tf.constant([0, 1, 2]), 3, 1))
    np.testing.assert_allclose(found, [1 / 4, 1 / 4, 2 / 4], rtol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        UniformNegatives(7),
        PopularityNegatives(COUNTS, 7, exponent=0.3),
        InBatchNegatives(np.array(COUNTS), 7),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_config_round_trip(sampler):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(sampler)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == sampler.get_config()
    np.testing.assert_array_equal(draw(again), draw(sampler))


COUNT_ERROR = "`counts` must hold how often each of the N items occurs, integers of at"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformNegatives(0), "`num_negatives` must be a positive integer."),
        (lambda: PopularityNegatives([], 3), COUNT_ERROR),
        (lambda: PopularityNegatives([0, 0], 3), COUNT_ERROR),
        (lambda: PopularityNegatives([2, -1], 3), COUNT_ERROR),
        (lambda: InBatchNegatives([0.5, 0.5]), COUNT_ERROR),
        (
            lambda: PopularityNegatives([1, 2], 3, exponent=-1),
            "`exponent` must be a finite number of at least 0. Received: exponent=-1.",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
