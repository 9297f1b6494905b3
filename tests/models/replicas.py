"""Trains on one and on two logical CPUs, and prints what each of them saw.

Logical devices can only be set before TensorFlow starts, hence a process of its own.
"""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from tests.models import two_towers
from tfrs_selfattn import data, losses, models
from tfrs_selfattn.data.packing import pack_rows
from tfrs_selfattn.models import presets

BATCH, LENGTH, EPOCHS = 12, 11, 2
LOG = data.generate_events(90, 23, 9.0, seed=1)
SPLIT = data.leave_one_out(data.build_sequences(data.events_from_frame(LOG)))
ROWS = pack_rows(SPLIT, row_length=LENGTH, times=True)
COUNTS = SPLIT.train_counts()[1:].tolist()
ITEMS = len(SPLIT.sequences.vocabulary)
# What is drawn is each replica's own, so all of it is drawn: nothing is left to chance.
ALL = losses.UniformNegatives(ITEMS)


def in_batch(**options):
    return losses.SampledSoftmax(losses.InBatchNegatives(COUNTS, **options), seed=1)


LOSSES = {
    "full_softmax": lambda: losses.FullSoftmax(),
    "in_batch_softmax": in_batch,
    "in_batch_of_its_own": lambda: in_batch(across_replicas=False),
    "in_batch_retrieval": lambda: models.InBatchRetrieval(COUNTS),
    "sampled_softmax": lambda: losses.SampledSoftmax(ALL, shared_by="row", seed=1),
    "gbce": lambda: losses.GBCE(ITEMS, seed=1),
    "bce": lambda: losses.BinaryCrossEntropy(ALL, shared_by="batch", seed=1),
    "hstu": lambda: losses.FullSoftmax(),
    # All items hidden, for the same reason: no draw of these is as high.
    "bert4rec": lambda: losses.MaskedItems(rate=1 - 1e-7, newest_only=0.0, seed=1),
}
# How many rows of a batch the first replica gets: half of it, nearly all, or all.
FIRST = {"full_softmax": (BATCH // 2, BATCH - 1, BATCH)}


def build(loss, name="full_softmax"):
    tf.keras.utils.set_random_seed(1)
    model = presets.build(
        name if name in ("hstu", "bert4rec") else "sasrec",
        ITEMS,
        embedding_dim=8,
        num_blocks=1,
        max_length=LENGTH,
        dropout=0.0,
        seed=1,
        loss=loss,
    )
    items = model.query_tower.item_embedding
    items.embeddings_regularizer = tf.keras.regularizers.L2(1e-2)
    return model


def batch_of(start):
    rows = {
        name: column[start : start + BATCH] for name, column in ROWS.features.items()
    }
    weights = np.random.default_rng(start).choice(
        [0.0, 0.5, 2.0], rows["targets"].shape
    )
    return {**rows, "sample_weight": weights.astype("float32")}


def dense(gradient):
    return tf.convert_to_tensor(gradient)


def loss_and_gradients(model, inputs):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(inputs, training=True)
    weights = model.trainable_variables
    return [loss, *(dense(each) for each in tape.gradient(loss, weights))]


def on_replicas(strategy, model, inputs, first):
    """What the replicas saw, added up as an optimizer adds up gradients."""
    cuts = (slice(0, first), slice(first, BATCH))

    def part(context):
        cut = cuts[context.replica_id_in_sync_group]
        return {name: tf.constant(column[cut]) for name, column in inputs.items()}

    parts = strategy.experimental_distribute_values_from_function(part)
    seen = strategy.run(lambda rows: loss_and_gradients(model, rows), [parts])
    return [strategy.reduce("SUM", each, axis=None) for each in seen]


def numbers(tensors):
    return [np.asarray(tensor).tolist() for tensor in tensors]


def compare(strategy, name):
    make, firsts = LOSSES[name], FIRST.get(name, (BATCH - 1,))
    alone = build(make(), name)
    inputs = batch_of(0)
    whole = {name: tf.constant(column) for name, column in inputs.items()}
    expected = loss_and_gradients(alone, whole)
    with strategy.scope():
        model = build(make(), name)
        model.compute_loss(whole)  # creates the weights
        model.set_weights(alone.get_weights())
    return {
        "alone": numbers(expected),
        "replicas": [
            numbers(on_replicas(strategy, model, inputs, first)) for first in firsts
        ],
    }


def fit(model):
    """Trains and evaluates by Keras; every epoch ends in a batch of few rows."""
    model.compile(tf.keras.optimizers.SGD(0.5))
    steps = data.steps_per_epoch(ROWS, BATCH)
    history = model.fit(
        data.training_dataset(ROWS, batch_size=BATCH, seed=0),
        steps_per_epoch=steps,
        epochs=EPOCHS,
        verbose=0,
    )
    cases = data.evaluation_dataset(SPLIT.validation, batch_size=17)
    return {
        "loss": history.history["loss"],
        "weights": numbers(model.get_weights()),
        "metrics": model.evaluate(cases, verbose=0, return_dict=True),
    }


def corpus_top_k(strategy):
    """Figures of a user's own model before training, and after two epochs of it."""
    rows = two_towers.batches()
    random = np.random.default_rng(0)
    with strategy.scope():
        model = two_towers.TwoTowers(two_towers.with_corpus_top_k)
        model.compute_loss(next(iter(rows)), training=True)  # creates the weights
        for weight in model.trainable_weights:
            weight.assign(random.normal(0, 0.05, weight.shape))
        model.compile(tf.keras.optimizers.SGD(0.05))
    before = model.evaluate(rows, return_dict=True, verbose=0)
    model.fit(rows, epochs=2, verbose=0)
    after = model.evaluate(rows, return_dict=True, verbose=0)
    return [
        {name: value for name, value in figures.items() if "top_" in name}
        for figures in (before, after)
    ]


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    seen = {name: compare(strategy, name) for name in LOSSES}
    with strategy.scope():
        model = build(losses.FullSoftmax())
    seen["fit"] = {"alone": fit(build(losses.FullSoftmax())), "replicas": fit(model)}
    alone = tf.distribute.get_strategy()
    seen["corpus_top_k"] = {
        "alone": corpus_top_k(alone),
        "replicas": corpus_top_k(strategy),
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
