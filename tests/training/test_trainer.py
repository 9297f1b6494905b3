"""Training keeps the best epoch, stops in time and refuses what it cannot learn."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tfrs_selfattn import InputError, data, training
from tfrs_selfattn.training.checkpoints import MONITOR


class Scores(tf.keras.callbacks.Callback):
    """Puts these in the place of the validation NDCG@10 of the epochs."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs[MONITOR] = self.scores[epoch]


@pytest.fixture
def scored(monkeypatch, split):
    """A function that trains with given scores; returns result, weights by epoch."""
    from tfrs_selfattn.training import checkpoints, trainer

    def scored(folder, scores):
        weights = {}

        class Both(checkpoints.TrainingSpeed):  # runs before the checkpoint is written
            def on_epoch_end(self, epoch, logs=None):
                super().on_epoch_end(epoch, logs)
                Scores(scores).on_epoch_end(epoch, logs)
                weights[epoch + 1] = self.model.query_tower.get_weights()

        monkeypatch.setattr(trainer, "TrainingSpeed", Both)
        return training.train(folder, split, verbose=0), weights

    return scored


def same(weights, others):
    return all(map(np.array_equal, weights, others))


def test_the_best_epoch_is_kept_and_patience_stops(make_run, scored, tmp_path):
    folder = make_run(tmp_path / "run", epochs=9, patience=2)
    result, weights = scored(folder, [0.1, 0.3, 0.2, 0.3, 0.9])
    assert (result.epochs, result.best_epoch) == (4, 2)  # a tie is no improvement
    assert result.validation["ndcg@10"] == 0.3
    assert same(result.model.query_tower.get_weights(), weights[2])
    assert not same(result.model.query_tower.get_weights(), weights[4])
    assert same(training.load_model(folder).query_tower.get_weights(), weights[2])
    metrics = folder.metrics()
    assert (metrics["finished"], metrics["best_epoch"]) == (True, 2)
    assert metrics["validation"] == result.validation
    assert [epoch[MONITOR] for epoch in metrics["epochs"]] == [0.1, 0.3, 0.2, 0.3]
    assert {"epoch", "loss", "items/s", "seconds", MONITOR} < set(metrics["epochs"][0])

    # The same again trains nothing, though epochs would be left.
    again, none = scored(folder, [])
    assert (again.epochs, again.resumed_from, none) == (4, 4, {})
    assert same(again.model.query_tower.get_weights(), weights[2])


def test_patience_counts_on_after_a_kill(make_run, scored, tmp_path, split):
    folder = make_run(tmp_path / "run", epochs=9, patience=2)
    with pytest.raises(IndexError):  # no score for epoch 3: killed there
        scored(folder, [0.3, 0.2])
    assert not folder.metrics()["finished"]
    result, weights = scored(folder, [None, None, 0.1, 0.9])
    assert (result.resumed_from, result.epochs, result.best_epoch) == (2, 3, 1)
    assert list(weights) == [3]


def test_what_others_noted_stays_as_long_as_the_best_epoch(make_run, scored, tmp_path):
    folder = make_run(tmp_path / "run", epochs=3)
    with pytest.raises(IndexError):  # killed in epoch 2
        scored(folder, [0.2])
    noted = {"test": {"users": 7}}
    folder.write_metrics(folder.metrics() | noted)
    with pytest.raises(IndexError):  # killed in epoch 3
        scored(folder, [None, 0.1])
    assert folder.metrics()["test"] == noted["test"]
    scored(folder, [None, None, 0.9])
    assert folder.metrics()["best_epoch"] == 3
    assert "test" not in folder.metrics()
    assert json.loads((folder.path / "metrics.json").read_text()) == folder.metrics()


def test_a_loss_that_is_no_number_ends_it_and_the_best_epoch_stays(
    make_run, split, tmp_path
):
    folder = make_run(tmp_path / "run")

    class Break(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.best = self.model.query_tower.get_weights()
            self.model.optimizer.learning_rate.assign(float("nan"))

    breaking = Break()
    with pytest.raises(
        training.TrainingDiverged, match=r"The loss of epoch 2 is nan.*--learning-rate"
    ):
        training.train(folder, split, callbacks=[breaking], verbose=0)
    assert [epoch["epoch"] for epoch in folder.metrics()["epochs"]] == [1]
    assert same(training.load_model(folder).query_tower.get_weights(), breaking.best)


def test_the_split_of_another_protocol_is_refused(make_run, split, tmp_path):
    folder = make_run(tmp_path / "run")
    times = np.sort(split.sequences.timestamps)
    clock = data.temporal_split(
        split.sequences, validation_time=times[200], test_time=times[400]
    )
    with pytest.raises(InputError, match=r"the one of the run.*has None\. Split the"):
        training.train(folder, clock, verbose=0)


def test_a_run_without_an_epoch_has_no_model(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"no complete epoch yet.*Repeat the `train`"):
        training.load_model(folder)


def test_a_damaged_checkpoint_is_named(make_run, scored, split, tmp_path):
    folder = make_run(tmp_path / "run", epochs=1)
    scored(folder, [0.1])
    for name in ("last", "best"):
        (path,) = (folder.checkpoints / name).glob("*.data-*")
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"checkpoint .*best/ckpt-1 must be.*whole"):
        training.load_model(folder)
    with pytest.raises(InputError, match=r"checkpoint .*last/ckpt-1 must be.*whole"):
        training.train(folder, split, verbose=0)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, 2, 1], r"3 or more events.*to validate on\. Received: none among 3 users"),
        ([3, 3, 1], r"4 or more events.*to learn from.*Received: none among 3 users"),
    ],
)
def test_there_must_be_something_to_learn(lengths, message):
    users = [f"u{user}" for user, length in enumerate(lengths) for _ in range(length)]
    frame = pl.DataFrame(
        {"user_id": users, "item_id": users, "timestamp": range(len(users))}
    )
    sequences = data.build_sequences(data.events_from_frame(frame))
    with pytest.raises(InputError, match=message):
        training.check_split(data.leave_one_out(sequences))
