"""Runs every layer on two logical CPUs; prints what each replica saw.

Logical devices can only be set before TensorFlow starts, hence a process of its own.
"""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from tests.conformance.catalogue import ARGUMENTS, INPUTS, SPECS
from tests.weights import randomize, rewind, seed_states

STEPS = 2
# Those that draw; the other blocks are made of these.
NAMES = ("attention", "blockwise_attention", "feed_forward", "block_gated")
NAMES += ("hstu_block", "encoder")
# A step of these is taken by gradients too.
LEARNING = ("block_query", "encoder", "interests")


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


def alike(strategy, spec):
    """What both replicas and one alone give, without dropout."""
    with strategy.scope():
        layer = spec.build()
    randomize(layer)
    tensors = {k: tf.constant(v) for k, v in spec.arguments().items()}
    inputs = tf.constant(INPUTS)

    @tf.function
    def step():
        return strategy.run(lambda: spec.call(layer, inputs, **tensors))

    both = [np.array(x).tolist() for x in strategy.experimental_local_results(step())]
    alone = randomize(spec.build())
    return [*both, np.array(spec.call(alone, INPUTS, **ARGUMENTS)).tolist()]


def learned(strategy, spec):
    """Gradients of two replicas, of two users and of one, and those of one alone."""

    def squares(layer, inputs, arguments):
        outputs = spec.call(layer, inputs, **arguments)
        return tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2)

    def descend(layer, inputs, arguments, summed=lambda gradients: gradients):
        with tf.GradientTape() as tape:
            loss = squares(layer, inputs, arguments)
        gradients = tape.gradient(loss, layer.trainable_weights)
        return summed([tf.convert_to_tensor(each) for each in gradients])

    def parts(values):
        first, second = (tf.constant(values[part]) for part in (slice(2), slice(2, 3)))
        return strategy.experimental_distribute_values_from_function(
            lambda context: (first, second)[context.replica_id_in_sync_group]
        )

    with strategy.scope():
        layer = spec.build()
    randomize(layer)
    inputs = parts(INPUTS)
    arguments = {k: parts(v) for k, v in spec.arguments().items()}

    def summed(gradients):
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    @tf.function
    def step():
        return strategy.run(descend, (layer, inputs, arguments, summed))

    both = [strategy.experimental_local_results(each)[0] for each in step()]
    single = randomize(spec.build())
    alone = descend(single, tf.constant(INPUTS), spec.arguments())
    return [[np.array(x).tolist() for x in gradients] for gradients in (both, alone)]


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    seen = {
        "drawing": {s.name: run(strategy, s) for s in SPECS if s.name in NAMES},
        "alike": {s.name: alike(strategy, s) for s in SPECS},
        "learned": {s.name: learned(strategy, s) for s in SPECS if s.name in LEARNING},
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
