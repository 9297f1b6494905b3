"""Items by their id and by what they are: the table behind both towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import check_fraction, check_not_negative, check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.features._vocabulary import bucket_of
from tfrs_selfattn.features.encoder import FeatureEncoder, SparseRows
from tfrs_selfattn.features.feature import Encoded
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.features.table import FeatureTable
from tfrs_selfattn.layers._base import SequenceLayer
from tfrs_selfattn.models.feature_projection import FeatureProjection
from tfrs_selfattn.ops.sparse_rows import Groups, make_groups, sum_rows

_STDDEV = 0.02


class ItemContent(NamedTuple):
    """What is known of the items of a vocabulary.

    Args:
        features: `FeatureSet`, fitted.
        rows: their values, encoded, item by item.
        ids: list of N item ids.
    """

    features: FeatureSet
    rows: SparseRows
    ids: Sequence[str]

    @classmethod
    def of(cls, features: FeatureSet, table: FeatureTable) -> ItemContent:
        """Encodes a table whose rows are in the order of the vocabulary.

        Args:
            features: `FeatureSet`, fitted.
            table: `FeatureTable`, as `align` gives it.
        """
        return cls(features, FeatureEncoder(features).rows(table.raw), table.ids)


@register
class ContentEmbedding(SequenceLayer):
    r"""An item's vector: one of its id, and the sum of those of its features.

    $v_i = b_i\, e_i + \sum_l w_{il}\, f_{t_{il}} + W^\top x_i$, where in training $b_i$
    is 0 for a share `id_dropout` of the items, drawn anew in every step, and else 1. An
    item whose id is dropped has to be found by its content, in histories and among
    candidates alike, which is what a new item needs.

    With `own_ids` only the first items, the most frequent, have a vector of their own
    id. The others share `oov_buckets` of them by the hash of the id, so that what is
    trained does not grow with the catalogue: $e_i = h_{\mathrm{hash}(i)}$ for $i >$
    `own_ids`.

    Takes the place of `keras.layers.Embedding` in `QueryTower` and `CandidateTower`.

    Args:
        num_items: int. N.
        output_dim: int. D.
        features: `FeatureSet`, fitted, or its configuration.
        sizes: (int, int). Tokens of all items, and runs of them with one weight; read
            off by `for_content`.
        id_dropout: float in [0, 1). Defaults to `0.0`.
        oov_buckets: int. Vectors for ids that are dropped, new, or none of `own_ids`,
            chosen by the hash of the id; 0 leaves such items to their content alone.
            Defaults to `0`.
        own_ids: int or None. So many items, those of the lowest indices, have a vector
            of their id; None for all. Defaults to `None`.
        seed: int or None. Of the ids that are dropped. Defaults to `None`.
        **kwargs: passed to `keras.layers.Layer` (`name`, …).

    Call arguments:
        indices: int `[…]`, item indices from 1, 0 = padding.
        training: bool.

    Returns:
        float `[…, D]`.

    Serving: stock TF ops only.

    References:
        - [Volkovs et al., 2017](https://papers.nips.cc/paper/7081), DropoutNet: ids
          dropped in training for items that have none in use.
        - [Weinberger et al., 2009](https://arxiv.org/abs/0902.2206), hashed features.
    """

    def __init__(
        self,
        num_items: int,
        output_dim: int,
        features: Any,
        sizes: Sequence[int],
        *,
        id_dropout: float = 0.0,
        oov_buckets: int = 0,
        own_ids: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.num_items = check_positive_int("num_items", num_items)
        self.output_dim = check_positive_int("output_dim", output_dim)
        self.projection = FeatureProjection(
            features, output_dim, name="content", dtype=self.sublayer_dtype()
        )
        self.sizes = tuple(int(size) for size in sizes)
        self.id_dropout = check_fraction("id_dropout", id_dropout)
        self.oov_buckets = int(check_not_negative("oov_buckets", oov_buckets))
        if own_ids is not None:
            own_ids = int(check_not_negative("own_ids", own_ids))
        self.own_ids = own_ids
        own = self.num_items if own_ids is None else min(own_ids, self.num_items)
        self._hashed_from = own + 1  # the first item without an id of its own

    @classmethod
    def for_content(
        cls, content: ItemContent, output_dim: int, **options: Any
    ) -> ContentEmbedding:
        """The layer for the items of a vocabulary, built.

        Args:
            content: `ItemContent`.
            output_dim: int. D.
            **options: as of the class.
        """
        rows = content.rows
        sums = np.repeat(np.arange(1, len(rows.splits)), np.diff(rows.splits))
        groups = make_groups(sums, rows.tokens, rows.weights)
        layer = cls(
            len(content.ids),
            output_dim,
            content.features,
            (len(groups.tokens), len(groups.weights)),
            **options,
        )
        layer.build(None)
        layer._set(groups, rows, content.ids)
        return layer

    @property
    def features(self) -> FeatureSet:
        """What items are known by beside their id."""
        features: FeatureSet = self.projection.features
        return features

    @property
    def input_dim(self) -> int:
        """N + 1, as an `Embedding` has it."""
        return self.num_items + 1

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_items": self.num_items,
            "output_dim": self.output_dim,
            "features": self.features.to_config(),
            "sizes": list(self.sizes),
            "id_dropout": self.id_dropout,
            "oov_buckets": self.oov_buckets,
            "own_ids": self.own_ids,
        }

    def build(self, input_shape: Any) -> None:
        normal = keras.initializers.RandomNormal
        rows, width = self.num_items + 1, self.output_dim
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self._hashed_from, width),
            initializer=normal(stddev=_STDDEV),
        )
        if self.oov_buckets:
            self.oov_table = self.add_weight(
                name="oov_table",
                shape=(self.oov_buckets, width),
                initializer=normal(stddev=_STDDEV),
            )
        self.build_sublayer(self.projection, None)
        if self.id_dropout:
            self.build_seed_state()

        def fixed(name: str, shape: tuple[int, ...], dtype: str) -> Any:
            return self.add_weight(
                name=name,
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
            )

        entries, runs = self.sizes
        self._groups = Groups(
            fixed("tokens", (entries,), "int32"),
            fixed("token_groups", (entries,), "int32"),
            fixed("group_items", (runs,), "int32"),
            fixed("group_weights", (runs,), "float32"),
            fixed("sorted_tokens", (entries,), "int32"),
            fixed("sorted_groups", (entries,), "int32"),
        )
        self._splits = fixed("token_splits", (rows + 1,), "int64")
        self._dense = fixed(
            "content_numbers", (rows, max(self.features.num_dense, 1)), "float32"
        )
        self._buckets = fixed("id_buckets", (rows,), "int32")
        super().build(input_shape)

    def _set(self, groups: Groups, rows: SparseRows, ids: Sequence[str]) -> None:
        """Puts the content of the items where the calls find it."""
        for weight, value in zip(self._groups, groups, strict=True):
            weight.assign(value)
        # Row 0 of everything is padding, of which nothing is known.
        self._splits.assign(np.concatenate([[0], rows.splits]))
        dense: npt.NDArray[np.float32] = np.zeros(self._dense.shape, np.float32)
        dense[1:, : rows.dense.shape[1]] = rows.dense
        self._dense.assign(dense)
        if self.oov_buckets:
            names = tf.constant(list(ids), tf.string)
            buckets = bucket_of(names, self.oov_buckets)
            self._buckets.assign(tf.pad(buckets, [[1, 0]]))

    def call(self, indices: tf.Tensor, training: Any = None) -> tf.Tensor:
        flat, places = tf.unique(tf.reshape(indices, [-1]))
        vectors = self._id_vectors(flat, self._dropped(training))
        vectors += self.projection(self._content_of(flat))
        shape = tf.concat([tf.shape(indices), [self.output_dim]], axis=0)
        return tf.reshape(tf.gather(vectors, places), shape)

    def table(self, training: Any = None) -> tf.Tensor:
        """The vectors of all items, float `[N + 1, D]`, row 0 for padding.

        Args:
            training: bool. Drop ids. Defaults to `None`.
        """
        ids = self.id_table(self._dropped(training))
        table = tf.convert_to_tensor(self.projection.table)
        groups = Groups(*map(tf.convert_to_tensor, self._groups))
        content = sum_rows(table, groups, self.num_items + 1)
        dense = self._dense[:, : self.features.num_dense]
        content += tf.cast(self.projection.project(dense), content.dtype)
        return ids + tf.cast(content, ids.dtype)

    def id_table(self, dropped: tf.Tensor | None = None) -> tf.Tensor:
        """What ids add to the vectors of all items, float `[N + 1, D]`.

        Args:
            dropped: bool `[N + 1]`. Ids to do without. Defaults to `None`, for none.
        """
        vectors = tf.cast(tf.convert_to_tensor(self.embeddings), self.compute_dtype)
        hashed = self._buckets[self._hashed_from :]
        if hashed.shape[0]:
            vectors = tf.concat([vectors, self._of_buckets(hashed)], axis=0)
        if dropped is None:
            return vectors
        return tf.where(
            dropped[:, tf.newaxis], self._of_buckets(self._buckets), vectors
        )

    def of_content(self, encoded: Encoded, names: tf.Tensor) -> tf.Tensor:
        """The vectors of items that were not trained: float `[n, D]`.

        Args:
            encoded: `Encoded`, of n items.
            names: string `[n]`, their ids.
        """
        vectors = self.projection(encoded)
        if self.oov_buckets:
            buckets = bucket_of(names, self.oov_buckets)
            vectors += tf.cast(self._of_buckets(buckets), vectors.dtype)
        return vectors

    def _id_vectors(self, items: tf.Tensor, dropped: tf.Tensor | None) -> tf.Tensor:
        """What ids add to the vectors of some items: float `[n, D]`."""
        own = tf.convert_to_tensor(self.embeddings)
        vectors = tf.gather(own, tf.minimum(items, self._hashed_from - 1))
        vectors = tf.cast(vectors, self.compute_dtype)
        hashed = None
        if self._hashed_from <= self.num_items:
            hashed = items >= self._hashed_from
        if dropped is not None:
            dropped = tf.gather(dropped, items)
            hashed = dropped if hashed is None else hashed | dropped
        if hashed is None:
            return vectors
        instead = self._of_buckets(tf.gather(self._buckets, items))
        return tf.where(hashed[:, tf.newaxis], instead, vectors)

    def _of_buckets(self, buckets: tf.Tensor) -> tf.Tensor:
        """The vectors that hashed ids share, `[n, D]`; zeros where there are none."""
        if self.oov_buckets:
            return tf.cast(tf.gather(self.oov_table, buckets), self.compute_dtype)
        return tf.zeros([tf.shape(buckets)[0], self.output_dim], self.compute_dtype)

    def _dropped(self, training: Any) -> tf.Tensor | None:
        """Which of the N + 1 ids this step does without; None for none."""
        if not training or not self.id_dropout:
            return None
        draws = tf.random.stateless_uniform([self.num_items + 1], self.next_seed())
        return draws < self.id_dropout

    def _content_of(self, items: tf.Tensor) -> Encoded:
        """The content of some items, padded."""
        splits = tf.convert_to_tensor(self._splits)
        first, stop = tf.gather(splits, items), tf.gather(splits, items + 1)
        entries = tf.ragged.range(first, stop).to_tensor(0)  # [n, L]
        real = tf.sequence_mask(stop - first, tf.shape(entries)[1], tf.float32)
        groups = self._groups
        weights = tf.gather(groups.weights, tf.gather(groups.groups, entries))
        dense = tf.gather(self._dense, items)[:, : self.features.num_dense]
        return Encoded(tf.gather(groups.tokens, entries), weights * real, dense)


def embed(embedding: Any, indices: tf.Tensor, training: Any) -> tf.Tensor:
    """The vectors of items by any embedding, one of Keras' too."""
    if isinstance(embedding, ContentEmbedding):
        return embedding(indices, training=training)
    return embedding(indices)


def whole_table(embedding: Any, training: Any = None) -> tf.Tensor:
    """The vectors of all items `[N + 1, D]` by any embedding.

    Reads the table as it stands, where a lookup of every index would copy it and return
    its gradient as so many loose rows.
    """
    if isinstance(embedding, ContentEmbedding):
        return embedding.table(training)
    if not embedding.built:
        embedding.build(None)
    return tf.convert_to_tensor(embedding.embeddings)
