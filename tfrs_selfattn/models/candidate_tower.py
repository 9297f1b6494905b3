"""The candidate tower: an item in, one vector out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.models.content_embedding import embed, whole_table


@register
class CandidateTower(keras.Model):  # type: ignore[misc]
    """Embeds the items of the catalogue as the candidates of a two-tower model.

    Args:
        item_embedding: `Embedding` of N + 1 rows, where row 0 stands for padding, or
            `ContentEmbedding`. Hand it the query tower's own to share one table between
            history and candidates.
        normalize: bool. L2-normalize the candidates. Defaults to `False`.
        **kwargs: passed to `keras.Model` (`name`, …).

    Call arguments:
        items: int tensor of any shape, item indices.
        training: bool.

    Returns:
        float32 tensor of the shape of `items` with D appended.

    Serving: stock TF ops only.

    Example:

    >>> tower = CandidateTower(keras.layers.Embedding(100 + 1, 16))
    >>> tower(tf.constant([7, 9, 3])).shape
    TensorShape([3, 16])
    """

    def __init__(
        self, item_embedding: Any, *, normalize: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.item_embedding = item_embedding
        self.normalize = bool(normalize)

    @property
    def num_items(self) -> int:
        """N, the number of items without the padding row."""
        return int(self.item_embedding.input_dim) - 1

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "item_embedding": keras.saving.serialize_keras_object(self.item_embedding),
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CandidateTower:
        restore = keras.saving.deserialize_keras_object
        return cls(**{**config, "item_embedding": restore(config["item_embedding"])})

    def call(self, items: tf.Tensor, training: Any = None) -> tf.Tensor:
        return self.finish(embed(self.item_embedding, items, training))

    def catalogue(
        self, item_table: tf.Tensor | None = None, training: Any = None
    ) -> tf.Tensor:
        """All candidates: float32 `[N, D]`, row j for item index j + 1.

        Args:
            item_table: float `[N + 1, D]`, the vectors of all items where they are at
                hand already. None takes them from the embedding. Defaults to `None`.
            training: bool. Defaults to `None`.
        """
        if item_table is None:
            item_table = whole_table(self.item_embedding, training)
        return self.finish(item_table[1:])

    def finish(self, candidates: tf.Tensor) -> tf.Tensor:
        """Vectors of items `[…, D]` as candidates: float32, normalized if they are."""
        candidates = tf.cast(candidates, tf.float32)
        if self.normalize:
            candidates = tf.math.l2_normalize(candidates, axis=-1)
        return candidates
