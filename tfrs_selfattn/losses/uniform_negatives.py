"""Negatives that are all equally likely."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import register

# From one item in so many on, draws are kept from repeating each other.
_RARE = 20


@register
class UniformNegatives:
    """Draws negatives from all items alike.

    Where the negatives are a twentieth of the catalogue or more, no item is drawn
    twice for the same queries. Else repeats are rare, and left.

    Args:
        num_negatives: int, n. More than the catalogue has are cut to all of it.
            Defaults to `256`.

    Raises:
        ValueError: when `num_negatives` is not positive.
    """

    def __init__(self, num_negatives: int = 256) -> None:
        self.num_negatives = check_positive_int("num_negatives", num_negatives)

    def get_config(self) -> dict[str, Any]:
        return {"num_negatives": self.num_negatives}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> UniformNegatives:
        return cls(**config)

    def draw(
        self, num_groups: Any, num_items: int, seed: tf.Tensor, targets: tf.Tensor
    ) -> tf.Tensor:
        """int32 `[G, n]`, catalogue rows: n draws for each group."""
        num = min(self.num_negatives, num_items)
        if num == num_items:
            return tf.tile(tf.range(num_items)[tf.newaxis], [num_groups, 1])
        if num > 1 and num * _RARE >= num_items:
            keys = tf.random.stateless_uniform(
                [num_groups, num_items], seed, None, None, tf.int32, alg="philox"
            )
            return tf.math.top_k(keys, num, sorted=False).indices
        return tf.random.stateless_uniform(
            [num_groups, num], seed, 0, num_items, tf.int32, alg="philox"
        )

    def log_expected(
        self, items: tf.Tensor, num_items: int, num_drawn: tf.Tensor
    ) -> tf.Tensor:
        """float32, as `items`: log of how often n draws hold each on average."""
        share = tf.cast(num_drawn, tf.float32) / num_items
        return tf.fill(tf.shape(items), tf.math.log(share))
