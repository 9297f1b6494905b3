"""Runs every layer with dropout on two logical CPUs; prints what each replica saw.

Logical devices can only be set before TensorFlow starts, hence a process of its own.
"""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from tests.conformance.catalogue import ARGUMENTS, INPUTS, SPECS
from tests.weights import randomize, rewind, seed_states

STEPS = 2
# The other blocks are made of these.
NAMES = ("attention", "blockwise_attention", "feed_forward", "block_gated")
NAMES += ("hstu_block", "encoder")


def local_counters(strategy, state):
    """The counter behind dropout, as each replica has it."""
    value = getattr(state, "value", state)  # Keras 3 wraps it
    value = state if callable(value) else value
    return [int(local[1]) for local in strategy.experimental_local_results(value)]


def run(strategy, spec):
    with strategy.scope():
        layer = spec.build()
    randomize(layer)
    rewind(layer)
    tensors = {k: tf.constant(v) for k, v in spec.arguments().items()}
    inputs = tf.constant(INPUTS)

    def call():
        return spec.call(layer, inputs, **tensors, training=True)

    @tf.function
    def step():
        return strategy.run(call)

    steps = [
        [np.array(x).tolist() for x in strategy.experimental_local_results(step())]
        for _ in range(STEPS)
    ]
    counters = [local_counters(strategy, state) for state in seed_states(layer)]
    single = randomize(spec.build())
    rewind(single)
    alone = [
        np.array(spec.call(single, INPUTS, **ARGUMENTS, training=True)).tolist()
        for _ in range(STEPS)
    ]
    return {
        "steps": steps,
        "counters": counters,
        "alone": alone,
        "counters_alone": [int(np.array(state)[1]) for state in seed_states(single)],
    }


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({s.name: run(strategy, s) for s in SPECS if s.name in NAMES}))


if __name__ == "__main__":
    main()
