"""Runs a layer with dropout on two logical CPUs; prints what each replica saw.

Logical devices can only be set before TensorFlow starts, hence a process of its own.
"""

from __future__ import annotations

import json

import tensorflow as tf

from tfrs_selfattn.layers import FeedForward


def make():
    layer = FeedForward(16, dropout=0.5, seed=1)
    layer.build([2, 3, 4])
    for weight in layer.trainable_weights:
        weight.assign(tf.ones_like(tf.convert_to_tensor(weight)))
    return layer


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    inputs = tf.ones([2, 3, 4])
    with strategy.scope():
        layer = make()

    @tf.function
    def step():
        return strategy.run(lambda: layer(inputs, training=True))

    steps = [
        [
            replica.numpy().tolist()
            for replica in strategy.experimental_local_results(step())
        ]
        for _ in range(2)
    ]
    state = getattr(layer._seed_state, "value", layer._seed_state)  # Keras 3 wraps it
    state = layer._seed_state if callable(state) else state
    counters = [int(value[1]) for value in strategy.experimental_local_results(state)]
    single = make()
    alone = [single(inputs, training=True).numpy().tolist() for _ in range(2)]
    print(json.dumps({"steps": steps, "counters": counters, "alone": alone}))


if __name__ == "__main__":
    main()
