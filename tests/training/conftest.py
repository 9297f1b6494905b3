"""A small log, and the runs and models that are made of it."""

from __future__ import annotations

import numpy as np
import pytest

from tfrs_selfattn import data, training

SMALL = {"embedding_dim": 8, "num_blocks": 1, "max_length": 16, "dropout": 0.2}


@pytest.fixture(scope="session")
def split():
    """60 users with 1 to about 40 events, 20 items."""
    log = data.generate_events(60, 20, 9.0, seed=1)
    return data.leave_one_out(data.build_sequences(data.events_from_frame(log)))


@pytest.fixture(scope="session")
def config(split):
    """A function from options of model and training to the configuration of a run."""

    def config(model=(), **options):
        return training.RunConfig.for_sequences(
            split.sequences,
            training.DataConfig("/data/events.csv"),
            training.ModelConfig(**SMALL | dict(model)),
            training.TrainingConfig(**{"epochs": 3, "batch_size": 8, **options}),
        )

    return config


@pytest.fixture(scope="session")
def make_run(split, config):
    """A function that creates, or opens, the folder of a small run."""

    def make_run(path, **options):
        vocabulary = split.sequences.vocabulary
        titles = {vocabulary.ids[0]: 'Tea, "black"'}
        return training.RunFolder.create(path, config(**options), vocabulary, titles)

    return make_run


@pytest.fixture(scope="session")
def assert_same_run():
    """A function that compares all that two runs have learned, bit for bit."""

    def assert_same_run(one, another):
        first, second = (without_seconds(run.metrics()) for run in (one, another))
        assert first == second
        for name in ("last", "best"):
            mine, theirs = (variables(run, name) for run in (one, another))
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                np.testing.assert_array_equal(value, theirs[key], err_msg=key)

    return assert_same_run


def without_seconds(metrics):
    clock = {"seconds", "items/s"}
    epochs = [
        {name: value for name, value in epoch.items() if name not in clock}
        for epoch in metrics["epochs"]
    ]
    return metrics | {"epochs": epochs}


def variables(run, name):
    """Weights, optimizer slots and counters in `checkpoints/<name>`."""
    # After the fixtures: TensorFlow reads what conftest has set.
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(run.checkpoints / name))
    names = reader.get_variable_to_shape_map()
    assert any("optimizer" in key for key in names) is (name == "last")
    return {
        key: reader.get_tensor(key)
        for key in names
        # No part of the state: the graph of objects, the log with its times, and how
        # often a process has saved.
        if not key.startswith(("_CHECKPOINTABLE_OBJECT_GRAPH", "history", "save_c"))
    }
