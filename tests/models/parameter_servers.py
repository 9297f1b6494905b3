"""Trains with the item table on two parameter servers, or in one process.

    python -m tests.models.parameter_servers TASK ROWS CHECKPOINT

TASK is "ps" or "worker", which serve until they are ended, "chief", which trains with
them and writes the checkpoint, or "alone", which trains and then reads that checkpoint;
`TF_CONFIG` says where they are. ROWS are shards of rows. The chief and the one who is
alone print what came of it.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import tensorflow as tf

from tfrs_selfattn import data, losses
from tfrs_selfattn.models import presets

ITEMS, BATCH, EPOCHS = 23, 12, 2


def serve(task):
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    tf.distribute.Server(
        resolver.cluster_spec(), job_name=task, task_index=resolver.task_id
    ).join()


def build():
    tf.keras.utils.set_random_seed(1)
    loss = losses.SampledSoftmax(losses.UniformNegatives(8), seed=1)
    model = presets.sasrec(
        ITEMS,
        embedding_dim=8,
        num_blocks=1,
        max_length=11,
        dropout=0.0,
        loss=loss,
        seed=1,
    )
    model(tf.zeros([1, 1], tf.int32))
    # Other devices, other random numbers.
    draw = np.random.default_rng(0)
    start, table = 0, draw.normal(0, 0.02, [ITEMS + 1, 8])
    for part in parts(model):
        part.assign(table[start : start + part.shape[0]])
        start += part.shape[0]
    own = {part.ref() for part in parts(model)}
    for weight in model.trainable_variables:
        if weight.ref() not in own:
            weight.assign(draw.normal("gamma" in weight.name, 0.1, weight.shape))
    model.compile(tf.keras.optimizers.Adam(1e-2))
    return model


def parts(model):
    table = model.query_tower.item_embedding.embeddings
    return list(getattr(table, "variables", [table]))


def table_of(model):
    return np.concatenate([part.numpy() for part in parts(model)]).tolist()


def main(task, path, checkpoint):
    if task in ("ps", "worker"):
        serve(task)
    rows = data.read_shards(path)
    steps = data.steps_per_epoch(rows, BATCH)

    def batches(context=None):
        return data.training_dataset(rows, batch_size=BATCH, seed=0)

    if task == "alone":
        model, given = build(), batches()
    else:
        halves = tf.distribute.experimental.partitioners.MinSizePartitioner(
            min_shard_bytes=256, max_shards=2
        )
        strategy = tf.distribute.ParameterServerStrategy(
            tf.distribute.cluster_resolver.TFConfigClusterResolver(),
            variable_partitioner=halves,
        )
        with strategy.scope():
            model = build()
        given = tf.keras.utils.experimental.DatasetCreator(batches)
    fitted = model.fit(given, steps_per_epoch=steps, epochs=EPOCHS, verbose=0)
    seen = {
        "loss": fitted.history["loss"],
        "parts": [(part.shape.as_list(), part.device) for part in parts(model)],
        "table": table_of(model),
    }
    saved = tf.train.Checkpoint(model=model)
    if task == "alone":
        assert assign_zeros(model) != seen["table"]
        saved.read(checkpoint).assert_existing_objects_matched()
        seen["restored"] = table_of(model)
    else:
        saved.write(checkpoint)
    print(json.dumps(seen), flush=True)


def assign_zeros(model):
    for part in parts(model):
        part.assign(tf.zeros_like(part))
    return table_of(model)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main(*sys.argv[1:])
