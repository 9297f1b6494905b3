"""The query tower: a user's history in, one vector out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.features.feature import Encoded
from tfrs_selfattn.layers._base import has_newest
from tfrs_selfattn.layers.pooling import SequencePooling
from tfrs_selfattn.models._inputs import check_ids, check_times, needs_times
from tfrs_selfattn.models.content_embedding import embed
from tfrs_selfattn.models.query_features import given, moved, nothing_known
from tfrs_selfattn.ops.masks import align_right

_STDDEV = 0.02


@register
class QueryTower(keras.Model):  # type: ignore[misc]
    """Encodes a user's sequence of items as the query of a two-tower model.

    The same items give the same vector however they arrive: padded on either side or
    in between, in a wider batch, or behind older items than `max_length` reaches. The
    tower first moves the newest real items to the right end of the row. It derives the
    mask from the ids themselves, so that no layer in between can lose it: the item
    embedding needs no `mask_zero`.

    When a layer of the encoder is biased by time (`needs_times`), the tower is
    `time_aware`: it needs the time of every item and the time of the request, which
    is all that is known about what comes next. Times are int64 Unix seconds and may be
    negative, 0, equal, out of order or in the future: only differences count, an item
    from after the request as one from as long before it.

    Args:
        item_embedding: `Embedding` of N + 1 rows, where row 0 stands for padding, or
            `ContentEmbedding`.
        encoder: layer from float `[B, T, D]` to `[B, T, D]`, usually
            `tfrs_selfattn.layers.SequenceEncoder`.
        pooling: layer from `[B, T, D]` to `[B, D]`, or to `[B, K, D]` for several
            interests a user. None takes `SequencePooling("newest")`. Defaults to
            `None`.
        max_length: int. Items of a history that are used, the newest. Defaults to
            `200`.
        normalize: bool. L2-normalize the query. Defaults to `False`.
        query_token: bool. Put a learned vector, in place of an item, behind the newest
            item; the query is what the encoder makes of it. For encoders that are not
            causal and learn from hidden items (BERT4Rec). Not for time-aware ones.
            Defaults to `False`.
        query_projection: `FeatureProjection` of what is known of the user and of the
            request, whose vector is added to the query; or None. Defaults to `None`.
        event_projection: `FeatureProjection` of what is known of an event, whose vector
            is added to its item's; or None. Defaults to `None`.
        **kwargs: passed to `keras.Model` (`name`, …).

    Call arguments:
        history: int `[B, T]` item indices, oldest first, 0 = padding; or a RaggedTensor
            of them, then times too.
        training: bool.
        timestamps: int64 `[B, T]`, Unix seconds of the items, for a time-aware tower;
            others ignore it.
        request_time: int64 `[B]`, Unix seconds of the moment to recommend for, for a
            time-aware tower; others ignore it.
        item_table: float `[M, D]`, vectors of items by index in place of the
            embedding's: those computed before, or of more items than were trained.
        query_features: `Encoded` of `[B]`, for a tower with `query_projection`.
        event_features: `Encoded` of `[B, T]`, for a tower with `event_projection`. What
            it says of padding does not matter.

    Returns:
        float32 `[B, D]`, or `[B, K, D]`. A history without a real item gives zeros, or
        what the query's features add to them.

    Raises:
        ValueError: when `max_length` is not positive, ids are not an integer `[B, T]`,
            times are missing for a time-aware tower or do not fit the ids.

    Serving: stock TF ops only; T may be dynamic.

    Example:

    >>> embedding = keras.layers.Embedding(100 + 1, 16)
    >>> block = TransformerBlock(MultiHeadSelfAttention(1, 16), FeedForward(64))
    >>> tower = QueryTower(embedding, SequenceEncoder([block]))
    >>> tower(tf.constant([[0, 7, 9], [3, 0, 0]])).shape
    TensorShape([2, 16])
    """

    def __init__(
        self,
        item_embedding: Any,
        encoder: Any,
        *,
        pooling: Any = None,
        max_length: int = 200,
        normalize: bool = False,
        query_token: bool = False,
        query_projection: Any = None,
        event_projection: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.item_embedding = item_embedding
        self.encoder = encoder
        self.pooling = SequencePooling() if pooling is None else pooling
        self.max_length = check_positive_int("max_length", max_length)
        self.normalize = bool(normalize)
        self.query_token = bool(query_token)
        self.query_projection = query_projection
        self.event_projection = event_projection
        self.time_aware = needs_times(encoder)
        if self.query_token and self.time_aware:
            raise ValueError(
                "`query_token` must be False for a time-aware encoder: the token has "
                f"no time. Received: query_token={query_token}. Leave out the time "
                "biases, or the token."
            )
        self._token = None
        if self.query_token:
            self._token = self.add_weight(
                name="query_token",
                shape=(item_embedding.output_dim,),
                initializer=keras.initializers.RandomNormal(stddev=_STDDEV),
            )

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "item_embedding": serialize(self.item_embedding),
            "encoder": serialize(self.encoder),
            "pooling": serialize(self.pooling),
            "max_length": self.max_length,
            "normalize": self.normalize,
            "query_token": self.query_token,
            "query_projection": serialize(self.query_projection),
            "event_projection": serialize(self.event_projection),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QueryTower:
        restore = keras.saving.deserialize_keras_object
        parts = {
            part: restore(config[part])
            for part in (
                "item_embedding",
                "encoder",
                "pooling",
                "query_projection",
                "event_projection",
            )
            if config.get(part) is not None
        }
        return cls(**{**config, **parts})

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a reloaded tower; Keras would call it on floats, which are no ids."""
        times = tf.zeros([1, 1], tf.int64)
        history = tf.zeros([1, 1], tf.int32)
        self(
            history,
            timestamps=times,
            request_time=times[0],
            **nothing_known(self, history),
        )

    def call(
        self,
        history: tf.Tensor,
        training: Any = None,
        timestamps: tf.Tensor | None = None,
        request_time: tf.Tensor | None = None,
        item_table: tf.Tensor | None = None,
        query_features: Encoded | None = None,
        event_features: Encoded | None = None,
    ) -> tf.Tensor:
        history, times, places = self._aligned(history, timestamps, request_time)
        if self.event_projection is not None:
            event_features = moved(given("event_features", event_features), places)
        items = self._vectors(history, item_table, event_features, training)
        return self.query_of(items, history, query_features, training=training, **times)

    def aligned(
        self,
        history: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_time: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The newest real items at the right end of each row, as the tower reads them.

        Args:
            history: as in a call, like all that follow.
            timestamps: int64 `[B, T]`.
            request_time: int64 `[B]`.

        Returns:
            int `[B, T']` with T' of at most `max_length`, and for a time-aware tower
            `timestamps` and `request_times`, int64 `[B, T']`, else nothing.
        """
        history, times, _ = self._aligned(history, timestamps, request_time)
        return history, times

    def _aligned(
        self,
        history: tf.Tensor,
        timestamps: tf.Tensor | None,
        request_time: tf.Tensor | None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor | None]:
        """`aligned`, and where each position was, for a tower with event features."""
        history = check_ids(history)
        times, moving = {}, []
        if self.time_aware:
            timestamps = check_times("timestamps", timestamps, history.shape)
            request_time = check_times("request_time", request_time, history.shape[:1])
            moving.append(timestamps)
        if self.event_projection is not None:
            places = tf.range(tf.shape(history)[1])
            moving.append(tf.broadcast_to(places, tf.shape(history)))
        history, *moved = align_right(history, self.max_length, *moving)
        if self.time_aware:
            timestamps = moved.pop(0)
            # The items stand side by side now: the next one's time asks for it.
            asked = tf.concat([timestamps[:, 1:], tf.expand_dims(request_time, 1)], 1)
            times = {"timestamps": timestamps, "request_times": asked}
        return history, times, moved[0] if moved else None

    def query_of(
        self,
        items: tf.Tensor,
        history: tf.Tensor,
        query_features: Encoded | None = None,
        *,
        training: Any = None,
        **times: tf.Tensor,
    ) -> tf.Tensor:
        """The queries of histories whose items are given as vectors.

        For looking at how the query depends on each of them.

        Args:
            items: float `[B, T', D]`, in place of the embeddings of `history`.
            history: int `[B, T']`, as `aligned` returns it. Says what is padding.
            query_features: as of a call.
            training: bool. Defaults to `None`.
            **times: as `aligned` returns them.

        Returns:
            As a call.
        """
        items, real = self._with_token(items, history != 0)
        if not training and self._reads_the_newest_alone():
            # Aligned, the newest item is the last one, unless there is none.
            newest = self.encoder.newest(items, real, **times)[:, 0]
            newest = tf.where(real[:, -1:], newest, 0.0)
            return self._finish(newest, query_features)
        states = self.encoder(items, mask=real, training=training, **times)
        return self._finish(self.pooling(states, mask=real), query_features)

    def attention_scores(
        self,
        history: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_time: tf.Tensor | None = None,
    ) -> list[tf.Tensor]:
        """The attention weights behind a query, of an encoder that has such.

        Args:
            history: as in a call, like all that follow.
            timestamps: int64 `[B, T]`.
            request_time: int64 `[B]`.

        Returns:
            A float `[B, H, T', T']` for each block, over the history as `aligned`
            returns it; with `query_token` there is one more position, its own, last.
        """
        history, times = self.aligned(history, timestamps, request_time)
        items, real = self._with_token(
            self._vectors(history, None, None, False), history != 0
        )
        _, scores = self.encoder(
            items, mask=real, training=False, return_attention_scores=True, **times
        )
        return list(scores)

    def _with_token(
        self, items: tf.Tensor, real: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Items and mask, with the token behind the newest one if there is a token."""
        if self.query_token:
            # A user without an item has no token either, hence the zero vector.
            known = tf.reduce_any(real, axis=1, keepdims=True)
            token = tf.broadcast_to(self._token_of(items), tf.shape(items[:, :1]))
            items = tf.concat([items, token], axis=1)
            real = tf.concat([real, known], axis=1)
        return items, real

    def _reads_the_newest_alone(self) -> bool:
        """Whether the encoder can leave out all but what this pooling looks at."""
        pools = type(self.pooling) is SequencePooling and self.pooling.method
        return pools == "newest" and has_newest(self.encoder)

    def encode(
        self,
        history: tf.Tensor,
        segment_ids: tf.Tensor | None = None,
        training: Any = None,
        timestamps: tf.Tensor | None = None,
        request_times: tf.Tensor | None = None,
        hidden: tf.Tensor | None = None,
        item_table: tf.Tensor | None = None,
        query_features: Encoded | None = None,
        event_features: Encoded | None = None,
    ) -> tf.Tensor:
        """The query after every position, for training on each of them.

        Args:
            history: int `[B, T]` item indices, 0 = padding. Taken as it lies.
            segment_ids: int `[B, T]` of packed rows, 0 = padding.
            training: bool.
            timestamps: int64 `[B, T]`, Unix seconds, for a time-aware tower.
            request_times: int64 `[B, T]`, when the item after each position was asked
                for, for a time-aware tower.
            hidden: bool `[B, T]`, for a tower with `query_token`: where the token takes
                the place of the item, which is to be guessed.
            item_table: float `[M, D]`, vectors of items in place of the embedding's.
            query_features: `Encoded` of `[B, T]`, what is known of each request.
            event_features: `Encoded` of `[B, T]`.

        Returns:
            float32 `[B, T, D]`. Row t is the query of a user whose history ends at t;
            where the item at t is hidden, the query for that item. Of a tower with
            `query_projection` padding at t gives the query of an empty history.
        """
        history = check_ids(history)
        times = {}
        if self.time_aware:
            times = {
                "timestamps": check_times("timestamps", timestamps, history.shape),
                "request_times": check_times(
                    "request_times", request_times, history.shape
                ),
            }
        items = self._vectors(history, item_table, event_features, training)
        if hidden is not None:
            if self._token is None:
                raise ValueError(
                    "`hidden` needs a tower with a token to hide items behind. "
                    "Received: query_token=False. Build the tower with "
                    "query_token=True."
                )
            items = tf.where(hidden[..., tf.newaxis], self._token_of(items), items)
        states = self.encoder(
            items,
            mask=history != 0,
            segment_ids=segment_ids,
            training=training,
            **times,
        )
        if self.query_projection is not None:
            # What an empty history gives in a call; an encoder may make anything of it.
            states = tf.where((history != 0)[..., tf.newaxis], states, 0.0)
        return self._finish(states, query_features)

    def _vectors(
        self,
        history: tf.Tensor,
        item_table: tf.Tensor | None,
        event_features: Encoded | None,
        training: Any,
    ) -> tf.Tensor:
        """What stands for each event: its item, and what else is known of it."""
        if item_table is None:
            items = embed(self.item_embedding, history, training)
        else:
            items = tf.gather(item_table, history)
        if self.event_projection is not None:
            known = self.event_projection(given("event_features", event_features))
            items += tf.cast(known, items.dtype)
        return items

    def _token_of(self, items: tf.Tensor) -> tf.Tensor:
        """The token as one of these vectors: `[1, 1, D]`."""
        return tf.cast(self._token, items.dtype)[tf.newaxis, tf.newaxis]

    def _finish(self, queries: tf.Tensor, query_features: Encoded | None) -> tf.Tensor:
        """Towers emit float32 whatever they compute in: losses and indexes need it."""
        queries = tf.cast(queries, tf.float32)
        if self.query_projection is not None:
            known = self.query_projection(given("query_features", query_features))
            known = tf.cast(known, tf.float32)
            more = queries.shape.rank - known.shape.rank  # interests share them
            queries += known if not more else known[:, tf.newaxis]
        return tf.math.l2_normalize(queries, axis=-1) if self.normalize else queries
