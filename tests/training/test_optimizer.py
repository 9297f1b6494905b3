"""The learning rate over a run, and which weights decay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.training.config import TrainingConfig
from tfrs_selfattn.training.optimizer import make_optimizer

STEPS = 5  # an epoch


def rates(**options):
    config = TrainingConfig(epochs=4, learning_rate=0.5, **options)
    rate = make_optimizer(config, STEPS).get_config()["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        return [float(schedule(step)) for step in range(4 * STEPS + 1)]
    return [rate] * (4 * STEPS + 1)


def cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5] * 21),
        ({"warmup_steps": 4}, [0, 0.125, 0.25, 0.375] + [0.5] * 17),
        ({"schedule": "cosine"}, [cosine(step / 20) for step in range(21)]),
        (
            {"schedule": "cosine", "warmup_steps": 5},
            [0, 0.1, 0.2, 0.3, 0.4] + [cosine(step / 15) for step in range(16)],
        ),
    ],
)
def test_the_rate_of_every_step(options, expected):
    np.testing.assert_allclose(rates(**options), expected, atol=1e-6)


def test_weight_decay_shrinks_kernels_and_nothing_else():
    optimizer = make_optimizer(TrainingConfig(weight_decay=0.1), STEPS)
    names = (
        "query_kernel",
        "query_bias",
        "norm/gamma",
        "norm/beta",
        "items/embeddings",
    )
    variables = [tf.Variable([2.0], name=name) for name in names]
    optimizer.apply_gradients([(tf.zeros([1]), variable) for variable in variables])
    values = dict(zip(names, (float(v[0]) for v in variables), strict=True))
    assert values.pop("query_kernel") == pytest.approx(2.0 * (1 - 1e-3 * 0.1))
    assert set(values.values()) == {2.0}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("schedule", "linear", "one of 'constant', 'cosine'. Received"),
        ("warmup_steps", -1, "finite number of at least 0. Received"),
        ("weight_decay", float("nan"), "finite number of at least 0. Received"),
        ("cut_histories", 1.0, r"number in \[0, 1\). Received"),
    ],
)
def test_bad_values_are_refused(option, value, message):
    with pytest.raises(ValueError, match=f"`{option}` must be .*{message}"):
        TrainingConfig(**{option: value})
