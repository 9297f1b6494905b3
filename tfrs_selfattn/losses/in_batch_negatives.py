"""Negatives that are the targets of the other queries of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.losses._counts import (
    check_catalogue,
    check_counts,
    log_probabilities,
)
from tfrs_selfattn.ops.replicas import others_of_all_replicas


@register
class InBatchNegatives:
    """Takes the targets of the batch as negatives, for all queries of the batch.

    They come by popularity without being drawn, and their candidates are there
    already. A query's own target never counts against it. With
    `SampledSoftmax(correct_sampling=True)` popular items are not punished for that
    they are popular: an item counts as M draws of its share of `counts`.

    Args:
        counts: sequence of N ints, how often each item is a target in training, in
            the order of the catalogue (`Vocabulary.counts`). One of 0 counts as 1.
        num_negatives: int. At most so many of the targets, drawn without repeating a
            position. None takes them all. Defaults to `None`.
        across_replicas: bool. Under `tf.distribute`, take the targets of all replicas,
            as if one had the whole batch: item numbers are exchanged, no vectors.
            `False` takes those of the replica itself. Defaults to `True`.

    Raises:
        ValueError: when an argument is out of range.

    References:
        - [Yi et al., 2019](https://research.google/pubs/pub48840/), the correction.
    """

    def __init__(
        self,
        counts: Sequence[int],
        num_negatives: int | None = None,
        *,
        across_replicas: bool = True,
    ) -> None:
        self.across_replicas = bool(across_replicas)
        self.counts = check_counts(counts)
        self.num_negatives = (
            None
            if num_negatives is None
            else check_positive_int("num_negatives", num_negatives)
        )
        logs = log_probabilities(np.maximum(self.counts, 1).tolist(), 1.0)
        with tf.init_scope():  # captured by graphs, not written into them
            self._log_probabilities = tf.constant(logs, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "num_negatives": self.num_negatives,
            "across_replicas": self.across_replicas,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InBatchNegatives:
        return cls(**config)

    def draw(
        self, num_groups: Any, num_items: int, seed: tf.Tensor, targets: tf.Tensor
    ) -> tf.Tensor:
        """int32 `[1, n]`, catalogue rows: targets of the batch."""
        check_catalogue(self.counts, num_items)
        if self.across_replicas:
            targets = tf.concat([targets, others_of_all_replicas(targets)], axis=0)
        if self.num_negatives is not None:
            keys = tf.random.stateless_uniform(
                [tf.size(targets)], seed, None, None, tf.int32, alg="philox"
            )
            num = tf.minimum(self.num_negatives, tf.size(targets))
            targets = tf.gather(targets, tf.math.top_k(keys, num).indices)
        return targets[tf.newaxis]

    def log_expected(
        self, items: tf.Tensor, num_items: int, num_drawn: tf.Tensor
    ) -> tf.Tensor:
        """float32, as `items`: log of how often n targets hold each on average."""
        logs = tf.gather(self._log_probabilities, items)
        return logs + tf.math.log(tf.cast(num_drawn, tf.float32))
