"""What the masked objective hides, how often, and what it trains on."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import sampling
from tfrs_selfattn._keras import keras
from tfrs_selfattn.losses import (
    CandidateLookup,
    FullSoftmax,
    MaskedItems,
    SampledSoftmax,
    UniformNegatives,
)

HISTORY = np.array([[3, 1, 4, 1, 5, 0], [0, 9, 2, 6, 5, 8]], np.int32)
TARGETS = np.array([[1, 4, 7, 5, 9, 0], [0, 2, 0, 0, 8, 3]], np.int32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 0], [0, 1, 1, 2, 2, 2]], np.int32)
# What comes next at each position; where a sequence ends without a target, nothing.
ITEMS = np.array([[1, 4, 7, 5, 9, 0], [0, 2, 0, 5, 8, 3]], np.int32)
NEWEST = np.array([[0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 0, 1]], bool)
ROWS = {
    "history": tf.constant(HISTORY),
    "targets": tf.constant(TARGETS),
    "segment_ids": tf.constant(SEGMENTS),
    "sample_weight": tf.ones([2, 6]),
}


def prepared(count=2000, **options):
    objective = MaskedItems(seed=3, **options)
    prepare = tf.function(lambda: objective.prepare(ROWS), autograph=False)
    return [{name: np.array(x) for name, x in prepare().items()} for _ in range(count)]


def test_targets_are_what_is_hidden_and_nothing_else():
    for rows in prepared(50):
        np.testing.assert_array_equal(rows["history"], ITEMS)
        np.testing.assert_array_equal(rows["targets"] > 0, rows["hidden"])
        np.testing.assert_array_equal(
            rows["targets"], np.where(rows["hidden"], TARGETS, 0)
        )
        assert not rows["hidden"][TARGETS == 0].any()
        np.testing.assert_array_equal(rows["segment_ids"], SEGMENTS)
        assert "sample_weight" in rows


def test_each_target_is_hidden_as_often_as_asked():
    hidden = np.stack([rows["hidden"] for rows in prepared(newest_only=0.0, rate=0.3)])
    share = hidden.mean(axis=0)[TARGETS > 0]
    assert (np.abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)).all()


def test_some_sequences_hide_the_newest_alone():
    hidden = np.stack([rows["hidden"] for rows in prepared(newest_only=0.4, rate=0.0)])
    assert not hidden[:, ~NEWEST].any()
    share = hidden.mean(axis=0)[NEWEST]
    assert (np.abs(share - 0.4) < 5 * np.sqrt(0.4 * 0.6 / 2000)).all()
    # Sequence by sequence, not all of the batch at once.
    first, second = hidden[:, 0, 2], hidden[:, 0, 4]
    assert 0.1 < (first & second).mean() < 0.22


def test_where_the_newest_is_hidden_alone_the_others_show():
    hidden = np.stack([rows["hidden"] for rows in prepared(newest_only=0.5, rate=0.9)])
    row = hidden[:, 0, :3]
    assert 0.4 < (row == [False, False, True]).all(axis=1).mean() < 0.6


def test_without_segments_a_row_is_a_sequence():
    rows = {name: ROWS[name] for name in ("history", "targets")}
    found = MaskedItems(seed=0).prepare(rows)
    items = [[1, 4, 7, 5, 9, 0], [9, 2, 6, 5, 8, 3]]
    np.testing.assert_array_equal(found["history"], items)
    empty = {name: tf.zeros([2, 3], tf.int32) for name in rows}
    assert not MaskedItems(seed=0).prepare(empty)["hidden"].numpy().any()


def test_every_step_hides_others_and_a_seed_repeats_it():
    first, second = prepared(5), prepared(5)
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours["hidden"], theirs["hidden"])
    assert len({rows["hidden"].tobytes() for rows in first}) > 1


@pytest.mark.parametrize("inner", [None, SampledSoftmax(UniformNegatives(4), seed=1)])
def test_the_loss_is_the_inner_one(inner):
    objective = MaskedItems(inner)
    lookup = CandidateLookup(lambda rows: tf.gather(sampling.CANDIDATES, rows), 17)
    arguments = sampling.TARGETS, sampling.WEIGHTS
    if inner is None:
        expected = FullSoftmax()(sampling.QUERIES, sampling.CANDIDATES, *arguments)
    else:
        again = type(inner).from_config(inner.get_config())
        expected = again(sampling.QUERIES, lookup, *arguments, context=sampling.CONTEXT)
    found = objective(sampling.QUERIES, lookup, *arguments, context=sampling.CONTEXT)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_config_round_trip():
    loss = SampledSoftmax(UniformNegatives(3), seed=2)
    objective = MaskedItems(loss, rate=0.15, newest_only=0.25, seed=9, name="mine")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(objective)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == objective.get_config()
    assert len(again.weights) == len(objective.weights) == 2  # both counters


@pytest.mark.parametrize("name", ["rate", "newest_only"])
def test_errors(name):
    message = f"`{name}` must be a number in [0, 1). Received: {name}=1.0."
    with pytest.raises(ValueError, match=re.escape(message)):
        MaskedItems(**{name: 1.0})
