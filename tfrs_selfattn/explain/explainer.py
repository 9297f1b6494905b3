"""The methods of this package, bound to a two-tower model in memory.

For training runs and notebooks. An export answers `leave_one_out` itself, by its
signature `explain`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive
from tfrs_selfattn.explain.gradients import integrated_gradients
from tfrs_selfattn.explain.occlusion import leave_one_out
from tfrs_selfattn.explain.rollout import attention_rollout
from tfrs_selfattn.ops.masks import align_right

METHODS = ("leave_one_out", "integrated_gradients", "attention_rollout")

# As in `occlusion`; a gradient holds every layer's states.
_POSITIONS_AT_ONCE = 16_384

# Integrated gradients begin with so many points and double them for the histories that
# need it: smooth models need no more, the kinks of ReLU do.
_FIRST_STEPS, _MOST_STEPS = 16, 1024


class Explainer:
    """Says how much each item of a history moved the score of an item.

    Args:
        model: `SequenceRetrieval`, or a model with its `query_tower` and
            `candidate_tower`. Must not be trained on meanwhile. One that takes features
            of events can be made an `Explainer` of and not be asked: ask its export.

    Example:

    >>> model = presets.sasrec(num_items=9, embedding_dim=8, max_length=10)
    >>> history, item = tf.constant([[0, 7, 2], [3, 0, 0]]), tf.constant([5, 1])
    >>> Explainer(model).contributions(history, item).shape
    TensorShape([2, 3])
    """

    def __init__(self, model: Any) -> None:
        self._query_tower = model.query_tower
        self._candidate_tower = model.candidate_tower
        ids = tf.TensorSpec([None, None], tf.int32)
        item = tf.TensorSpec([None], tf.int32)
        times = tf.TensorSpec([None, None], tf.int64)
        asked = tf.TensorSpec([None], tf.int64)
        time_aware = bool(getattr(model.query_tower, "time_aware", False))
        self._num_times = 2 if time_aware else 0
        known = self._feature_specs()
        self._compiled_score = tf.function(
            self._score,
            input_signature=[
                ids,
                item,
                *([times, asked] if time_aware else []),
                *known,
            ],
        )
        width = self._query_tower.item_embedding.output_dim
        vectors = tf.TensorSpec([None, None, width], tf.float32)
        self._score_of_vectors = tf.function(
            self._score_vectors,
            input_signature=[
                vectors,
                ids,
                item,
                *([times, times] if time_aware else []),
                *known,
            ],
        )

    def score(
        self,
        history: tf.Tensor,
        item: tf.Tensor,
        *times: tf.Tensor,
        query_features: Sequence[tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """The score of an item for each history, as `leave_one_out` asks for it.

        Args:
            history: int32 `[M, T]`, 0 = padding.
            item: int32 `[M]`.
            *times: as in `contributions`.
            query_features: likewise, of `[M]`.

        Returns:
            float32 `[M]`.

        Raises:
            ValueError: when the model needs features that are not given, or others.
        """
        known = self._known(query_features)
        return self._compiled_score(history, item, *times, *known)

    def contributions(
        self,
        history: tf.Tensor,
        item: tf.Tensor,
        *times: tf.Tensor,
        query_features: Sequence[tf.Tensor] | None = None,
        method: str = "leave_one_out",
        steps: int | None = None,
        tolerance: float = 0.01,
    ) -> tf.Tensor:
        """How much each item of each history moved the score of an item.

        Args:
            history: int `[B, T]`, 0 = padding, wherever it stands.
            item: int `[B]`. Indices of the items to explain.
            *times: for a time-aware model `timestamps` int64 `[B, T]` and
                `request_time` int64 `[B]`.
            query_features: `Encoded` of `[B]`, of a model that knows its users or
                requests: the same with each item as without it. Roll-out needs none.
                Defaults to `None`.
            method: str. `"leave_one_out"`: what the score loses without the item,
                exact. `"integrated_gradients"`: shares of the difference to the score
                of a history of average items. `"attention_rollout"`: where the newest
                position looked, shares of 1, no effect on a score; of models with
                softmax attention. Defaults to `"leave_one_out"`.
            steps: int or None. Points at which integrated gradients are taken. None
                takes as many as each history needs to come within `tolerance`: 16, and
                twice as many until then, 1,024 at most. Defaults to `None`.
            tolerance: float. How far the contributions of integrated gradients may
                miss the difference of scores that they sum to, relative to the sum of
                their absolute values. Where 1,024 points do not reach it, a warning
                says so. Defaults to `0.01`.

        Returns:
            float32 `[B, T]`, 0 at padding and, to rounding, at items older than the
            model reads.

        Raises:
            ValueError: when the method is unknown, a number is not positive, a
                time-aware model lacks times, a model has no attention weights, or needs
                features that are not given, or those of events.
        """
        tolerance = check_positive("tolerance", tolerance)
        method = check_choice("method", method, METHODS)
        history, item = tf.cast(history, tf.int32), tf.cast(item, tf.int32)
        more = tuple(tf.cast(time, tf.int64) for time in times)
        each: Any = self._looks
        if method != "attention_rollout":
            more += self._known(query_features)
            each = functools.partial(self._gradients, steps, tolerance)
        if method == "leave_one_out":
            return leave_one_out(self._compiled_score, history, item, *more)
        rows = max(_POSITIONS_AT_ONCE // max(int(history.shape[1]), 1), 1)
        pieces = [
            each(*(part[start : start + rows] for part in (history, item, *more)))
            for start in range(0, int(history.shape[0]), rows)
        ]
        return tf.concat(pieces, 0) if pieces else tf.zeros(history.shape)

    def attention(self, history: tf.Tensor, *times: tf.Tensor) -> list[tf.Tensor]:
        """The attention weights of each block, for heat maps.

        Args:
            history: int `[B, T]`, 0 = padding.
            *times: as in `contributions`.

        Returns:
            list of float `[B, H, T', T']`, the newest item last; see
            `QueryTower.attention_scores`. What is known of users has no part in them.

        Raises:
            ValueError: when the model has no attention weights, or takes features of
                events, lacks times or is given such that do not fit.
        """
        self._check_events()
        history = tf.cast(history, tf.int32)
        scores: list[tf.Tensor] = self._query_tower.attention_scores(history, *times)
        return scores

    def average_item(self) -> tf.Tensor:
        """The mean of the items' vectors `[D]`, where integrated gradients begin."""
        embedding = self._query_tower.item_embedding
        return tf.reduce_mean(embedding(tf.range(1, embedding.input_dim)), axis=0)

    def _feature_specs(self) -> list[tf.TensorSpec]:
        """Tokens, weights and numbers of users, if the tower takes such."""
        projection = getattr(self._query_tower, "query_projection", None)
        if projection is None:
            return []
        return [
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.float32),
            tf.TensorSpec([None, projection.features.num_dense], tf.float32),
        ]

    def _known(
        self, query_features: Sequence[tf.Tensor] | None
    ) -> tuple[tf.Tensor, ...]:
        """What is known of users as further tensors of a row, checked."""
        self._check_events()
        takes = bool(self._feature_specs())
        if takes is (query_features is None):
            raise ValueError(
                "`query_features` must be given for a model that takes them, and left "
                f"out for any other. Received: {'None' if takes else 'some'} for a "
                f"model that takes {'some' if takes else 'none'}. Encode them with "
                "`FeatureEncoder`, or explain an export, which does."
            )
        return tuple(map(tf.convert_to_tensor, query_features or ()))

    def _check_events(self) -> None:
        if getattr(self._query_tower, "event_projection", None) is not None:
            raise ValueError(
                "`model` must take no features of events to be explained. Received: "
                "one with event_projection. Export it, and ask `Recommender.explain` "
                "or the signature `explain` with the features."
            )

    def _named(
        self, more: Sequence[tf.Tensor], second: str
    ) -> dict[str, tf.Tensor | tuple[tf.Tensor, ...]]:
        """Times and features of a row as arguments of the query tower."""
        times, known = more[: self._num_times], tuple(more[self._num_times :])
        named: dict[str, Any] = dict(zip(("timestamps", second), times, strict=False))
        return named | ({"query_features": known} if known else {})

    def _score(
        self, history: tf.Tensor, item: tf.Tensor, *more: tf.Tensor
    ) -> tf.Tensor:
        named = self._named(more, "request_time")
        queries = self._query_tower(history, training=False, **named)
        return self._match(queries, item)

    def _score_vectors(
        self,
        vectors: tf.Tensor,
        history: tf.Tensor,
        item: tf.Tensor,
        *more: tf.Tensor,
    ) -> tf.Tensor:
        named = self._named(more, "request_times")
        tower = self._query_tower
        return self._match(
            tower.query_of(vectors, history, training=False, **named), item
        )

    def _match(self, queries: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        candidates = self._candidate_tower(item)  # [M, D]
        if queries.shape.rank == 2:
            return tf.reduce_sum(queries * candidates, axis=-1)
        # Of several interests [M, K, D] the best one counts.
        return tf.reduce_max(tf.linalg.matvec(queries, candidates), axis=-1)

    def _gradients(
        self,
        steps: int | None,
        tolerance: float,
        history: tf.Tensor,
        item: tf.Tensor,
        *more: tf.Tensor,
    ) -> tf.Tensor:
        times, known = more[: self._num_times], more[self._num_times :]
        aligned, named = self._query_tower.aligned(history, *times)
        vectors = tf.cast(self._query_tower.item_embedding(aligned), tf.float32)
        given = (aligned, item, *named.values(), *known)
        if steps is not None:
            shares, _ = self._integrated(steps, vectors, given)
            return self._placed(shares, history)
        found = np.zeros(aligned.shape, np.float32)
        left, steps, missed = np.arange(len(found)), _FIRST_STEPS, np.zeros(0)
        while len(left) and steps <= _MOST_STEPS:
            some, *theirs = (tf.gather(each, left) for each in (vectors, *given))
            shares, difference = self._integrated(steps, some, tuple(theirs))
            found[left] = shares
            size = np.abs(shares).sum(axis=1)
            # Float32 cannot tell shares of a score from less than this.
            missed = np.abs(shares.numpy().sum(axis=1) - difference) / (size + 1e-6)
            left, missed = left[missed > tolerance], missed[missed > tolerance]
            steps *= 2
        if len(left):
            warnings.warn(
                f"Integrated gradients of {len(left)} histories miss the difference "
                f"of scores by more than tolerance={tolerance:g}, the worst by "
                f"{missed.max():.2g}, with {_MOST_STEPS} points. Use leave-one-out for "
                "them, or a larger tolerance.",
                stacklevel=3,
            )
        return self._placed(tf.constant(found), history)

    def _integrated(
        self, steps: int, vectors: tf.Tensor, given: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return integrated_gradients(
            lambda between: self._score_of_vectors(between, *given),
            vectors,
            self.average_item(),
            steps=steps,
        )

    def _looks(
        self, history: tf.Tensor, item: tf.Tensor, *times: tf.Tensor
    ) -> tf.Tensor:
        method = getattr(self._query_tower.pooling, "method", None)
        if method != "newest":
            raise ValueError(
                "`method='attention_rollout'` needs a model whose query is the state "
                f"of the newest position. Received: pooling={method!r}. Use another "
                "method."
            )
        rolled = attention_rollout(self.attention(history, *times))
        aligned, _ = self._query_tower.aligned(history, *times)
        # Of a tower with a query token the last column is the token's own.
        return self._placed(rolled[:, -1, : tf.shape(aligned)[1]], history)

    def _placed(self, values: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
        """Values of aligned items, in the places where the items came from."""
        places = tf.broadcast_to(tf.range(tf.shape(history)[1]), tf.shape(history))
        aligned, places = align_right(history, self._query_tower.max_length, places)
        real = tf.where(aligned != 0)  # [M, 2]
        target = tf.stack(
            [tf.cast(real[:, 0], tf.int32), tf.gather_nd(places, real)], axis=1
        )
        found = tf.cast(tf.gather_nd(values, real), tf.float32)
        return tf.scatter_nd(target, found, tf.shape(history))
