"""Items that an export knows by their features: the vectors that histories are made of.

A model of ids alone keeps its table inside the query tower. One that knows items by
their features has it outside, so that a refresh can add items: what a feature says of
an item was learned, whether the item was there or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.features.encoder import FeatureEncoder
from tfrs_selfattn.features.feature_set import FeatureSet

# From ids string [n] and raw values, in the order of the features, to the vectors of
# the items as candidates and in histories, both [n, D].
EmbedNew: TypeAlias = "Callable[..., tuple[tf.Tensor, tf.Tensor]]"
# The same of items that training has seen: from what their ids add to both vectors,
# float32 [n, D] each, and raw values.
EmbedKnown: TypeAlias = EmbedNew

_FILE = "id_vectors.npy"


class ItemSide(tf.Module):  # type: ignore[misc]
    """The items of histories, and functions that embed others, and these anew.

    Args:
        table: float32 `[M + 1, D]`, by tower index; row 0 for padding.
        embed_new: see `EmbedNew`.
        embed_known: see `EmbedKnown`; None in an export of an earlier version.
        id_vectors: float32 `[1, I + 1, D]`, by tower index, what an id adds to a vector
            among candidates and in histories, or `[2, I + 1, D]` where that differs.
            The I items that training has seen; later ones were added by refreshes.
        alive: what owns the variables of those functions.
    """

    def __init__(
        self,
        table: npt.NDArray[np.float32],
        embed_new: EmbedNew,
        embed_known: EmbedKnown | None = None,
        id_vectors: npt.NDArray[np.float32] | None = None,
        alive: Any = None,
    ) -> None:
        super().__init__(name="items")
        self.table = tf.Variable(table, trainable=False, name="item_table")
        self.embed_new: Any = embed_new
        self.embed_known: Any = embed_known
        # Out of sight: only the variables are to be saved, see `Signatures`. What ids
        # add stays out of a server's memory, in a file beside the SavedModel.
        self._alive: Any = lambda: alive
        self._id_vectors: Any = lambda: id_vectors

    @classmethod
    def loaded(cls, items: Any, folder: Path, alive: Any) -> ItemSide:
        """The items of an export.

        Args:
            items: what `tf.saved_model.load` made of this class.
            folder: where `write` wrote.
            alive: what else must stay.
        """
        path = folder / _FILE
        return cls(
            items.table.numpy(),
            items.embed_new,
            getattr(items, "embed_known", None),
            np.load(path, allow_pickle=False) if path.exists() else None,
            alive,
        )

    def write(self, folder: Path) -> None:
        """Writes what is needed to embed known items anew, if it is there."""
        if self._id_vectors() is not None:
            np.save(folder / _FILE, self._id_vectors())

    def can_embed(self, towers: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Whether `embed` can make the vectors of these items, bool `[n]`."""
        if self.embed_known is None or self._id_vectors() is None:
            return np.equal(towers, 0)
        return np.ones(len(towers), bool)

    def embed(
        self,
        names: Sequence[str],
        towers: npt.NDArray[np.int32],
        values: Sequence[tf.Tensor],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The vectors of items from their features, as candidates and in histories.

        What training has learned of an item's id stays a part of its vector.

        Args:
            names: list of n ids.
            towers: int32 `[n]`, their tower indices, 0 for an item without.
            values: raw values `[n]` or `[n, d]`, in the order of the features.
        """
        ids = self._id_vectors()
        trained = (towers > 0) & (towers < (0 if ids is None else ids.shape[1]))
        shape = (len(names), int(self.table.shape[1]))
        found: tuple[Any, Any] = np.zeros(shape, "f4"), np.zeros(shape, "f4")
        ways = ((trained, self.embed_known), (~trained, self.embed_new))
        for chosen, function in ways:
            rows = np.flatnonzero(chosen)
            if not len(rows):
                continue
            if chosen is trained:
                of_ids = [tf.constant(ids[part, towers[rows]]) for part in (0, -1)]
            else:
                of_ids = [tf.constant([names[row] for row in rows.tolist()])]
            with tf.device("/CPU:0"):
                made = function(*of_ids, *(tf.gather(each, rows) for each in values))
            for whole, part in zip(found, made, strict=True):
                whole[rows] = part.numpy()
        return found

    def with_vectors(
        self, towers: npt.NDArray[np.int32], vectors: npt.NDArray[np.float32]
    ) -> tuple[ItemSide, npt.NDArray[np.int32]]:
        """The same with other items in histories.

        Args:
            towers: int32 `[n]`, of which item each vector is; 0 for one that is not
                there yet, which comes after those that are.
            vectors: float32 `[n, D]`.

        Returns:
            The items, and the tower index of each, int32 `[n]`.
        """
        table, new = self.table.numpy(), towers == 0
        towers = towers.copy()
        towers[new] = len(table) + np.arange(int(new.sum()))
        table = np.concatenate([table, vectors[new]])
        table[towers[~new]] = vectors[~new]
        return self._like(table), towers

    def _like(self, table: npt.NDArray[np.float32]) -> ItemSide:
        return ItemSide(
            table,
            self.embed_new,
            self.embed_known,
            self._id_vectors(),
            self._alive(),
        )


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

    def embed_known(
        in_candidates: tf.Tensor, in_histories: tf.Tensor, *raw: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = encoder(dict(zip(features.names, raw, strict=True)))
        mine, theirs = (
            tf.cast(each.projection(encoded), tf.float32) for each in (others, items)
        )
        return model.candidate_tower.finish(in_candidates + mine), in_histories + theirs

    def traced(function: Any, *first: tf.TensorSpec) -> Any:
        signature = [*first, *specs(features, None).values()]
        return tf.function(
            function, input_signature=signature, autograph=False
        ).get_concrete_function()

    table = tf.cast(items.table(), tf.float32).numpy()
    of_ids = tf.TensorSpec([None, table.shape[1]], tf.float32)
    parts = [items] if items is others else [others, items]
    return ItemSide(
        table,
        traced(embed_new, tf.TensorSpec([None], tf.string, name="item")),
        traced(embed_known, of_ids, of_ids),
        np.stack([tf.cast(each.id_table(), tf.float32).numpy() for each in parts]),
        (encoder, model),
    )
