"""The Keras metrics give the figures of `ranking_metrics`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.evaluation import (
    NDCG,
    HitRate,
    MeanReciprocalRank,
    ranking_metrics,
)
from tfrs_selfattn.evaluation.ranking import UNRANKED

METRICS = [lambda: HitRate(k=3), lambda: NDCG(k=3), MeanReciprocalRank]


@pytest.mark.parametrize("make", METRICS)
def test_batches_add_up_to_the_figures_of_ranking_metrics(make):
    metric = make()
    batches = np.array([1, 2]), np.array([3, 4, 9]), np.array([UNRANKED])
    for batch in batches:
        metric.update_state(tf.constant(batch, tf.int32))
    expected = ranking_metrics(np.concatenate(batches), ks=(3,))[metric.name]
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", METRICS)
def test_a_weight_of_zero_is_the_row_left_out(make):
    weighted, without = make(), make()
    weighted.update_state(tf.constant([1, 2, 5]), sample_weight=tf.constant([1, 3, 0]))
    without.update_state(tf.constant([1, 2]), sample_weight=tf.constant([1, 3]))
    assert float(weighted.result()) == pytest.approx(float(without.result()))
    without.update_state(tf.constant([5]))
    assert float(weighted.result()) != pytest.approx(float(without.result()))


@pytest.mark.parametrize("make", METRICS)
def test_update_in_a_graph_and_reset(make):
    metric = make()

    @tf.function
    def update(ranks):
        metric.update_state(ranks)

    update(tf.constant([2, 5]))
    first = float(metric.result())
    assert 0 < first < 1
    metric.reset_state()
    metric.update_state(tf.constant([2, 5]))
    assert float(metric.result()) == first


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (HitRate(), "hr@10"),
        (NDCG(), "ndcg@10"),
        (HitRate(5), "hr@5"),
        (NDCG(k=20), "ndcg@20"),
        (MeanReciprocalRank(), "mrr"),
        (HitRate(k=7, name="hits"), "hits"),
        (NDCG(k=7, name="gain"), "gain"),
    ],
)
def test_names_and_serialization(metric, name):
    assert metric.name == name
    config = keras.metrics.serialize(metric)
    restored = keras.metrics.deserialize(config)
    assert type(restored) is type(metric)
    assert restored.get_config() == metric.get_config()
    assert vars(restored).get("k") == vars(metric).get("k")
    assert restored.name == name


def test_k_must_be_positive():
    with pytest.raises(ValueError, match=r"`k` must be a positive integer"):
        HitRate(k=0)
    with pytest.raises(ValueError, match=r"`k` must be a positive integer"):
        NDCG(k=1.5)
