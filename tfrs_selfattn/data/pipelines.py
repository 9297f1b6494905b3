"""TensorFlow datasets over packed rows and held-out cases.

The only module of this package that needs TensorFlow. The order of training batches
depends on the seed and the epoch alone, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.data.packing import PackedRows
from tfrs_selfattn.data.splits import EvaluationSet


def steps_per_epoch(rows: PackedRows, batch_size: int) -> int:
    """Returns the batches of one epoch, the last of which may be smaller."""
    return -(-len(rows) // check_positive_int("batch_size", batch_size))


def training_dataset(
    rows: PackedRows, *, batch_size: int, seed: int, start_epoch: int = 0
) -> tf.data.Dataset:
    """Makes an endless dataset of shuffled training batches.

    Every epoch shows each row once, in `steps_per_epoch` batches; no batch mixes two
    epochs. The dataset from `start_epoch` on equals the rest of the whole dataset.

    Args:
        rows: R rows of T slots.
        batch_size: int. Rows in a batch, b.
        seed: int. Which of the possible orders.
        start_epoch: int. Epochs to leave out. Defaults to `0`.

    Returns:
        dataset of `{"history", "targets", "segment_ids"}`, each int32 `[b, T]`.
    """
    steps = steps_per_epoch(rows, batch_size)
    num_rows = len(rows)
    # Variables, because a tf.data graph copies constants several times over; and no
    # generator, because a Python thread that prefetches can hang a process that ends.
    with tf.device("/CPU:0"):
        columns = {
            "history": tf.Variable(rows.items, trainable=False),
            "targets": tf.Variable(rows.targets, trainable=False),
            "segment_ids": tf.Variable(rows.segment_ids, trainable=False),
        }

    def batch(number: tf.Tensor) -> dict[str, tf.Tensor]:
        epoch, step = number // steps, number % steps
        start = step * batch_size
        chosen = tf.random.experimental.index_shuffle(
            tf.range(start, tf.minimum(start + batch_size, num_rows)),
            # A function of seed and epoch: there is no state to save and restore.
            seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
            max_index=tf.constant(num_rows - 1, tf.int64),
        )
        return {name: tf.gather(column, chosen) for name, column in columns.items()}

    numbers = tf.data.Dataset.counter(start_epoch * steps)
    return numbers.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def evaluation_dataset(cases: EvaluationSet, *, batch_size: int) -> tf.data.Dataset:
    """Makes a dataset of held-out cases, in their order.

    Args:
        cases: C cases.
        batch_size: int. Cases in a batch, b; the last batch may be smaller.

    Returns:
        dataset of `{"history": int32 [b, longest], "target": int32 [b]}`, whole
        histories padded on the left to the longest of the batch.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    starts = range(0, len(cases), batch_size)

    def batches() -> Iterator[dict[str, npt.NDArray[np.int32]]]:
        for start in starts:
            stop = min(start + batch_size, len(cases))
            yield {
                "history": cases.padded_histories(start, stop),
                "target": cases.targets[start:stop],
            }

    signature = {
        "history": tf.TensorSpec([None, None], tf.int32),
        "target": tf.TensorSpec([None], tf.int32),
    }
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(starts)))
