"""What losses that draw negatives need to know beside queries and targets.

A next-item loss is called in one of two ways, and its signature says in which:

- `loss(queries, candidates, targets, sample_weight)` gets the whole catalogue as a
  tensor `[N, D]`. Any function will do, `FullSoftmax` is one.
- A loss with an argument `context`, `loss(queries, candidates, targets, sample_weight,
  context=…)`, gets a `CandidateLookup` in place of the tensor and a `LossContext`. It
  embeds the candidates that it needs, so that the others get no gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class CandidateLookup(NamedTuple):
    """The candidates as a function, for losses that need only some of them.

    Attributes:
        embed: function from int `[U]`, rows of the catalogue, to float `[U, D]`.
        num_candidates: int, N.
        embed_all: function without arguments to float `[N, D]`, where there is a
            cheaper way than `embed` of all rows. Defaults to `None`.
    """

    embed: Callable[[tf.Tensor], tf.Tensor]
    num_candidates: int
    embed_all: Callable[[], tf.Tensor] | None = None

    def catalogue(self) -> tf.Tensor:
        """All candidates, float `[N, D]`."""
        if self.embed_all is not None:
            return self.embed_all()
        return self.embed(tf.range(self.num_candidates))


class LossContext(NamedTuple):
    """Where each query comes from, and which items its user has.

    Sequences number the users (or windows of users) of a batch; rows, the lines of the
    batch, which hold several sequences each when they are packed.

    Attributes:
        sequences: int32 `[M]`. The sequence of each query, from 0.
        rows: int32 `[M]`. The line of the batch that each query stands in, from 0.
        own_sequences: int32 `[P]`, and
        own_items: int32 `[P]`: pairs of a sequence and a catalogue row that it holds.
    """

    sequences: tf.Tensor
    rows: tf.Tensor
    own_sequences: tf.Tensor
    own_items: tf.Tensor


def batch_context(
    history: tf.Tensor,
    targets: tf.Tensor,
    segment_ids: tf.Tensor | None = None,
) -> LossContext:
    """The context of a batch of training rows, packed or padded.

    Args:
        history: int `[B, T]`, item indices; those below 1 stand for no item.
        targets: int `[B, T]`, item indices, 0 = no query. The queries of the loss are
            the positions with a target, row after row, as `tf.where(targets > 0)`
            lists them.
        segment_ids: int `[B, T]` of packed rows, 1, 2, … in each row and 0 = padding.
            None: one sequence a row.

    Returns:
        `LossContext`; item indices become catalogue rows, index - 1.

    Example:

    >>> context = batch_context([[1, 2, 5]], [[2, 0, 6]], [[1, 1, 2]])
    >>> context.sequences.numpy(), context.own_items.numpy()
    (array([0, 1], dtype=int32), array([0, 1, 4, 1, 5], dtype=int32))
    """
    history = tf.cast(history, tf.int32)
    targets = tf.cast(targets, tf.int32)
    if segment_ids is None:
        segment_ids = tf.ones_like(history)
    segments = tf.cast(segment_ids, tf.int32)
    # The sequences of a row are numbered after those of the rows before it.
    last = tf.reduce_max(segments, axis=1, keepdims=True)
    numbers = segments - 1 + tf.cumsum(last, axis=0, exclusive=True)
    learn, real = tf.where(targets > 0), tf.where(history > 0)
    sequences = tf.gather_nd(numbers, learn)
    items = [tf.gather_nd(history, real), tf.gather_nd(targets, learn)]
    return LossContext(
        sequences=sequences,
        rows=tf.cast(learn[:, 0], tf.int32),
        own_sequences=tf.concat([tf.gather_nd(numbers, real), sequences], axis=0),
        own_items=tf.concat(items, axis=0) - 1,
    )


def as_lookup(candidates: tf.Tensor | CandidateLookup) -> CandidateLookup:
    """Candidates as a lookup; those of a tensor `[N, D]` are its rows."""
    if isinstance(candidates, CandidateLookup):
        return candidates
    table = tf.convert_to_tensor(candidates)
    if table.shape[0] is None:
        raise ValueError(
            "`candidates` must be a tensor [N, D] with N known, or a CandidateLookup. "
            f"Received: shape={tuple(table.shape)}. Negatives are drawn from N items: "
            "use CandidateLookup(embed, num_candidates)."
        )
    return CandidateLookup(lambda rows: tf.gather(table, rows), table.shape[0])


def takes_context(loss: Any) -> bool:
    """Whether a loss has an argument `context`; see the module."""
    return "context" in inspect.signature(loss).parameters


def weighted_mean(
    total: tf.Tensor, targets: tf.Tensor, sample_weight: tf.Tensor | None
) -> tf.Tensor:
    """A weighted sum of losses as their mean; 0 when nothing weighs anything."""
    if sample_weight is None:
        weight = tf.cast(tf.size(targets), tf.float32)
    else:
        weight = tf.reduce_sum(sample_weight)
    return tf.math.divide_no_nan(total, weight)


def present_queries(
    sample_weight: tf.Tensor | None, *tensors: tf.Tensor
) -> tuple[Any, ...]:
    """Weights and tensors of the queries that weigh something.

    Leaving the others out, where multiplying by 0 would also do, makes them absent to
    the last bit: they are no negatives of others, and NaN in them goes nowhere.
    """
    if sample_weight is None:
        return (None, *tensors)
    sample_weight = tf.cast(sample_weight, tf.float32)
    kept = tf.where(sample_weight != 0.0)[:, 0]
    return tuple(tf.gather(tensor, kept) for tensor in (sample_weight, *tensors))
