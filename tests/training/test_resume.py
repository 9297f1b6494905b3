"""Killed at any moment and repeated, a run ends as if nothing had happened.

A kill leaves the folder as it is at that moment. So one run copies its folder at every
moment that matters, and each copy is then continued; one process is really killed.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import tensorflow as tf

from tfrs_selfattn import training
from tfrs_selfattn.training import run_folder

MOMENTS = {
    "before the first epoch ends": 0,
    "in the middle of epoch 2": 1,
    "before the best weights are saved": 1,
    "before the best weights count": 1,
    "before the newest states are saved": 1,
    "before the newest states count": 1,
    "before metrics.json is written": 2,
    "before metrics.json is replaced": 2,
    "when epoch 2 is complete": 2,
    "before the run is marked as finished": 3,
}


class Snapshots(tf.keras.callbacks.Callback):
    """Copies the folder of a run that trains, by the name of the moment."""

    def __init__(self, folder, target):
        super().__init__()
        self.folder, self.target = folder, target
        self.epoch = 0

    def take(self, moment):
        if moment in MOMENTS and not (self.target / moment).exists():
            shutil.copytree(self.folder.path, self.target / moment)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
        if self.epoch == 3:
            self.take("when epoch 2 is complete")

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and self.epoch == 1:
            self.take("before the first epoch ends")
        if batch == 3 and self.epoch == 2:
            self.take("in the middle of epoch 2")

    def on_train_end(self, logs=None):
        self.take("before the run is marked as finished")

    def around(self, function, moment):
        """`function`, but the folder is copied before it does something in epoch 2."""

        def wrapped(*arguments, **options):
            if self.epoch == 2:
                self.take(moment(*arguments))
            return function(*arguments, **options)

        return wrapped

    def around_save(self, save):
        def wrapped(manager, **options):
            folder = Path(manager.directory)
            before, after = (
                moment.format(
                    "best weights" if folder.name == "best" else "newest states"
                )
                for moment in ("before the {} are saved", "before the {} count")
            )
            if self.epoch == 2:
                self.take(before)
            saved = save(manager, **options)
            if self.epoch == 2:  # Files come first, then the one that names them.
                shutil.copytree(self.target / before, self.target / after)
                for path in folder.glob("ckpt-2.*"):
                    shutil.copy(path, self.target / after / "checkpoints" / folder.name)
            return saved

        return wrapped


@pytest.fixture(scope="module")
def uninterrupted(make_run, split, tmp_path_factory):
    """The run that nobody kills, and the folder with what a kill would have left."""
    # What is drawn for each step is drawn again: dropout, and what is cut.
    folder = make_run(tmp_path_factory.mktemp("runs") / "whole", cut_histories=0.3)
    snapshots = Snapshots(folder, tmp_path_factory.mktemp("snapshots"))
    with pytest.MonkeyPatch.context() as patch:
        save = snapshots.around_save(tf.train.CheckpointManager.save)
        patch.setattr(tf.train.CheckpointManager, "save", save)
        write = snapshots.around(
            training.RunFolder.write_metrics,
            lambda *_: "before metrics.json is written",
        )
        patch.setattr(training.RunFolder, "write_metrics", write)
        replace = snapshots.around(
            run_folder.os.replace, lambda *paths: f"before {paths[1].name} is replaced"
        )
        patch.setattr(run_folder.os, "replace", replace)
        result = training.train(folder, split, callbacks=[snapshots], verbose=0)
    assert (result.epochs, result.best_epoch, result.resumed_from) == (3, 3, 0)
    return folder, snapshots.target


@pytest.mark.parametrize(("moment", "epochs"), MOMENTS.items())
def test_killed(moment, epochs, uninterrupted, split, assert_same_run):
    whole, snapshots = uninterrupted
    folder = training.RunFolder.open(snapshots / moment)
    for name in ("last", "best"):  # where TensorFlow writes before it renames
        (folder.checkpoints / name / "ckpt-2_temp").mkdir(parents=True)
        (folder.checkpoints / name / "ckpt-2_temp" / "part-00000").touch()
    assert not folder.metrics().get("finished", False)
    result = training.train(folder, split, verbose=0)
    assert result.resumed_from == epochs
    assert_same_run(folder, whole)
    assert not list(folder.path.glob("*.part"))
    names = {path.stem for path in folder.checkpoints.rglob("ckpt-*")}
    assert names == {"ckpt-3"}


KILLED = """
import os, signal, sys
from pathlib import Path
import tensorflow as tf
from tfrs_selfattn import data, training

class Kill(tf.keras.callbacks.Callback):
    epoch = 0
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

log = data.generate_events(60, 20, 9.0, seed=1)
split = data.leave_one_out(data.build_sequences(data.events_from_frame(log)))
folder = training.RunFolder.open(Path(sys.argv[1]))
training.train(folder, split, callbacks=[Kill()], verbose=0)
"""


def test_really_killed_in_another_process(
    uninterrupted, make_run, split, assert_same_run, tmp_path, run_python
):
    folder = make_run(tmp_path / "run", cut_histories=0.3)
    done = run_python("-c", KILLED, str(folder.path))
    assert done.returncode == -signal.SIGKILL, done.stdout
    assert [epoch["epoch"] for epoch in folder.metrics()["epochs"]] == [1]
    assert training.train(folder, split, verbose=0).resumed_from == 1
    assert_same_run(folder, uninterrupted[0])


@pytest.mark.parametrize("options", [{"seed": 1}, {"cut_histories": 0.0}])
def test_seed_and_cuts_decide(uninterrupted, make_run, split, tmp_path, options):
    options = {"cut_histories": 0.3, **options}
    folder = make_run(tmp_path / "run", epochs=1, **options)
    training.train(folder, split, verbose=0)
    losses = [run.metrics()["epochs"][0]["loss"] for run in (folder, uninterrupted[0])]
    assert losses[0] != losses[1]
