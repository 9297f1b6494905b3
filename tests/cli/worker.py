"""One worker of a run: the command line, killed in the middle if told so."""

from __future__ import annotations

import os
import signal
import sys

KILL_IN_EPOCH = int(os.environ.get("KILL_IN_EPOCH", "0"))


def kill_in_epoch(number):
    """Lets the callback that saves kill its process in the third step of an epoch."""
    from tfrs_selfattn.training import trainer

    class Killed(trainer.RunCheckpoint):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch + 1
            super().on_epoch_begin(epoch, logs)

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == number and batch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    trainer.RunCheckpoint = Killed


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if KILL_IN_EPOCH:
        kill_in_epoch(KILL_IN_EPOCH)
    from tfrs_selfattn.cli.main import main

    main(sys.argv[1:])
