"""What a computation needs of its copies on other devices, under `tf.distribute`.

A step of training runs once per replica, each on its part of the batch. These functions
are called inside of it; with one replica, or outside of a strategy, they do nothing.
"""

from __future__ import annotations

import tensorflow as tf


def num_replicas() -> int:
    """How many replicas run this computation, 1 outside of a strategy."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of what all replicas hand in, on each of them; no gradient flows back."""
    if num_replicas() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(value))


def others_of_all_replicas(values: tf.Tensor) -> tf.Tensor:
    """What the other replicas hand in, in their order: int `[o]` of int `[m]`.

    Each replica may hand in another number of values, or none.
    """
    if num_replicas() == 1:
        return values[:0]
    context = tf.distribute.get_replica_context()
    sizes = context.all_gather(tf.size(values)[tf.newaxis], axis=0)  # [R]
    everyone = context.all_gather(values, axis=0)
    mine = tf.cast(context.replica_id_in_sync_group, tf.int32)
    start = tf.reduce_sum(sizes[:mine])
    return tf.concat([everyone[:start], everyone[start + sizes[mine] :]], axis=0)


def share_of_mean(
    mean: tf.Tensor, targets: tf.Tensor, sample_weight: tf.Tensor | None
) -> tf.Tensor:
    r"""This replica's part of a mean over the batches of all replicas.

    With $w_r$ the weight of a replica's batch and $m_r$ its mean, that is
    $m_r w_r / \sum_s w_s$. The parts add up to the mean over the whole batch, and their
    gradients, which an optimizer adds up, to its gradient: it does not matter to how
    many replicas a batch was handed, nor in which parts.

    Args:
        mean: float32 scalar, over the queries of this replica.
        targets: int `[M]`, of these queries.
        sample_weight: float32 `[M]`, or None, which weighs each query 1.
    """
    if num_replicas() == 1:
        return mean
    if sample_weight is None:
        weight = tf.cast(tf.size(targets), tf.float32)
    else:
        weight = tf.reduce_sum(tf.cast(sample_weight, tf.float32))
    return mean * tf.math.divide_no_nan(weight, sum_over_replicas(weight))
