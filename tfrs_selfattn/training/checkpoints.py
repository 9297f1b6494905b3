"""Keeps the best epoch and everything needed to go on after a kill."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn._keras import keras, require_legacy_keras
from tfrs_selfattn.training.averages import Averages
from tfrs_selfattn.training.run_folder import RunFolder

require_legacy_keras("tfrs_selfattn.training")

MONITOR = "val_ndcg@10"
SPEED = "items/s"


class RunCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the state of a run after every epoch and stops it when it stops improving.

    `checkpoints/last` holds weights, optimizer, dropout counters and what came out of
    every epoch, so that a resumed run goes on exactly where it was. `checkpoints/best`
    holds the weights of the epoch with the best validation NDCG@10; where the optimizer
    averages them, the averages, which are also what is validated. A checkpoint counts
    only once it is complete (TensorFlow writes the state file last), so a kill at any
    moment costs at most one epoch. metrics.json is a copy for people to read.

    Args:
        folder: the run's folder.
        model: compiled `SequenceRetrieval`, built like its optimizer, whose slots are
            restored too.
        patience: int. Epochs without improvement before training stops.
        writes: bool. Whether this is the process that writes into the folder. The
            others save too, elsewhere: what replicas have in common is gathered from
            all of them. Defaults to `True`.
    """

    def __init__(
        self, folder: RunFolder, model: Any, *, patience: int, writes: bool = True
    ) -> None:
        super().__init__()
        self._writes = writes
        self._folder = folder
        self._patience = patience
        self._epochs: list[dict[str, float]] = []
        self._history = tf.Variable("[]", dtype=tf.string)  # the same, as JSON
        # A compiled model holds its optimizer.
        state = tf.train.Checkpoint(model=model, history=self._history)
        weights = _weights(model)
        self._last = _manager(state, folder.checkpoints / "last")
        self._best_weights = _manager(weights, folder.checkpoints / "best")
        self._save_last, self._save_best = self._last, self._best_weights
        if not writes:
            self._elsewhere = tempfile.TemporaryDirectory()  # goes with this object
            elsewhere = Path(self._elsewhere.name)
            self._save_last = _manager(state, elsewhere / "last")
            self._save_best = _manager(weights, elsewhere / "best")
        self._started = 0.0
        self._averages = Averages(model)

    @property
    def epochs_done(self) -> int:
        """Epochs that are complete."""
        return len(self._epochs)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept; 0 before the first."""
        scores = [epoch[MONITOR] for epoch in self._epochs]
        return scores.index(max(scores)) + 1 if scores else 0

    @property
    def first_loss(self) -> float | None:
        """Mean loss of the first epoch; None before it is complete."""
        return self._epochs[0].get("loss") if self._epochs else None

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.epochs_done - self.best_epoch >= self._patience

    def restore(self) -> None:
        """Goes back to the last complete epoch, if there is one."""
        for manager in (self._last, self._best_weights) if self._writes else ():
            _remove_incomplete(manager)
        if _restore(self._last):
            self._epochs = json.loads(self._history.numpy())

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._averages.put()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        seconds = round(time.perf_counter() - self._started, 3)
        self._epochs.append({"epoch": epoch + 1, **values, "seconds": seconds})
        self._history.assign(json.dumps(self._epochs))
        if self.best_epoch == epoch + 1:
            self._save_best.save(checkpoint_number=epoch + 1)
        self._averages.take_back()
        self._save_last.save(checkpoint_number=epoch + 1)
        self.write_metrics(finished=False)
        if self.exhausted:
            self.model.stop_training = True

    def write_metrics(self, *, finished: bool) -> None:
        """Writes metrics.json, keeping what others have noted about the best epoch."""
        if not self._writes:
            return
        best = self._epochs[self.best_epoch - 1] if self._epochs else {}
        validation = {
            name.removeprefix("val_"): value
            for name, value in best.items()
            if name.startswith("val_")
        }
        noted = self._folder.metrics()
        if noted.get("best_epoch") != self.best_epoch:
            noted = {}
        self._folder.write_metrics(
            {
                **noted,
                "finished": finished,
                "best_epoch": self.best_epoch,
                "validation": validation,
                "epochs": self._epochs,
            }
        )


class TrainingSpeed(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds real items a second to the log of an epoch, its validation left out.

    Args:
        items: int. Real items of one epoch, padding not counted.
    """

    def __init__(self, items: int) -> None:
        super().__init__()
        self._items = items
        self._started = self._seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._seconds = time.perf_counter() - self._started

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[SPEED] = round(self._items / self._seconds)


def restore_best(folder: RunFolder, model: Any) -> bool:
    """Loads the weights of the best epoch into a built model, if there are any."""
    return _restore(_manager(_weights(model), folder.checkpoints / "best"))


def _weights(model: Any) -> tf.train.Checkpoint:
    """The weights alone, a third of the state of a model with its optimizer."""
    return tf.train.Checkpoint(
        query_tower=model.query_tower, candidate_tower=model.candidate_tower
    )


def _manager(checkpoint: tf.train.Checkpoint, path: Path) -> tf.train.CheckpointManager:
    return tf.train.CheckpointManager(checkpoint, str(path), max_to_keep=1)


def _remove_incomplete(manager: tf.train.CheckpointManager) -> None:
    """Removes what a kill left of checkpoints that never counted, or no longer do."""
    complete = Path(manager.latest_checkpoint or "").name
    for path in Path(manager.directory).glob("ckpt-*"):
        if path.stem != complete:  # "ckpt-3" of "ckpt-3.index"
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _restore(manager: tf.train.CheckpointManager) -> bool:
    """Restores the newest complete checkpoint; False when there is none."""
    newest = manager.latest_checkpoint
    if newest is None:
        return False
    try:
        status = manager.checkpoint.restore(newest)
        # Partial: what Keras makes on first use, its metrics say, is not there yet.
        status.assert_existing_objects_matched().expect_partial()
    except Exception as error:  # Damage shows as almost any error of TensorFlow's.
        raise InputError(
            f"The checkpoint {newest} must be one that this version of tfrs_selfattn "
            f"wrote, whole. It cannot be used ({str(error).splitlines()[0]}). Restore "
            "the folder, or train again into another one."
        ) from error
    return True
