"""One worker of a run: the command line, watched, and killed in the middle if told so.

`KILL_IN_EPOCH` is the number of an epoch. Into the file `TARGETS` goes a line an epoch,
how many targets all workers have trained.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

KILL_IN_EPOCH = int(os.environ.get("KILL_IN_EPOCH", "0"))
TARGETS = os.environ.get("TARGETS")


def watch():
    """Lets the callback that saves do what the environment says."""
    from tfrs_selfattn.training import trainer

    class Watched(trainer.RunCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch + 1
            super().on_epoch_begin(epoch, logs)

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == KILL_IN_EPOCH and batch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_test_begin(self, logs=None):
            # Before the validation sets it back: the weight of the mean loss, which all
            # workers add up together.
            (mean,) = (each for each in self.model.metrics if each.name == "loss")
            count = int(mean.count.numpy())
            if TARGETS:
                with Path(TARGETS).open("a") as file:
                    file.write(f"{count}\n")

    trainer.RunCheckpoint = Watched


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    watch()
    from tfrs_selfattn.cli.main import main

    main(sys.argv[1:])
