"""Items that an export knows by their features: the vectors that histories are made of.

A model of ids alone keeps its table inside the query tower. One that knows items by
their features has it outside, so that a refresh can add items: what a feature says of
an item was learned, whether the item was there or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.features.encoder import FeatureEncoder
from tfrs_selfattn.features.feature_set import FeatureSet

# From ids string [n] and raw values, in the order of the features, to the vectors of
# the items as candidates and in histories, both [n, D].
EmbedNew: TypeAlias = "Callable[..., tuple[tf.Tensor, tf.Tensor]]"


class ItemSide(tf.Module):  # type: ignore[misc]
    """The items of histories, and a function that embeds others.

    Args:
        table: float32 `[M + 1, D]`, by tower index; row 0 for padding.
        embed_new: see `EmbedNew`.
        alive: what owns the variables of that function.
    """

    def __init__(
        self,
        table: npt.NDArray[np.float32],
        embed_new: EmbedNew,
        alive: Any = None,
    ) -> None:
        super().__init__(name="items")
        self.table = tf.Variable(table, trainable=False, name="item_table")
        self.embed_new: Any = embed_new
        # Out of sight: only the variables are to be saved, see `Signatures`.
        self._alive: Any = lambda: alive

    def grown(self, vectors: npt.NDArray[np.float32]) -> ItemSide:
        """The same with more items, after those that are there."""
        table = np.concatenate([self.table.numpy(), vectors])
        return ItemSide(table, self.embed_new, self._alive())


def specs(features: FeatureSet, *leading: int | None) -> dict[str, tf.TensorSpec]:
    """Inputs of a signature: raw values by name of the feature."""
    return {
        each.name: tf.TensorSpec([*leading, *each.shape], each.dtype, name=each.name)
        for each in features
    }


def item_side_of(model: Any) -> ItemSide | None:
    """The items of a model in memory; None where it knows them by ids alone."""
    items: Any = getattr(model.query_tower, "item_embedding", None)
    others: Any = getattr(model.candidate_tower, "item_embedding", None)
    if not hasattr(items, "of_content") or not hasattr(others, "of_content"):
        return None
    features: FeatureSet = items.features
    encoder = FeatureEncoder(features)

    def embed_new(names: tf.Tensor, *raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = encoder(dict(zip(features.names, raw, strict=True)))
        candidates = model.candidate_tower.finish(others.of_content(encoded, names))
        return candidates, tf.cast(items.of_content(encoded, names), tf.float32)

    signature = [
        tf.TensorSpec([None], tf.string, name="item"),
        *specs(features, None).values(),
    ]
    traced = tf.function(embed_new, input_signature=signature, autograph=False)
    table = tf.cast(items.table(), tf.float32).numpy()
    return ItemSide(table, traced.get_concrete_function(), (encoder, model))
