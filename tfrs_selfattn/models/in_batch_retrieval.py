"""TFRS's own in-batch softmax as a loss of sequence models, with its traps closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._checks import check_positive, check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.losses._counts import (
    check_catalogue,
    check_counts,
    log_probabilities,
)
from tfrs_selfattn.losses.context import (
    CandidateLookup,
    LossContext,
    as_lookup,
    present_queries,
    weighted_mean,
)
from tfrs_selfattn.ops.negatives import among
from tfrs_selfattn.ops.replicas import others_of_all_replicas


@register
class InBatchRetrieval:
    r"""`tfrs.tasks.Retrieval` over the positions of a batch: targets are the negatives.

    For those who know the task and want what it does. Scores are a matrix `[M, M]`, so
    it is for batches of some thousand positions; `SampledSoftmax(InBatchNegatives(…))`
    is the same idea without the matrix, and merges targets that repeat.

    What the task leaves to its user is done here:

    - The correction $-\log p$ goes in as a column of the vectors, where the task's
      `candidate_sampling_probability` takes every p below 1e-6 for 1e-6.
    - Targets that equal the query's own are hidden, and so are other items of the
      query's own sequence.
    - The loss is a mean, where the task's own is a sum.
    - A query of weight 0 is absent: it is no negative of the others either.

    Args:
        counts: sequence of N ints, how often each item is a target in training, in
            the order of the catalogue (`Vocabulary.counts`). One of 0 counts as 1.
            None leaves popular items punished. Defaults to `None`.
        temperature: float above 0. Defaults to `1.0`.
        num_hard_negatives: int. The task's argument: only so many negatives count, the
            highest. None takes all. Defaults to `None`.
        mask_own_items: bool. Items of the query's own sequence, past and future, are
            no negatives of it. Defaults to `True`.
        across_replicas: bool. Under `tf.distribute`, the targets of all replicas are
            negatives, as if one had the whole batch: scores are `[M, M of all]`.
            `False` takes those of the replica itself. Defaults to `True`.

    Call arguments:
        queries: float `[M, D]`, or `[M, K, D]` for K interests, whose maximum counts.
        candidates: float `[N, D]` or `CandidateLookup`.
        targets: int `[M]`, the row of each query's positive among the candidates.
        sample_weight: float32 `[M]`, or None. A query of weight 0 counts as absent.
        context: `LossContext`, see `batch_context`. May be None with
            `mask_own_items=False`.

    Returns:
        float32 scalar, the weighted mean; 0 when all weights are 0 or M is 0.

    Raises:
        ValueError: when an argument is out of range, or the context is missing.

    Example:

    >>> loss = InBatchRetrieval(counts=[5, 3, 2], mask_own_items=False)
    >>> loss(tf.zeros([2, 4]), tf.zeros([3, 4]), tf.constant([0, 2])).shape
    TensorShape([])

    References:
        - [Yi et al., 2019](https://research.google/pubs/pub48840/), the correction.
    """

    def __init__(
        self,
        counts: Sequence[int] | None = None,
        *,
        temperature: float = 1.0,
        num_hard_negatives: int | None = None,
        mask_own_items: bool = True,
        across_replicas: bool = True,
    ) -> None:
        self.counts = None if counts is None else check_counts(counts)
        self.temperature = check_positive("temperature", temperature)
        self.num_hard_negatives = (
            None
            if num_hard_negatives is None
            else check_positive_int("num_hard_negatives", num_hard_negatives)
        )
        self.mask_own_items = bool(mask_own_items)
        self.across_replicas = bool(across_replicas)
        self._correction = None
        if self.counts is not None:
            logs = log_probabilities(np.maximum(self.counts, 1).tolist(), 1.0)
            with tf.init_scope():  # captured by graphs, not written into them
                self._correction = tf.constant(-logs[:, np.newaxis], tf.float32)
        self._task = tfrs.tasks.Retrieval(
            temperature=self.temperature,
            num_hard_negatives=self.num_hard_negatives,
            remove_accidental_hits=True,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "temperature": self.temperature,
            "num_hard_negatives": self.num_hard_negatives,
            "mask_own_items": self.mask_own_items,
            "across_replicas": self.across_replicas,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InBatchRetrieval:
        return cls(**config)

    def __call__(
        self,
        queries: tf.Tensor,
        candidates: tf.Tensor | CandidateLookup,
        targets: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
        *,
        context: LossContext | None = None,
    ) -> tf.Tensor:
        lookup = as_lookup(candidates)
        queries, targets = tf.convert_to_tensor(queries), tf.cast(targets, tf.int32)
        sequences = self._sequences(targets, context)
        weights, queries, targets, sequences = present_queries(
            sample_weight, queries, targets, sequences
        )
        queries = tf.cast(queries, tf.float32)  # half precision would overflow below
        others = (
            others_of_all_replicas(targets) if self.across_replicas else targets[:0]
        )
        # Column m is the positive of query m, which is where the task looks for it.
        columns = tf.concat([targets, others], axis=0)  # [C], C = M + those of others
        positives = tf.cast(lookup.embed(columns), tf.float32)  # [C, D]
        if self._correction is not None:
            check_catalogue(self.counts or (), lookup.num_candidates)
            # The task divides by the temperature what is not meant to be divided.
            column = self.temperature * tf.gather(self._correction, columns)
            positives = tf.concat([positives, column], axis=1)
            queries = tf.concat([queries, tf.ones_like(queries[..., :1])], axis=-1)
        num, num_columns = tf.size(targets), tf.size(columns)
        mask = tf.ones([num, num_columns], tf.bool)
        if self.mask_own_items and context is not None:
            items = tf.tile(columns[tf.newaxis], [num, 1])  # [M, C]
            mine = among(
                context.own_sequences,
                context.own_items,
                sequences,
                items,
                lookup.num_candidates,
            )
            mask = tf.logical_or(~mine, tf.eye(num, num_columns, dtype=tf.bool))
        # Two candidates more, which nobody sees: the task cannot do with fewer.
        total = self._task(
            queries,
            tf.pad(positives, [[0, 2], [0, 0]]),
            sample_weight=weights,
            candidate_ids=tf.pad(columns, [[0, 2]], constant_values=-1),
            compute_metrics=False,
            score_mask=tf.pad(mask, [[0, 0], [0, 2]]),
        )
        return weighted_mean(total, targets, weights)

    def _sequences(self, targets: tf.Tensor, context: LossContext | None) -> tf.Tensor:
        """The sequence of each query, else `ValueError`."""
        if context is not None:
            return context.sequences
        if self.mask_own_items:
            raise ValueError(
                "`context` of `InBatchRetrieval` must be given, to tell the user's "
                "own items. Received: context=None. Use batch_context(history, "
                "targets, segment_ids), or set mask_own_items=False."
            )
        return tf.zeros_like(targets)
