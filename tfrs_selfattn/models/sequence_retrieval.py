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
from tfrs_selfattn.losses.full_softmax import FullSoftmax


@register
class SequenceRetrieval(tfrs.models.Model):  # type: ignore[misc]
    """A TFRS two-tower model that predicts every next item of every history.

    `fit` takes rows of histories, packed or padded, and trains on each position;
    `evaluate` ranks the whole catalogue for each user and reports HR@k and NDCG@k,
    without the items that the user has seen, ties counted against the model.

    Args:
        query_tower: `QueryTower`.
        candidate_tower: `CandidateTower`.
        loss: next-item loss called as `FullSoftmax` is. None takes `FullSoftmax()`.
            Defaults to `None`.
        metric_ks: sequence of int. Cut-offs of HR@k and NDCG@k. Defaults to `(10,)`.
        filter_seen: bool. Rank only items that are not in the history. Defaults to
            `True`.
        **kwargs: passed to `tfrs.models.Model` (`name`, …).

    Call arguments:
        history: int `[B, T]` item indices, oldest first, 0 = padding.
        training: bool.

    Returns:
        float32 `[B, D]`, the query, or `[B, K, D]` when the tower's pooling gives K
        interests. `score` gives the scores of the catalogue.

    Training rows: a dictionary of `history` int `[B, T]`; `targets` int `[B, T]`, the
    item that follows each position, 0 where there is none; and, optionally,
    `segment_ids` int `[B, T]` of packed rows and `sample_weight` float `[B, T]`.

    Evaluation rows: a dictionary of `history` int `[B, T]`, uncut, and `target` int
    `[B]`; see `tfrs_selfattn.data.evaluation_dataset`.
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
        self.next_item_loss = FullSoftmax() if loss is None else loss
        self.metric_ks = tuple(check_positive_int("metric_ks", k) for k in metric_ks)
        self.filter_seen = bool(filter_seen)
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
        self(tf.zeros([1, 1], tf.int32))
        self.candidate_tower(tf.zeros([1], tf.int32))

    @property
    def shares_table(self) -> bool:
        """Whether both towers read one embedding table."""
        mine = getattr(self.query_tower, "item_embedding", None)
        return mine is not None and mine is getattr(
            self.candidate_tower, "item_embedding", None
        )

    def call(self, history: tf.Tensor, training: Any = None) -> tf.Tensor:
        return self.query_tower(history, training=training)

    def score(self, history: tf.Tensor) -> tf.Tensor:
        """Scores of the whole catalogue: float32 `[B, N]`, column j for index j + 1.

        Of several interests `[B, K, D]` the best one counts, candidate by candidate.
        """
        queries = self.query_tower(history, training=False)
        candidates = self.candidate_tower.catalogue()
        if queries.shape.rank == 2:
            return tf.matmul(queries, candidates, transpose_b=True)
        # One interest at a time: [B, K, N] is never held.
        scores = tf.matmul(queries[:, 0], candidates, transpose_b=True)
        for interest in tf.unstack(queries, axis=1)[1:]:
            scores = tf.maximum(
                scores, tf.matmul(interest, candidates, transpose_b=True)
            )
        return scores

    def compute_loss(
        self, inputs: dict[str, tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """The mean loss over the positions that have a target; see the class."""
        targets = inputs["targets"]
        states = self.query_tower.encode(
            inputs["history"], inputs.get("segment_ids"), training=training
        )
        learn = tf.where(targets > 0)  # [M, 2]: padding costs nothing from here on
        weights = inputs.get("sample_weight")
        if weights is not None:
            weights = tf.gather_nd(weights, learn)
        return self.next_item_loss(
            tf.gather_nd(states, learn),
            self.candidate_tower.catalogue(),
            tf.gather_nd(targets, learn) - 1,
            weights,
        )

    def train_step(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One optimizer step; reports the epoch's mean loss, not the last batch's."""
        logs = super().train_step(inputs)
        count = tf.math.count_nonzero(inputs["targets"], dtype=tf.float32)
        self._loss_mean.update_state(logs["total_loss"], sample_weight=count)
        return {"loss": self._loss_mean.result()}

    def test_step(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Ranks the catalogue for a batch of evaluation rows."""
        history = inputs["history"]
        ranks = target_ranks(
            self.score(history),
            inputs["target"],
            history if self.filter_seen else None,
        )
        for metric in self._ranking_metrics:
            metric.update_state(ranks)
        return {metric.name: metric.result() for metric in self._ranking_metrics}
