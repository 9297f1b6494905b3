"""Negatives by how often an item occurs."""

from __future__ import annotations

import math
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


@register
class PopularityNegatives:
    r"""Draws item i with probability $c_i^\alpha / \sum_j c_j^\alpha$, with repeats.

    Probabilities have no floor: an item of one in a billion is drawn, and corrected,
    as one in a billion.

    Args:
        counts: sequence of N ints, how often each item occurs in training, in the
            order of the catalogue (`Vocabulary.counts`). An item of 0 is never drawn.
        num_negatives: int, n. Defaults to `256`.
        exponent: float, $\alpha$. 0 is uniform over the items that occur; 1 follows
            their counts. Defaults to `0.75`.

    Raises:
        ValueError: when an argument is out of range.
    """

    def __init__(
        self,
        counts: Sequence[int],
        num_negatives: int = 256,
        *,
        exponent: float = 0.75,
    ) -> None:
        self.counts = check_counts(counts)
        self.num_negatives = check_positive_int("num_negatives", num_negatives)
        if not (isinstance(exponent, int | float) and 0.0 <= exponent < math.inf):
            raise ValueError(
                "`exponent` must be a finite number of at least 0. Received: "
                f"exponent={exponent!r}. 0.75 is usual."
            )
        self.exponent = float(exponent)
        logs = log_probabilities(self.counts, self.exponent)
        # Float64: the share of a rare item is below the resolution of float32.
        bounds = np.cumsum(np.exp(logs))
        with tf.init_scope():  # captured by graphs, not written into them
            self._log_probabilities = tf.constant(logs, tf.float32)
            self._bounds = tf.constant(bounds / bounds[-1], tf.float64)

    def get_config(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "num_negatives": self.num_negatives,
            "exponent": self.exponent,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PopularityNegatives:
        return cls(**config)

    def draw(
        self, num_groups: Any, num_items: int, seed: tf.Tensor, targets: tf.Tensor
    ) -> tf.Tensor:
        """int32 `[G, n]`, catalogue rows: n draws for each group."""
        check_catalogue(self.counts, num_items)
        shape = [num_groups, self.num_negatives]
        where = tf.random.stateless_uniform(shape, seed, dtype=tf.float64, alg="philox")
        flat = tf.searchsorted(self._bounds, tf.reshape(where, [-1]), side="right")
        return tf.reshape(flat, shape)

    def log_expected(
        self, items: tf.Tensor, num_items: int, num_drawn: tf.Tensor
    ) -> tf.Tensor:
        """float32, as `items`: log of how often n draws hold each on average."""
        logs = tf.gather(self._log_probabilities, items)
        return logs + tf.math.log(tf.cast(num_drawn, tf.float32))
