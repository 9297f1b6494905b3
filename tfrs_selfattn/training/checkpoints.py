"""Keeps the best epoch and everything needed to go on after a kill."""

from __future__ import annotations

import math
import time
from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.training.run_folder import RunFolder

MONITOR = "val_ndcg@10"


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number."""


class RunCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the state of a run after every epoch and stops it when it stops improving.

    `checkpoints/last` holds weights, optimizer, dropout counters, the epoch and the
    best value so far, so that a resumed run goes on exactly where it was.
    `checkpoints/best` holds the weights of the epoch with the best validation NDCG@10.
    A checkpoint counts only once it is complete (TensorFlow writes the state file
    last), so a kill at any moment costs at most one epoch.

    Args:
        folder: the run's folder.
        model: compiled `SequenceRetrieval`, built.
        patience: int. Epochs without improvement before training stops.
    """

    def __init__(self, folder: RunFolder, model: Any, *, patience: int) -> None:
        super().__init__()
        self._folder = folder
        self._patience = patience
        self._epochs_done = tf.Variable(0, dtype=tf.int64)
        self._best = tf.Variable(-1.0, dtype=tf.float64)
        self._best_epoch = tf.Variable(0, dtype=tf.int64)
        model.optimizer.build(model.trainable_variables)  # its slots are restored too
        state = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            epochs_done=self._epochs_done,
            best=self._best,
            best_epoch=self._best_epoch,
        )
        self._last = _manager(state, folder, "last")
        self._best_weights = _manager(tf.train.Checkpoint(model=model), folder, "best")
        self._epochs: list[dict[str, float]] = []
        self._started = 0.0

    @property
    def epochs_done(self) -> int:
        """Epochs that are complete."""
        return int(self._epochs_done)

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept; 0 before the first."""
        return int(self._best_epoch)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.epochs_done - self.best_epoch >= self._patience

    def restore(self) -> bool:
        """Goes back to the last complete epoch, if there is one."""
        if self._last.latest_checkpoint is None:
            return False
        # Expect partial: metrics of Keras that are made on first use.
        self._last.checkpoint.restore(self._last.latest_checkpoint).expect_partial()
        epochs = self._folder.metrics().get("epochs", [])
        self._epochs = epochs[: self.epochs_done]
        return True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(values["loss"]):
            raise TrainingDiverged(
                f"The loss of epoch {epoch + 1} is {values['loss']}, not a finite "
                "number. The best epoch so far is kept. Train again, into another "
                "--output, with a lower --learning-rate."
            )
        self._epochs_done.assign(epoch + 1)
        if values[MONITOR] > float(self._best):
            self._best.assign(values[MONITOR])
            self._best_epoch.assign(epoch + 1)
            self._best_weights.save(checkpoint_number=epoch + 1)
        seconds = round(time.perf_counter() - self._started, 3)
        self._epochs.append({"epoch": epoch + 1, **values, "seconds": seconds})
        self._last.save(checkpoint_number=epoch + 1)
        self.write_metrics(finished=False)
        if self.exhausted:
            self.model.stop_training = True

    def write_metrics(self, *, finished: bool) -> None:
        """Writes metrics.json, keeping what others have put there."""
        best = self._epochs[self.best_epoch - 1] if self.best_epoch else {}
        validation = {
            name.removeprefix("val_"): value
            for name, value in best.items()
            if name.startswith("val_")
        }
        self._folder.write_metrics(
            {
                **self._folder.metrics(),
                "finished": finished,
                "best_epoch": self.best_epoch,
                "validation": validation,
                "epochs": self._epochs,
            }
        )


def restore_best(folder: RunFolder, model: Any) -> bool:
    """Loads the weights of the best epoch into a built model, if there are any."""
    manager = _manager(tf.train.Checkpoint(model=model), folder, "best")
    if manager.latest_checkpoint is None:
        return False
    status = manager.checkpoint.restore(manager.latest_checkpoint)
    status.assert_existing_objects_matched().expect_partial()
    return True


def _manager(
    checkpoint: tf.train.Checkpoint, folder: RunFolder, name: str
) -> tf.train.CheckpointManager:
    path = str(folder.checkpoints / name)
    return tf.train.CheckpointManager(checkpoint, path, max_to_keep=1)
