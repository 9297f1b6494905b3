"""The retrieval model learns what can be learned, and no more; its numbers agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tests.weights import randomize
from tfrs_selfattn._keras import keras
from tfrs_selfattn.data import (
    build_sequences,
    evaluation_dataset,
    events_from_frame,
    leave_one_out,
    markov_events,
    pack_rows,
    steps_per_epoch,
    training_dataset,
)
from tfrs_selfattn.evaluation import evaluate_ranking
from tfrs_selfattn.evaluation.ranking import target_ranks
from tfrs_selfattn.layers import AttentionPooling
from tfrs_selfattn.losses import FullSoftmax
from tfrs_selfattn.models import QueryTower, SequenceRetrieval, presets

pytestmark = pytest.mark.legacy_keras

USERS, ITEMS, LENGTH = 600, 60, 12


@pytest.fixture(scope="module")
def log():
    return markov_events(USERS, ITEMS, LENGTH, seed=1)


@pytest.fixture(scope="module")
def split(log):
    return leave_one_out(build_sequences(events_from_frame(log.frame)))


def make_model(**options):
    options = {"embedding_dim": 16, "num_blocks": 1, "max_length": 32, **options}
    model = presets.sasrec(ITEMS, dropout=0.1, seed=2, **options)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def fit(model, split, epochs):
    rows = pack_rows(split, row_length=32, seed=0)
    return model.fit(
        training_dataset(rows, batch_size=32, seed=0),
        steps_per_epoch=steps_per_epoch(rows, 32),
        epochs=epochs,
        verbose=0,
    )


@pytest.fixture(scope="module")
def trained(split):
    keras.utils.set_random_seed(0)
    model = make_model()
    history = fit(model, split, epochs=30)
    return model, history.history["loss"]


def hit_rate(score, split, k=1):
    return evaluate_ranking(score, split.test, ks=(k,)).metrics[f"hr@{k}"]


def test_ragged_histories_score_as_padded_ones():
    model = make_model()
    rows = tf.ragged.constant([[3, 1, 4], [5], []], dtype=tf.int32)
    np.testing.assert_allclose(model(rows), model(rows.to_tensor()), atol=1e-6)
    scores = model.score(rows)
    assert scores.shape == (3, ITEMS)
    np.testing.assert_allclose(scores, model.score(rows.to_tensor()), atol=1e-5)


def test_the_loss_falls_towards_the_entropy_of_the_log(trained, log):
    _, losses = trained
    entropy = -sum(p * math.log(p) for p in log.probabilities)
    assert losses[0] > 2 * entropy
    assert entropy < losses[-1] < 1.5 * entropy


def test_learns_what_can_be_learned(trained, split, log):
    model, _ = trained
    best = log.best_hit_rate(1)
    found = hit_rate(model.score, split)
    assert 0.8 * best < found < best + 5 * math.sqrt(best * (1 - best) / USERS)


def test_with_histories_shuffled_it_falls(trained, split, log):
    model, _ = trained
    shuffle = np.random.default_rng(0)

    def score(histories):
        return model.score(shuffle.permuted(histories, axis=1))

    assert hit_rate(score, split) < 0.3 * log.best_hit_rate(1)


def test_an_untrained_model_is_near_chance(split):
    keras.utils.set_random_seed(1)
    model = make_model()
    chance = 10 / ITEMS
    found = evaluate_ranking(model.score, split.test, filter_seen=False)
    spread = 5 * math.sqrt(chance * (1 - chance) / USERS)
    assert abs(found.metrics["hr@10"] - chance) < spread


@pytest.mark.parametrize("filter_seen", [True, False])
def test_evaluate_agrees_with_evaluate_ranking(trained, split, filter_seen):
    base, _ = trained
    model = SequenceRetrieval(
        base.query_tower,
        base.candidate_tower,
        metric_ks=(1, 5),
        filter_seen=filter_seen,
    )
    model.compile()
    data = evaluation_dataset(split.test, batch_size=64)
    found = model.evaluate(data, verbose=0, return_dict=True)
    expected = evaluate_ranking(
        model.score, split.test, ks=(1, 5), filter_seen=filter_seen
    ).metrics
    assert {"hr@1", "ndcg@1", "hr@5", "ndcg@5"} <= set(found)
    for name in ("hr@1", "ndcg@1", "hr@5", "ndcg@5"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)


def test_fit_reports_validation_metrics(split):
    model = make_model()
    rows = pack_rows(split, row_length=32)
    history = model.fit(
        training_dataset(rows, batch_size=64, seed=0),
        steps_per_epoch=2,
        validation_data=evaluation_dataset(split.validation, batch_size=256),
        verbose=0,
    )
    assert {"loss", "val_hr@10", "val_ndcg@10"} <= set(history.history)


def tiny_model(**options):
    model = presets.sasrec(
        11, embedding_dim=4, num_blocks=1, max_length=6, dropout=0.0, **options
    )
    model(np.ones([1, 2], np.int32))
    return randomize(model)


BATCH = {
    "history": tf.constant([[1, 2, 3, 4, 5, 0], [0, 0, 6, 7, 0, 8]]),
    "targets": tf.constant([[2, 3, 0, 5, 6, 0], [0, 0, 7, 8, 0, 9]]),
}


def test_loss_is_that_of_every_position_with_a_target():
    model = tiny_model()
    states = model.query_tower.encode(BATCH["history"]).numpy()
    learn = np.argwhere(BATCH["targets"].numpy() > 0)
    queries = [states[b, t].astype("float64") for b, t in learn]
    targets = [int(BATCH["targets"][b, t]) - 1 for b, t in learn]
    candidates = model.candidate_tower.catalogue().numpy()
    expected = oracles.full_softmax(queries, candidates, targets) / len(queries)
    np.testing.assert_allclose(model.compute_loss(BATCH), expected, rtol=1e-4)


def test_what_stands_in_positions_without_a_target_is_weight_zero():
    model = tiny_model()
    weights = np.ones([2, 6], np.float32)
    weights[0, 4] = 0.0
    found = model.compute_loss({**BATCH, "sample_weight": tf.constant(weights)})
    targets = BATCH["targets"].numpy()
    targets[0, 4] = 0
    expected = model.compute_loss({**BATCH, "targets": tf.constant(targets)})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_packed_rows_cost_what_separate_rows_cost():
    model = tiny_model()
    packed = {
        "history": tf.constant([[1, 2, 3, 4, 5, 0]]),
        "targets": tf.constant([[2, 3, 6, 5, 7, 0]]),
        "segment_ids": tf.constant([[1, 1, 1, 2, 2, 0]]),
    }
    separate = {
        "history": tf.constant([[1, 2, 3], [0, 4, 5]]),
        "targets": tf.constant([[2, 3, 6], [0, 5, 7]]),
    }
    np.testing.assert_allclose(
        model.compute_loss(packed), model.compute_loss(separate), rtol=1e-5
    )
    crossed = {k: v for k, v in packed.items() if k != "segment_ids"}
    assert abs(float(model.compute_loss(crossed) - model.compute_loss(packed))) > 1e-3


def test_a_batch_without_targets_costs_nothing():
    model = tiny_model()
    nothing = {**BATCH, "targets": tf.zeros([2, 6], tf.int32)}
    assert float(model.compute_loss(nothing)) == 0.0


def test_the_padding_row_of_the_table_never_learns():
    model = tiny_model()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    table = model.query_tower.item_embedding.embeddings
    before = table.numpy()
    model.train_step(BATCH)
    moved = np.abs(table.numpy() - before).max(axis=1)
    assert moved[0] == 0.0
    assert (moved[1:] > 0).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_trains_under_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = tiny_model()
        model.compile(optimizer=keras.optimizers.Adam(0.01))
        losses = [float(model.train_step(BATCH)["loss"]) for _ in range(4)]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    for weight in model.trainable_weights:
        assert np.isfinite(weight.numpy()).all()


def own_config(model):
    """The configuration without what Keras adds to parts that were built."""

    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "build_config"}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return strip(model.get_config())


def test_config_round_trip_keeps_the_shared_table():
    model = tiny_model()
    rebuilt = SequenceRetrieval(
        model.query_tower,
        model.candidate_tower,
        loss=FullSoftmax(0.5, block_rows=7),
        metric_ks=(3, 20),
        filter_seen=False,
        name="mine",
    )
    config = rebuilt.get_config()
    again = SequenceRetrieval.from_config(config)
    assert own_config(again) == own_config(rebuilt)
    assert again.shares_table
    assert again.name == "mine"
    history = np.array([[0, 1, 2]], np.int32)
    again(history)
    assert len(again.trainable_weights) == len(model.trainable_weights)
    again.set_weights(rebuilt.get_weights())
    np.testing.assert_allclose(again.score(history), rebuilt.score(history), rtol=1e-6)


def test_keras_file_keeps_everything(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.shares_table
    assert len(again.weights) == len(model.weights)
    history = np.array([[0, 1, 2]], np.int32)
    np.testing.assert_allclose(again.score(history), model.score(history), rtol=1e-6)


def test_config_round_trip_keeps_two_tables_apart():
    tower, candidates = tiny_model().query_tower, tiny_model().candidate_tower
    model = SequenceRetrieval(tower, candidates)
    assert not model.shares_table
    again = SequenceRetrieval.from_config(model.get_config())
    assert not again.shares_table


def test_weights_survive_a_checkpoint(tmp_path):
    model, other = tiny_model(), tiny_model()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.train_step(BATCH)
    model.save_weights(tmp_path / "weights")
    other.load_weights(tmp_path / "weights").expect_partial()
    np.testing.assert_array_equal(
        other.score(BATCH["history"]), model.score(BATCH["history"])
    )


def interests_model(**options):
    base = tiny_model()
    tower = QueryTower(
        base.query_tower.item_embedding,
        base.query_tower.encoder,
        pooling=AttentionPooling(3, hidden_dim=5),
        max_length=6,
    )
    model = SequenceRetrieval(tower, base.candidate_tower, **options)
    model(np.ones([1, 2], np.int32))
    return randomize(model)


def test_of_several_interests_the_best_scores():
    model = interests_model()
    queries = model(BATCH["history"]).numpy()
    candidates = model.candidate_tower.catalogue().numpy()
    assert queries.shape == (2, 3, 4)
    expected = [
        [max(np.dot(interest, item) for interest in interests) for item in candidates]
        for interests in queries
    ]
    scores = model.score(BATCH["history"])
    assert scores.shape == (2, 11)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    each = np.einsum("bkd,nd->bkn", queries, candidates)
    assert len(set(each.argmax(axis=1).ravel())) == 3  # each is the best of some


def test_several_interests_are_evaluated_and_reloaded():
    model = interests_model()
    model.compile()
    rows = {"history": BATCH["history"], "target": tf.constant([7, 2])}
    found = model.test_step(rows)
    ranks = target_ranks(model.score(rows["history"]), rows["target"], rows["history"])
    assert float(found["hr@10"]) == float(np.mean(ranks.numpy() <= 10))
    again = SequenceRetrieval.from_config(model.get_config())
    again(BATCH["history"])
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(
        again.score(BATCH["history"]), model.score(BATCH["history"]), rtol=1e-6
    )


def test_metric_ks_must_be_positive():
    model = tiny_model()
    message = r"`metric_ks` must be a positive integer\. Received: metric_ks=0\."
    with pytest.raises(ValueError, match=message):
        SequenceRetrieval(model.query_tower, model.candidate_tower, metric_ks=(0,))
