"""TensorFlow datasets over training rows and held-out cases.

With `_shuffling.py` and `cutting.py` all of this package that needs TensorFlow. The
order of training batches depends on the seed and the epoch alone, so a resumed run sees
what it would have seen, from memory as from shards: rows lie in blocks, which are the
shards on disk; an epoch takes the blocks in random order and the rows of each block in
random order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn.data._shuffling import rows_at, rows_of_block, shuffled
from tfrs_selfattn.data.bucketing import BucketedRows
from tfrs_selfattn.data.packing import PackedRows
from tfrs_selfattn.data.shards import ShardedRows
from tfrs_selfattn.data.side import EVENT, PARTS, grouped, of_cases
from tfrs_selfattn.data.splits import EvaluationSet

_READERS = 2  # Shards that are read at a time, and so held in memory.


def steps_per_epoch(
    rows: PackedRows | BucketedRows | ShardedRows,
    batch_size: int,
    *,
    num_workers: int = 1,
) -> int:
    """Returns the batches of one epoch, of which the last, or a bucket's, is smaller.

    Args:
        rows: training rows.
        batch_size: int. As of `training_dataset`.
        num_workers: int. As of `training_dataset`. Defaults to `1`.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    if isinstance(rows, BucketedRows):
        return sum(
            -(-len(bucket) // size)
            for bucket, size in zip(
                rows.buckets, _bucket_batches(rows, batch_size), strict=True
            )
        )
    if isinstance(rows, ShardedRows) and num_workers > 1:
        # As many as the worker with the most rows needs.
        own = [
            sum(rows.shard_rows[worker::num_workers]) for worker in range(num_workers)
        ]
        return -(-max(own) // _own_batch(rows, batch_size, num_workers))
    return -(-len(rows) // batch_size)


def training_dataset(
    rows: PackedRows | BucketedRows | ShardedRows,
    *,
    batch_size: int,
    seed: int,
    start_epoch: int = 0,
    shuffle_block: int | None = None,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Makes an endless dataset of shuffled training batches.

    Every epoch shows each row once, in `steps_per_epoch` batches; no batch mixes two
    epochs. The dataset from `start_epoch` on equals the rest of the whole dataset.

    Of several workers each gets its part of every batch, and all of them together show
    each row once. Rows in memory are cut after they are shuffled, so that the workers'
    parts make up the batch of a single one. Shards are dealt out, shard i to worker i
    modulo their number: a worker opens no file of another, and one whose rows run out
    first ends the epoch on empty batches.

    Args:
        rows: R rows of T slots, in memory or in shards; or of several widths, of which
            a batch has one.
        batch_size: int. Rows of T slots in a batch, b. Of narrower rows a batch holds
            more, about as many slots.
        seed: int. Which of the possible orders.
        start_epoch: int. Epochs to leave out. Defaults to `0`.
        shuffle_block: int or None. Rows in memory are shuffled in blocks of so many,
            and the blocks among themselves, which is how shards are read. None shuffles
            all rows as one block. Defaults to `None`.
        worker: int. Which of the workers this is, from 0. Defaults to `0`.
        num_workers: int. With shards, a divisor of `batch_size`, and no more than
            shards. Defaults to `1`.

    Returns:
        dataset of `{"history", "targets", "segment_ids"}`, each int32 `[b, T]`, and
        where the rows have times `{"timestamps", "request_times"}`, int64 `[b, T]`,
        where they have features `{"query_features", "event_features"}`, each (tokens
        int32 `[b, T, L]`, weights float32 `[b, T, L]`, numbers float32 `[b, T, F]`).
    """
    steps = steps_per_epoch(rows, batch_size, num_workers=num_workers)
    if isinstance(rows, ShardedRows):
        return _streamed(
            rows,
            batch_size=_own_batch(rows, batch_size, num_workers),
            seed=seed,
            start_epoch=start_epoch,
            steps=steps,
            worker=worker,
            num_workers=num_workers,
        )
    if isinstance(rows, BucketedRows):
        batch = _bucketed(rows, batch_size=batch_size, seed=seed, steps=steps)
    else:
        block = shuffle_block or len(rows)
        block = check_positive_int("shuffle_block", block)
        batch = _batches_of(rows, batch_size=batch_size, seed=seed, block=block)
    numbers = tf.data.Dataset.counter(start_epoch * steps)
    part = (worker, num_workers)
    return numbers.map(
        lambda number: grouped(batch(number // steps, number % steps, part)),
        num_parallel_calls=2,
        deterministic=True,
    ).prefetch(2)


def rows_of_step(
    rows: PackedRows, *, batch_size: int, seed: int, epoch: int, step: int
) -> npt.NDArray[np.int64]:
    """Which rows make up a batch of `training_dataset`, over all workers: int64 `[b]`.

    Args:
        rows: training rows in memory, shuffled as one block.
        batch_size: int. As of `training_dataset`.
        seed: int. As of `training_dataset`.
        epoch: int, from 0.
        step: int, from 0.
    """
    start = step * batch_size
    places = tf.range(start, min(start + batch_size, len(rows)), dtype=tf.int64)
    chosen: npt.NDArray[np.int64] = rows_at(
        places,
        num_rows=len(rows),
        block=len(rows),
        seed=seed,
        epoch=tf.constant(epoch, tf.int64),
    ).numpy()
    return chosen


def evaluation_dataset(
    cases: EvaluationSet,
    *,
    batch_size: int,
    times: bool = False,
    worker: int = 0,
    num_workers: int = 1,
) -> tf.data.Dataset:
    """Makes a dataset of held-out cases, in their order.

    Of several workers each gets its part of every batch, which may be empty.

    Args:
        cases: C cases.
        batch_size: int. Cases in a batch, b; the last batch may be smaller.
        times: bool. Also give the times that a time-aware model needs. Defaults to
            `False`.
        worker: int. Which of the workers this is, from 0. Defaults to `0`.
        num_workers: int. Defaults to `1`.

    Returns:
        dataset of `{"history": int32 [b, longest], "target": int32 [b]}`, whole
        histories padded on the left to the longest of the batch; with `times` also
        `{"timestamps": int64 [b, longest], "request_time": int64 [b]}`, Unix seconds;
        where the log has features also `query_features` of `[b]` and `event_features`
        of `[b, longest]`, as in `training_dataset`.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    starts = range(0, len(cases), batch_size)

    def batches() -> Iterator[dict[str, Any]]:
        for start in starts:
            size = min(batch_size, len(cases) - start)
            first = start + size * worker // num_workers
            stop = start + size * (worker + 1) // num_workers
            batch: dict[str, Any] = {
                "history": cases.padded_histories(first, stop),
                "target": cases.targets[first:stop],
            }
            if times:
                batch["timestamps"] = cases.padded_timestamps(first, stop)
                batch["request_time"] = cases.request_times[first:stop]
            yield {**batch, **of_cases(cases, first, stop)}

    signature: dict[str, Any] = {
        "history": tf.TensorSpec([None, None], tf.int32),
        "target": tf.TensorSpec([None], tf.int32),
    }
    if times:
        signature["timestamps"] = tf.TensorSpec([None, None], tf.int64)
        signature["request_time"] = tf.TensorSpec([None], tf.int64)
    for name, table in cases.sequences.sides.items():
        lead = [None, None] if name == EVENT else [None]
        kinds = zip(PARTS, (tf.int32, tf.float32, tf.float32), strict=True)
        signature[name] = tuple(
            tf.TensorSpec([*lead, table.widths[part]], kind) for part, kind in kinds
        )
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(starts)))


def _batches_of(rows: PackedRows, *, batch_size: int, seed: int, block: int) -> Any:
    """A function from (epoch, step) to a batch of rows that are in memory."""
    num_rows = len(rows)
    # Variables, because a tf.data graph copies constants several times over; and no
    # generator, because a Python thread that prefetches can hang a process that ends.
    with tf.device("/CPU:0"):
        columns = {
            name: tf.Variable(column, trainable=False)
            for name, column in rows.features.items()
        }

    def batch(
        epoch: tf.Tensor, step: tf.Tensor, part: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        start = step * batch_size
        size = tf.minimum(start + batch_size, num_rows) - start
        worker, num_workers = part
        places = tf.range(
            start + size * worker // num_workers,
            start + size * (worker + 1) // num_workers,
        )
        chosen = rows_at(places, num_rows=num_rows, block=block, seed=seed, epoch=epoch)
        return {name: tf.gather(column, chosen) for name, column in columns.items()}

    return batch


def _bucketed(rows: BucketedRows, *, batch_size: int, seed: int, steps: int) -> Any:
    """A function from (epoch, step) to a batch of one of the buckets."""
    sizes = _bucket_batches(rows, batch_size)
    batches = [
        _batches_of(bucket, batch_size=size, seed=seed + number, block=len(bucket))
        for number, (bucket, size) in enumerate(zip(rows.buckets, sizes, strict=True))
    ]
    bucket_steps = [
        -(-len(bucket) // size)
        for bucket, size in zip(rows.buckets, sizes, strict=True)
    ]
    stops = np.cumsum(bucket_steps)

    def batch(
        epoch: tf.Tensor, step: tf.Tensor, part: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        step = shuffled(step, size=steps, seed=seed, epoch=epoch)
        bucket = tf.searchsorted(stops, step[tf.newaxis], side="right")[0]
        within = step - tf.gather(stops - bucket_steps, bucket)
        chosen: dict[str, tf.Tensor] = tf.switch_case(
            bucket, [lambda make=make: make(epoch, within, part) for make in batches]
        )
        return chosen

    return batch


def _bucket_batches(rows: BucketedRows, batch_size: int) -> list[int]:
    """Rows in a batch of each bucket: about as many slots as in one of the widest."""
    slots = batch_size * rows.row_length
    return [max(1, slots // bucket.row_length) for bucket in rows.buckets]


def _own_batch(rows: ShardedRows, batch_size: int, num_workers: int) -> int:
    """Rows in a batch of one worker that reads shards, else `InputError`."""
    if len(rows.shard_rows) < num_workers:
        raise InputError(
            "Each worker needs a shard of its own. Received: "
            f"{len(rows.shard_rows)} shards in {rows.path} for {num_workers} workers. "
            "Write them with a smaller `rows_per_shard`, or use fewer workers."
        )
    if batch_size % num_workers:
        raise InputError(
            "`batch_size` must be a multiple of the number of workers, who each read "
            f"their part from shards. Received: batch_size={batch_size} for "
            f"{num_workers} workers. Choose a multiple."
        )
    return batch_size // num_workers


def _streamed(
    rows: ShardedRows,
    *,
    batch_size: int,
    seed: int,
    start_epoch: int,
    steps: int,
    worker: int,
    num_workers: int,
) -> tf.data.Dataset:
    """Makes what `training_dataset` makes, reading one shard after the other.

    At any time a few shards are in memory, never all. A row that was damaged on disk
    ends the iteration with TensorFlow's `DataLossError`.
    """
    # Users are dealt to prepared shards by a hash: of few users some may get none.
    filled = [
        at
        for at in range(worker, len(rows.shard_rows), num_workers)
        if rows.shard_rows[at]
    ]
    paths = tf.constant([str(rows.paths[at]) for at in filled], tf.string)
    sizes = tf.constant([rows.shard_rows[at] for at in filled], tf.int64)
    num_shards = len(filled)
    own_rows = sum(rows.shard_rows[at] for at in filled)
    missing_steps = steps - -(-own_rows // batch_size)

    def read(epoch: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
        """The records of the shard whose turn it is, shuffled: string `[n]`."""
        shard = shuffled(turn, size=num_shards, seed=seed, epoch=epoch)
        size = tf.gather(sizes, shard)
        records = tf.data.TFRecordDataset(tf.gather(paths, shard))
        whole = records.batch(rows.rows_per_shard).get_single_element()
        within = tf.range(size)
        order = rows_of_block(
            within,
            tf.fill(tf.shape(within), shard * num_workers + worker),
            tf.fill(tf.shape(within), size),
            seed=seed,
            epoch=epoch,
        )
        return tf.gather(whole, order)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        turns = tf.data.Dataset.range(num_shards)
        shards = turns.map(
            lambda turn: read(epoch, turn),
            num_parallel_calls=_READERS,
            deterministic=True,
        )
        batches = shards.rebatch(batch_size)
        if missing_steps == 0:
            return batches
        nothing = tf.data.Dataset.from_tensors(tf.constant([], tf.string))
        return batches.concatenate(nothing.repeat(missing_steps))

    batches = tf.data.Dataset.counter(start_epoch).flat_map(one_epoch)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return (
        batches.map(
            lambda records: grouped(_decode(rows, records)),
            num_parallel_calls=2,
            deterministic=True,
        )
        .apply(endless)
        .prefetch(2)
    )


def _decode(rows: ShardedRows, records: tf.Tensor) -> dict[str, tf.Tensor]:
    """The columns of records, string `[b]`: each `[b, T]`."""
    length = rows.row_length
    words = tf.io.decode_raw(records, tf.int32, little_endian=True)
    shapes = {
        name: [length] if name not in rows.widths else [length, rows.widths[name]]
        for name in rows.columns
    }
    # How many words a value takes: 2 for what has 64 bits.
    per_value = {
        name: tf.as_dtype(dtype).size // 4 for name, dtype in rows.columns.items()
    }
    sizes = {name: per_value[name] * math.prod(shapes[name]) for name in shapes}
    # Of no records TensorFlow cannot tell how long they are.
    words = tf.reshape(words, [tf.size(records), sum(sizes.values())])  # [b, words]
    batch, first = {}, 0
    for name, dtype in rows.columns.items():
        shape, size = shapes[name], sizes[name]
        column = words[:, first : first + size]
        column = tf.reshape(
            column, [tf.shape(words)[0], *shape, *([2] if per_value[name] == 2 else [])]
        )
        batch[name] = tf.ensure_shape(tf.bitcast(column, dtype), [None, *shape])
        first += size
    return batch
