"""Short histories for training: rows are cut into pieces, others in every step.

Works on the batches of `training_dataset`, from memory as from shards, and needs
TensorFlow.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_fraction

_STREAM = 2  # a stream of random numbers of its own, beside those of the order


def cut_histories(
    dataset: tf.data.Dataset,
    share: float,
    *,
    seed: int,
    start_step: int = 0,
    worker: int = 0,
) -> tf.data.Dataset:
    """Cuts some histories of each batch into pieces, which are learned as if whole.

    A row of training asks what comes after each of its items, but a request asks after
    the newest item alone, and positions are counted from there: an item at the right
    end with little or nothing before it, which is what a user of few events asks with,
    is in next to no row. In a cut row the pieces are of one item or two as often as of
    ten or twenty. Every target stays, and sees what its piece has.

    In a share of the rows, drawn anew in each step, an item begins a piece with the
    probability $T^{-u}$, where u is drawn uniformly from [0, 1) for the row: the mean
    length of pieces is spread evenly over the orders of magnitude from 1 to T.

    Args:
        dataset: batches with `segment_ids` int `[b, T]`, as of `training_dataset`.
        share: float in [0, 1). Of the rows of a batch.
        seed: int. Of what is cut where.
        start_step: int. Steps that were left out of the dataset, so that a resumed run
            cuts as an uninterrupted one. Defaults to `0`.
        worker: int. Which of the workers this is, who each cut their own rows. Defaults
            to `0`.

    Returns:
        dataset of the same batches with other `segment_ids`.

    Raises:
        ValueError: when the share is out of range.

    Example:

    >>> rows = {"segment_ids": tf.constant([[1, 1, 1, 1, 2, 2, 0]])}
    >>> batches = tf.data.Dataset.from_tensors(rows).repeat(50)
    >>> cut = cut_histories(batches, 0.5, seed=0)
    >>> len({tuple(batch["segment_ids"].numpy()[0]) for batch in cut}) > 5
    True
    """
    share = check_fraction("share", share)
    if not share:
        return dataset

    def cut(step: tf.Tensor, batch: dict[str, Any]) -> dict[str, Any]:
        key = tf.stack([tf.cast(seed, tf.int64) + (_STREAM << 32), step])
        key += tf.constant([worker << 40, 0], tf.int64)
        return {**batch, "segment_ids": _cut(batch["segment_ids"], share, key)}

    return dataset.enumerate(start_step).map(
        cut, num_parallel_calls=2, deterministic=True
    )


def _cut(segments: tf.Tensor, share: float, key: tf.Tensor) -> tf.Tensor:
    """The numbers of the pieces, int `[b, T]`: 1, 2, … within a row, 0 = padding."""
    shape = tf.shape(segments)
    draws = tf.random.stateless_uniform([shape[0], shape[1] + 2], key, alg="philox")
    is_cut, exponent, each = draws[:, :1] < share, draws[:, 1:2], draws[:, 2:]
    rate = tf.pow(tf.cast(shape[1], tf.float32), -exponent)  # [b, 1]
    before = tf.pad(segments[:, :-1], [[0, 0], [1, 0]])
    begins = (segments != before) | (is_cut & (each < rate))
    real = segments > 0
    numbers = tf.cumsum(tf.cast(begins & real, segments.dtype), axis=1)
    return tf.where(real, numbers, 0)
