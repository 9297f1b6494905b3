"""Trains runs on one and on two logical CPUs; prints how often it had to go on.

Logical devices can only be set before TensorFlow starts, hence a process of its own.
Takes a folder of runs that were made and not begun; what they learn stays in it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import tensorflow as tf

from tfrs_selfattn import data, training

# That of the fixture `split`.
LOG = data.generate_events(60, 20, 9.0, seed=1)


class StoppedError(Exception):
    """What ends a run in the middle of an epoch."""


class Stop(tf.keras.callbacks.Callback):
    """Ends a run in the middle of its second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 1:
            raise StoppedError


def main(runs):
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    split = data.leave_one_out(data.build_sequences(data.events_from_frame(LOG)))

    def train(name, strategy, callbacks=()):
        folder = training.RunFolder.open(runs / name)
        options = {"callbacks": callbacks, "verbose": 0, "strategy": strategy}
        return training.train(folder, split, **options).resumed_from

    went_on = {"alone": train("alone", None), "replicas": train("replicas", strategy)}
    try:
        train("resumed", strategy, [Stop()])
    except StoppedError:
        shutil.copytree(runs / "resumed", runs / "fewer")
        went_on["resumed"] = train("resumed", strategy)
        went_on["fewer"] = train("fewer", None)
    print(json.dumps(went_on))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
