"""Random orders that are computed place by place, in a TensorFlow graph.

Nothing is held but a seed, so any epoch starts anywhere at once.
"""

from __future__ import annotations

import tensorflow as tf

_ROUNDS = 16  # Of the cipher that shuffles.
_NO_BLOCK = -1  # In a seed, where the order of rows has the number of their block.


def shuffled(place: tf.Tensor, *, size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """What stands at `place` when 0 … size - 1, blocks or batches, are shuffled."""
    return _index_shuffle(
        place,
        tf.stack([tf.constant(seed, tf.int64), epoch, _NO_BLOCK]),
        tf.constant(size - 1, tf.int64),
    )


def rows_of_block(
    within: tf.Tensor,
    block: tf.Tensor,
    size: tf.Tensor,
    *,
    seed: int,
    epoch: tf.Tensor,
) -> tf.Tensor:
    """Which rows of their block come at these places in it; all int64 `[b]`."""
    seeds = [
        tf.fill(tf.shape(block), each) for each in (tf.cast(seed, tf.int64), epoch)
    ]
    return _index_shuffle(within, tf.stack([*seeds, block], axis=1), size - 1)


def _index_shuffle(place: tf.Tensor, seed: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """A permutation of 0 … last for each seed, int64 `[3]` or `[b, 3]`."""
    # Not `tf.random.experimental.index_shuffle`: it refuses a seed for each place, and
    # its 4 rounds leave neighbours of one epoch together in the next, once there are
    # tens of thousands. From 8 rounds on nothing of that is seen.
    return tf.raw_ops.RandomIndexShuffle(
        index=place, seed=seed, max_index=last, rounds=_ROUNDS
    )


def rows_at(
    places: tf.Tensor, *, num_rows: int, block: int, seed: int, epoch: tf.Tensor
) -> tf.Tensor:
    """Which rows come at these places of an epoch: int64 `[b]`.

    Args:
        places: int64 `[b]`, from 0 to `num_rows` - 1.
        num_rows: int. R.
        block: int. Rows in a block; the last one may be smaller.
        seed: int.
        epoch: int64 scalar.
    """
    num_blocks = -(-num_rows // block)
    numbers = tf.range(num_blocks, dtype=tf.int64)
    order = shuffled(numbers, size=num_blocks, seed=seed, epoch=epoch)
    sizes = tf.minimum(tf.constant(block, tf.int64), num_rows - order * block)
    stops = tf.cumsum(sizes)
    turn = tf.searchsorted(stops, places, side="right")
    chosen, size = tf.gather(order, turn), tf.gather(sizes, turn)
    within = places - (tf.gather(stops, turn) - size)
    inside = rows_of_block(within, chosen, size, seed=seed, epoch=epoch)
    return chosen * block + inside
