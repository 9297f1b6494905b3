"""The candidate tower: an item in, one vector out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import keras, register


@register
class CandidateTower(keras.Model):  # type: ignore[misc]
    """Embeds the items of the catalogue as the candidates of a two-tower model.

    Args:
        item_embedding: `Embedding` of N + 1 rows, where row 0 stands for padding. Hand
            it the query tower's own to share one table between history and candidates.
        normalize: bool. L2-normalize the candidates. Defaults to `False`.
        **kwargs: passed to `keras.Model` (`name`, …).

    Call arguments:
        items: int tensor of any shape, item indices.

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

    def call(self, items: tf.Tensor) -> tf.Tensor:
        return self._finish(self.item_embedding(items))

    def catalogue(self) -> tf.Tensor:
        """All candidates: float32 `[N, D]`, row j for item index j + 1.

        Reads the table as it stands, where a lookup of every index would copy it and
        return its gradient as so many loose rows.
        """
        if not self.item_embedding.built:
            self.item_embedding.build(None)
        table = tf.convert_to_tensor(self.item_embedding.embeddings)
        return self._finish(table[1:])

    def _finish(self, candidates: tf.Tensor) -> tf.Tensor:
        candidates = tf.cast(candidates, tf.float32)
        if self.normalize:
            candidates = tf.math.l2_normalize(candidates, axis=-1)
        return candidates
