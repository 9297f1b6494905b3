"""The retrieval model: both towers, a next-item loss, full-ranking evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register
from tfrs_selfattn.evaluation.metrics import NDCG, HitRate
from tfrs_selfattn.evaluation.ranking import target_ranks
from tfrs_selfattn.losses.context import (
    CandidateLookup,
    batch_context,
    takes_context,
)
from tfrs_selfattn.losses.full_softmax import FullSoftmax
from tfrs_selfattn.models.content_embedding import ContentEmbedding, whole_table
from tfrs_selfattn.models.query_features import feature_specs, nothing_known
from tfrs_selfattn.ops.replicas import num_replicas, share_of_mean, sum_over_replicas


@register
class SequenceRetrieval(tfrs.models.Model):  # type: ignore[misc]
    """A TFRS two-tower model that predicts every next item of every history.

    `fit` takes rows of histories, packed or padded, and trains on each position;
    `evaluate` ranks the whole catalogue for each user and reports HR@k and NDCG@k,
    without the items that the user has seen, ties counted against the model.

    Under a `tf.distribute` strategy, loss and gradients are those of the whole batch,
    into however many replicas it is cut.

    Args:
        query_tower: `QueryTower`.
        candidate_tower: `CandidateTower`.
        loss: next-item loss: one of `tfrs_selfattn.losses`, or a function that is
            called as `FullSoftmax` is. One with an argument `context` is called as
            `SampledSoftmax` is. None takes `FullSoftmax()`. Defaults to `None`.
        metric_ks: sequence of int. Cut-offs of HR@k and NDCG@k. Defaults to `(10,)`.
        filter_seen: bool. Rank only items that are not in the history. Defaults to
            `True`.
        **kwargs: passed to `tfrs.models.Model` (`name`, …).

    Call arguments:
        history: int `[B, T]` item indices, oldest first, 0 = padding; or a RaggedTensor
            of them, then times too.
        training: bool.
        timestamps: int64 `[B, T]`, Unix seconds of the items, for a time-aware model.
        request_time: int64 `[B]`, Unix seconds of the moment to recommend for, for a
            time-aware model.
        query_features: `Encoded` of `[B]`, of a tower with `query_projection`.
        event_features: `Encoded` of `[B, T]`, of a tower with `event_projection`.

    Returns:
        float32 `[B, D]`, the query, or `[B, K, D]` when the tower's pooling gives K
        interests. `score` gives the scores of the catalogue.

    Training rows: a dictionary of `history` int `[B, T]`; `targets` int `[B, T]`, the
    item that follows each position, 0 where there is none; and, optionally,
    `segment_ids` int `[B, T]` of packed rows and `sample_weight` float `[B, T]`; for a
    time-aware model also `timestamps` and `request_times`, int64 `[B, T]`; for a tower
    with features also `query_features` and `event_features`, `Encoded` of `[B, T]`.

    Evaluation rows: a dictionary of `history` int `[B, T]`, uncut, and `target` int
    `[B]`, and for a time-aware model `timestamps` int64 `[B, T]` and `request_time`
    int64 `[B]`, for a tower with features `query_features` of `[B]` and
    `event_features` of `[B, T]`; see `tfrs_selfattn.data.evaluation_dataset`.
    """

    def __init__(
        self,
        query_tower: Any,
        candidate_tower: Any,
        *,
        loss: Any = None,
        metric_ks: Sequence[int] = (10,),
        filter_seen: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.query_tower = query_tower
        self.candidate_tower = candidate_tower
        self.next_item_loss: Any = FullSoftmax() if loss is None else loss
        self.metric_ks = tuple(check_positive_int("metric_ks", k) for k in metric_ks)
        self.filter_seen = bool(filter_seen)
        # Of results, which are those of all replicas: `fit` would add them up.
        self.distribute_reduction_method = "first"
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._ranking_metrics = [
            metric(k) for k in self.metric_ks for metric in (HitRate, NDCG)
        ]

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "query_tower": serialize(self.query_tower),
            "candidate_tower": serialize(self.candidate_tower),
            "loss": serialize(self.next_item_loss),
            "metric_ks": list(self.metric_ks),
            "filter_seen": self.filter_seen,
            "shared_table": self.shares_table,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SequenceRetrieval:
        config = dict(config)
        shared = config.pop("shared_table")
        restore = keras.saving.deserialize_keras_object
        for part in ("query_tower", "candidate_tower", "loss"):
            config[part] = restore(config[part])
        if shared:
            config["candidate_tower"].item_embedding = config[
                "query_tower"
            ].item_embedding
        return cls(**config)

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a reloaded model; Keras would call it on floats, which are no ids."""
        times = tf.zeros([1, 1], tf.int64)
        history = tf.zeros([1, 1], tf.int32)
        known = nothing_known(self.query_tower, history)
        self(history, timestamps=times, request_time=times[0], **known)
        self.candidate_tower(tf.zeros([1], tf.int32))

    @property
    def shares_table(self) -> bool:
        """Whether both towers read one embedding table."""
        mine = getattr(self.query_tower, "item_embedding", None)
        return mine is not None and mine is getattr(
            self.candidate_tower, "item_embedding", None
        )

    @property
    def time_aware(self) -> bool:
        """Whether queries depend on times, which must then be given."""
        return bool(getattr(self.query_tower, "time_aware", False))

    def call(
        self,
        history: tf.Tensor,
        training: Any = None,
        timestamps: tf.Tensor | None = None,
        request_time: tf.Tensor | None = None,
        query_features: Any = None,
        event_features: Any = None,
    ) -> tf.Tensor:
        return self.query_tower(
            history,
            training=training,
            **self._times(timestamps, request_time),
            **_given(query_features=query_features, event_features=event_features),
        )

    def score(
        self,
        history: tf.Tensor,
        timestamps: tf.Tensor | None = None,
        request_time: tf.Tensor | None = None,
        query_features: Any = None,
        event_features: Any = None,
    ) -> tf.Tensor:
        """Scores of the whole catalogue: float32 `[B, N]`, column j for index j + 1.

        Of several interests `[B, K, D]` the best one counts, candidate by candidate.

        Args:
            history: int `[B, T]` item indices, oldest first, 0 = padding.
            timestamps: int64 `[B, T]`, for a time-aware model; others ignore it.
            request_time: int64 `[B]`, for a time-aware model; others ignore it.
            query_features: `Encoded` of `[B]`, of a tower with `query_projection`.
            event_features: `Encoded` of `[B, T]`, of one with `event_projection`.
        """
        table = self._item_table(training=False)
        queries = self.query_tower(
            history,
            training=False,
            **self._times(timestamps, request_time),
            **_given(
                item_table=table,
                query_features=query_features,
                event_features=event_features,
            ),
        )
        candidates = self.candidate_tower.catalogue(**_given(item_table=table))
        if queries.shape.rank == 2:
            return tf.matmul(queries, candidates, transpose_b=True)
        # One interest at a time: [B, K, N] is never held.
        scores = tf.matmul(queries[:, 0], candidates, transpose_b=True)
        for interest in tf.unstack(queries, axis=1)[1:]:
            scores = tf.maximum(
                scores, tf.matmul(interest, candidates, transpose_b=True)
            )
        return scores

    def scorer(self) -> Any:
        """`score` compiled for `evaluate_ranking`, which asks its attributes.

        These are `time_aware`, and `side_features`, the names of the features that it
        takes behind the histories and times.
        """
        signature: list[Any] = [tf.TensorSpec([None, None], tf.int32)]
        names = []
        if self.time_aware:
            names += ["timestamps", "request_time"]
            signature += [
                tf.TensorSpec([None, None], tf.int64),
                tf.TensorSpec([None], tf.int64),
            ]
        features = feature_specs(self.query_tower)
        names += features
        signature += features.values()
        score = tf.function(
            lambda history, *more: self.score(
                history, **dict(zip(names, more, strict=True))
            ),
            input_signature=signature,
        )
        score.time_aware = self.time_aware
        score.side_features = tuple(features)
        return score

    def _item_table(self, training: Any) -> tf.Tensor | None:
        """The vectors of all items where both towers need them and they cost work."""
        if not self.shares_table or not isinstance(
            self.query_tower.item_embedding, ContentEmbedding
        ):
            return None
        return whole_table(self.query_tower.item_embedding, training)

    def _times(
        self, timestamps: tf.Tensor | None, request_time: tf.Tensor | None
    ) -> dict[str, tf.Tensor]:
        """The arguments of a time-aware tower; another one may not know them."""
        if not self.time_aware:
            return {}
        return {"timestamps": timestamps, "request_time": request_time}

    def _row_times(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What `encode` of a time-aware tower needs of training rows."""
        if not self.time_aware:
            return {}
        return {name: inputs.get(name) for name in ("timestamps", "request_times")}

    def compute_loss(
        self, inputs: dict[str, tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """The mean loss over the positions that have a target; see the class.

        Of several replicas each gives its part, and the parts add up to the mean over
        the whole batch: see `ops.replicas.share_of_mean`.
        """
        loss = self.next_item_loss
        weights = inputs.get("sample_weight")
        if weights is not None:  # a weight of 0 is no target, whatever the objective
            targets = tf.where(weights != 0, inputs["targets"], 0)
            inputs = {**inputs, "targets": targets}
        if hasattr(loss, "prepare"):  # an objective that changes what is encoded
            inputs = loss.prepare(inputs)
        targets = inputs["targets"]
        hidden = {"hidden": inputs["hidden"]} if "hidden" in inputs else {}
        # A loss that draws negatives embeds what it drew and no more.
        needs_all = not takes_context(loss)
        table = self._item_table(training) if needs_all else None
        states = self.query_tower.encode(
            inputs["history"],
            inputs.get("segment_ids"),
            training=training,
            **self._row_times(inputs),
            **hidden,
            **_given(
                item_table=table,
                query_features=inputs.get("query_features"),
                event_features=inputs.get("event_features"),
            ),
        )
        learn = tf.where(targets > 0)  # [M, 2]: padding costs nothing from here on
        if weights is not None:
            weights = tf.gather_nd(weights, learn)
        queries, items = tf.gather_nd(states, learn), tf.gather_nd(targets, learn) - 1
        tower = self.candidate_tower
        if needs_all:
            own = {} if table is not None else {"training": training}
            catalogue = tower.catalogue(
                **_given(item_table=table), **_content(tower, own)
            )
            return share_of_mean(
                loss(queries, catalogue, items, weights), items, weights
            )
        own = _content(tower, {"training": training})
        candidates = CandidateLookup(
            lambda rows: tower(rows + 1, **own),
            tower.num_items,
            lambda: tower.catalogue(**own),
        )
        context = batch_context(inputs["history"], targets, inputs.get("segment_ids"))
        mean = loss(queries, candidates, items, weights, context=context)
        return share_of_mean(mean, items, weights)

    def train_step(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One optimizer step; reports the epoch's mean loss, not the last batch's."""
        # In place of TFRS's own, which leaves penalties of weights to be added up once
        # for each replica.
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
            penalties = sum(tf.reduce_sum(each) for each in self.losses)
            loss += penalties / num_replicas()
            # Under "mixed_float16" `compile` wraps the optimizer in one that scales:
            # small gradients would else be 0 in half precision.
            scales = hasattr(self.optimizer, "get_scaled_loss")
            scaled = self.optimizer.get_scaled_loss(loss) if scales else loss
        weights = self.trainable_variables
        gradients = tape.gradient(scaled, weights)
        if scales:
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self._loss_mean.update_state(
            sum_over_replicas(loss), sample_weight=_total_weight(inputs)
        )
        return {"loss": self._loss_mean.result()}

    def test_step(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Ranks the catalogue for a batch of evaluation rows."""
        history = inputs["history"]
        ranks = target_ranks(
            self.score(
                history,
                inputs.get("timestamps"),
                inputs.get("request_time"),
                inputs.get("query_features"),
                inputs.get("event_features"),
            ),
            inputs["target"],
            history if self.filter_seen else None,
        )
        for metric in self._ranking_metrics:
            metric.update_state(ranks)
        return {metric.name: metric.result() for metric in self._ranking_metrics}


def _total_weight(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """float32 scalar: what the targets of a batch weigh together."""
    present = tf.cast(inputs["targets"] > 0, tf.float32)
    weights = inputs.get("sample_weight")
    if weights is not None:
        present *= tf.cast(weights, tf.float32)
    return tf.reduce_sum(present)


def _given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None: towers of others may not know the rest."""
    return {name: value for name, value in arguments.items() if value is not None}


def _content(tower: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments for the tower if its items have content, else none."""
    embedding = getattr(tower, "item_embedding", None)
    return arguments if isinstance(embedding, ContentEmbedding) else {}
