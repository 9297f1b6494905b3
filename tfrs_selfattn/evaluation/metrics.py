"""Ranking metrics as Keras metrics, for a training loop that validates as it goes.

They take ranks (see `target_ranks`), not scores, so that one ranking feeds them all.
The same figures as `ranking_metrics`, batch by batch.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import keras, register


@register
class HitRate(keras.metrics.Mean):  # type: ignore[misc]
    """The share of users whose target is among the first k.

    Args:
        k: int. Cut-off. Defaults to `10`.
        name: str or None. Defaults to `None`: `"hr@10"`, with the k at hand.
        dtype: as of any Keras metric. Defaults to `None`.

    Call arguments:
        ranks: int `[B]`, best = 1.
        sample_weight: `[B]` or None. A user of weight 0 counts as absent.

    Example:

    >>> metric = tfrs_selfattn.evaluation.HitRate(k=10)
    >>> _ = metric.update_state(tf.constant([1, 11]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, k: int = 10, name: str | None = None, dtype: Any = None) -> None:
        self.k = check_positive_int("k", k)
        super().__init__(name=name or f"hr@{self.k}", dtype=dtype)

    def update_state(self, ranks: tf.Tensor, sample_weight: Any = None) -> Any:
        hits = tf.cast(tf.convert_to_tensor(ranks) <= self.k, tf.float32)
        return super().update_state(hits, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


@register
class NDCG(keras.metrics.Mean):  # type: ignore[misc]
    """Normalized discounted cumulative gain at k, with one target a user.

    A target of rank r counts 1 / log2(r + 1) if r <= k, else 0.

    Args:
        k: int. Cut-off. Defaults to `10`.
        name: str or None. Defaults to `None`: `"ndcg@10"`, with the k at hand.
        dtype: as of any Keras metric. Defaults to `None`.

    Call arguments:
        ranks: int `[B]`, best = 1.
        sample_weight: `[B]` or None. A user of weight 0 counts as absent.

    Example:

    >>> metric = tfrs_selfattn.evaluation.NDCG(k=10)
    >>> _ = metric.update_state(tf.constant([3, 11]))
    >>> float(metric.result())
    0.25
    """

    def __init__(self, k: int = 10, name: str | None = None, dtype: Any = None) -> None:
        self.k = check_positive_int("k", k)
        super().__init__(name=name or f"ndcg@{self.k}", dtype=dtype)

    def update_state(self, ranks: tf.Tensor, sample_weight: Any = None) -> Any:
        position = tf.cast(tf.convert_to_tensor(ranks), tf.float32)
        gain = tf.math.log(2.0) / tf.math.log(position + 1.0)
        gain = tf.where(position <= self.k, gain, 0.0)
        return super().update_state(gain, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


@register
class MeanReciprocalRank(keras.metrics.Mean):  # type: ignore[misc]
    """The mean of 1 / rank, without a cut-off.

    Args:
        name: str. Defaults to `"mrr"`.
        dtype: as of any Keras metric. Defaults to `None`.

    Call arguments:
        ranks: int `[B]`, best = 1.
        sample_weight: `[B]` or None. A user of weight 0 counts as absent.

    Example:

    >>> metric = tfrs_selfattn.evaluation.MeanReciprocalRank()
    >>> _ = metric.update_state(tf.constant([1, 2]))
    >>> float(metric.result())
    0.75
    """

    def __init__(self, name: str = "mrr", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(self, ranks: tf.Tensor, sample_weight: Any = None) -> Any:
        reciprocal = 1.0 / tf.cast(tf.convert_to_tensor(ranks), tf.float32)
        return super().update_state(reciprocal, sample_weight=sample_weight)
