"""Every objective in `SequenceRetrieval` and in a user's own TFRS model."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tests.weights import randomize
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import (
    FeedForward,
    MultiHeadSelfAttention,
    PositionEmbedding,
    SequenceEncoder,
    TransformerBlock,
)
from tfrs_selfattn.losses import (
    GBCE,
    BinaryCrossEntropy,
    CandidateLookup,
    FullSoftmax,
    InBatchNegatives,
    LossContext,
    MaskedItems,
    PopularityNegatives,
    SampledSoftmax,
    UniformNegatives,
    batch_context,
    takes_context,
)
from tfrs_selfattn.models import (
    CandidateTower,
    InBatchRetrieval,
    QueryTower,
    SequenceRetrieval,
)

pytestmark = pytest.mark.legacy_keras

ITEMS, WIDTH = 13, 6
COUNTS = list(range(1, ITEMS + 1))
BATCH = {
    "history": tf.constant([[1, 2, 3, 4, 5, 0], [6, 7, 13, 8, 0, 0]]),
    "targets": tf.constant([[2, 3, 9, 5, 6, 0], [7, 11, 8, 9, 0, 0]]),
    "segment_ids": tf.constant([[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 0, 0]]),
}
LOSSES = {
    "full": lambda: FullSoftmax(0.5),
    "sampled": lambda: SampledSoftmax(UniformNegatives(5), seed=1),
    "sampled by row": lambda: SampledSoftmax(
        PopularityNegatives(COUNTS, 5), shared_by="row", seed=1
    ),
    "mixed": lambda: SampledSoftmax(
        [InBatchNegatives(COUNTS), UniformNegatives(3)], seed=1
    ),
    "gbce": lambda: GBCE(5, seed=1),
    "bce": lambda: BinaryCrossEntropy(seed=1),
    "task": lambda: InBatchRetrieval(COUNTS),
    "masked": lambda: MaskedItems(rate=0.5, seed=1),
    "masked, sampled": lambda: MaskedItems(
        SampledSoftmax(UniformNegatives(5), seed=1), rate=0.5, seed=2
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def make_model(loss, dropout=0.0):
    masked = isinstance(loss, MaskedItems)
    attention = MultiHeadSelfAttention(1, WIDTH, causal=not masked)
    encoder = SequenceEncoder(
        [TransformerBlock(attention, FeedForward(8), dropout=dropout, seed=7)],
        position=PositionEmbedding(8),
    )
    items = keras.layers.Embedding(ITEMS + 1, WIDTH)
    model = SequenceRetrieval(
        QueryTower(items, encoder, max_length=6, query_token=masked),
        CandidateTower(items),
        loss=loss,
    )
    model(np.ones([1, 2], np.int32))
    return randomize(model)


def train(model, steps):
    """Steps without a graph: tracing would take most of the time of these tests."""
    return [
        float(model.train_step(BATCH)["loss"])
        for _ in range(steps)
        if model.reset_metrics() is None
    ]


@every_loss
def test_trains(name):
    model = make_model(LOSSES[name]())
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    losses = train(model, 12)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_trains_in_a_graph():
    model = make_model(LOSSES["masked, sampled"]())
    model.compile(optimizer=keras.optimizers.Adam(0.03))
    data = tf.data.Dataset.from_tensors(BATCH).repeat()
    losses = model.fit(data, steps_per_epoch=8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@every_loss
def test_a_resumed_run_equals_an_uninterrupted_one(name, tmp_path):
    def fresh():
        model = make_model(LOSSES[name](), dropout=0.3)
        model.compile(optimizer=keras.optimizers.Adam(0.01))
        model.optimizer.build(model.trainable_variables)
        return model

    killed, resumed = fresh(), fresh()
    train(killed, 1)
    path = tf.train.Checkpoint(model=killed).save(str(tmp_path / "checkpoint"))
    whole = train(killed, 2)
    status = tf.train.Checkpoint(model=resumed).restore(path)
    status.assert_existing_objects_matched().expect_partial()
    assert train(resumed, 2) == whole
    for ours, theirs in zip(resumed.get_weights(), killed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@every_loss
def test_weight_zero_is_no_target(name):
    weights = np.ones([2, 6], np.float32)
    weights[0, 2] = weights[1, 0] = 0.0
    first, second = make_model(LOSSES[name]()), make_model(LOSSES[name]())
    zero = {**BATCH, "sample_weight": tf.constant(weights)}
    absent = {**BATCH, "targets": tf.where(weights > 0, BATCH["targets"], 0)}
    with tf.GradientTape(persistent=True) as tape:
        values = [first.compute_loss(zero), second.compute_loss(absent)]
    np.testing.assert_array_equal(*values)
    for ours, theirs in zip(
        tape.gradient(values[0], first.trainable_variables),
        tape.gradient(values[1], second.trainable_variables),
        strict=True,
    ):
        if ours is not None:
            np.testing.assert_array_equal(
                tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs)
            )


def test_the_loss_of_an_epoch_weighs_batches_by_their_weights():
    model = make_model(FullSoftmax())
    model.compile(keras.optimizers.SGD(0.0))
    heavy = tf.random.stateless_uniform([2, 6], [1, 2]) * 9
    heavy *= tf.cast([[0, 1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 1]], tf.float32)
    other = {**BATCH, "targets": BATCH["targets"][::-1]}
    batches = [{**BATCH, "sample_weight": heavy}, other]
    means = [float(model.compute_loss(batch)) for batch in batches]
    # 9 targets in each batch; what stands at a padded position weighs nothing.
    weights = float(tf.reduce_sum(tf.where(BATCH["targets"] > 0, heavy, 0.0))), 9.0
    for batch in batches:
        found = float(model.train_step(batch)["loss"])
    assert found == pytest.approx(np.average(means, weights=weights), rel=1e-5)
    assert found != pytest.approx(np.mean(means), rel=1e-3)


@every_loss
def test_a_keras_file_keeps_the_loss_and_its_counter(name, tmp_path):
    model = make_model(LOSSES[name]())
    model.compute_loss(BATCH)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.next_item_loss) is type(model.next_item_loss)
    np.testing.assert_allclose(
        again.compute_loss(BATCH), model.compute_loss(BATCH), rtol=1e-6
    )


def test_sampled_losses_leave_the_other_items_alone():
    model = make_model(SampledSoftmax(UniformNegatives(2), seed=1))
    items = keras.layers.Embedding(ITEMS + 1, WIDTH)
    model.candidate_tower = CandidateTower(items)  # a table of its own
    items.build(None)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(BATCH)
    gradient = tape.gradient(loss, items.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    targets = set(BATCH["targets"].numpy().ravel()) - {0}
    rows = set(gradient.indices.numpy())
    assert targets <= rows
    assert len(rows) <= len(targets) + 2


def test_a_function_of_four_arguments_is_a_loss():
    def pairwise(queries, candidates, targets, sample_weight):
        assert sample_weight is None
        return -tf.reduce_mean(queries * tf.gather(candidates, targets))

    model = make_model(pairwise)
    assert np.isfinite(float(model.compute_loss(BATCH)))


def test_serving_sees_what_masked_training_saw():
    # Hiding the newest alone is the request of a user with the items before it.
    model = make_model(MaskedItems(rate=0.0, newest_only=0.99, seed=0))
    history, targets = tf.constant([[9, 3, 5, 2]]), tf.constant([[3, 5, 2, 8]])
    rows = {"history": history, "targets": targets}
    while not (hidden := model.next_item_loss.prepare(rows))["hidden"].numpy().any():
        pass
    queries = model.query_tower.encode(hidden["history"], hidden=hidden["hidden"])
    served = model.query_tower(tf.constant([[3, 5, 2]]))
    np.testing.assert_allclose(queries[:, -1], served, rtol=1e-4, atol=1e-6)


def test_a_tower_without_a_token_cannot_learn_hidden_items():
    model = make_model(FullSoftmax())
    masked = SequenceRetrieval(
        model.query_tower, model.candidate_tower, loss=MaskedItems(rate=0.5)
    )
    with pytest.raises(ValueError, match="`hidden` needs a tower with a token"):
        masked.compute_loss(BATCH)


M = 9
random = np.random.default_rng(4)
QUERIES = random.normal(size=[M, WIDTH]).astype("float32")
CANDIDATES = random.normal(size=[ITEMS, WIDTH]).astype("float32")
TARGETS = random.integers(0, ITEMS, M).astype("int32")
WEIGHTS = random.random(M).astype("float32")
OWN = {0: {1, 2}, 1: {3}, 2: {0, 12}}
SEQUENCES = np.repeat([0, 1, 2], 3).astype("int32")


def own_context():
    pairs = np.array([(s, item) for s in OWN for item in OWN[s]], np.int32)
    parts = SEQUENCES, SEQUENCES, pairs[:, 0].copy(), pairs[:, 1].copy()
    return LossContext(*map(tf.constant, parts))


@pytest.mark.parametrize("own", [True, False], ids=["own", "hits"])
@pytest.mark.parametrize("counts", [None, COUNTS], ids=["plain", "corrected"])
def test_in_batch_retrieval_equals_the_loop(counts, own):
    share = np.array(counts or [1] * ITEMS) / sum(counts or [1] * ITEMS)
    loss = InBatchRetrieval(counts, temperature=0.5, mask_own_items=own)
    found = loss(QUERIES, CANDIDATES, TARGETS, WEIGHTS, context=own_context())
    np.testing.assert_allclose(found, in_batch_loop(share, own), rtol=1e-5)


def in_batch_loop(share, own):
    total = 0.0
    for m in range(M):
        scores = {}
        for other in range(M):
            item = TARGETS[other]
            hit = item == TARGETS[m] or (own and item in OWN[SEQUENCES[m]])
            if other == m or not hit:
                score = np.dot(QUERIES[m], CANDIDATES[item]) / 0.5
                scores[other] = score - math.log(share[item])
        log_sum = math.log(sum(math.exp(score) for score in scores.values()))
        total += WEIGHTS[m] * (log_sum - scores[m])
    return total / WEIGHTS.sum()


def test_in_batch_retrieval_has_no_floor():
    # Of two items one is a billion times rarer, in a catalogue of both.
    counts = [10**9, 1]
    queries, candidates = np.zeros([2, 3], "float32"), np.zeros([2, 3], "float32")
    loss = InBatchRetrieval(counts, mask_own_items=False)
    found = float(loss(queries, candidates, np.array([0, 1])))
    expected = (math.log(1 + 1e9) + math.log(1 + 1e-9)) / 2
    assert found == pytest.approx(expected, rel=1e-5)
    stock = tfrs.tasks.Retrieval()(
        tf.constant(queries),
        tf.constant(candidates),
        candidate_sampling_probability=tf.constant([1.0, 1e-9]),
    )
    assert float(stock) / 2 < 0.7 * expected  # what the correction is for


def test_in_batch_retrieval_leaves_out_what_weighs_nothing():
    weights = np.where(np.arange(M) % 2 == 0, 0.0, WEIGHTS).astype("float32")
    kept = weights > 0
    loss = InBatchRetrieval(COUNTS, mask_own_items=False)
    found = loss(QUERIES, CANDIDATES, TARGETS, weights)
    expected = loss(QUERIES[kept], CANDIDATES, TARGETS[kept], weights[kept])
    np.testing.assert_array_equal(found, expected)
    assert float(loss(QUERIES, CANDIDATES, TARGETS, np.zeros(M))) == 0.0


def test_in_batch_retrieval_in_half_precision():
    loss = InBatchRetrieval(COUNTS, temperature=0.05, mask_own_items=False)
    found = loss(tf.cast(QUERIES, tf.float16), tf.cast(CANDIDATES, tf.float16), TARGETS)
    expected = loss(QUERIES, CANDIDATES, TARGETS)
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_in_batch_retrieval_takes_the_best_interest():
    interests = random.normal(size=[M, 2, WIDTH]).astype("float32")
    loss = InBatchRetrieval(COUNTS, mask_own_items=False)
    twice = np.stack([QUERIES, QUERIES], axis=1)
    np.testing.assert_allclose(
        loss(twice, CANDIDATES, TARGETS), loss(QUERIES, CANDIDATES, TARGETS), rtol=1e-6
    )
    assert np.isfinite(float(loss(interests, CANDIDATES, TARGETS)))


def test_in_batch_retrieval_round_trip():
    loss = InBatchRetrieval(
        COUNTS, temperature=0.2, num_hard_negatives=3, mask_own_items=False
    )
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    np.testing.assert_array_equal(
        again(QUERIES, CANDIDATES, TARGETS), loss(QUERIES, CANDIDATES, TARGETS)
    )
    plain = InBatchRetrieval(COUNTS, temperature=0.2, mask_own_items=False)
    assert float(plain(QUERIES, CANDIDATES, TARGETS)) > float(
        loss(QUERIES, CANDIDATES, TARGETS)
    )


def test_in_batch_retrieval_needs_a_context_for_own_items():
    message = "`context` of `InBatchRetrieval` must be given, to tell the user's own"
    with pytest.raises(ValueError, match=re.escape(message)):
        InBatchRetrieval()(QUERIES, CANDIDATES, TARGETS)


class UserModel(tfrs.Model):
    """A user's own two towers, with a loss of ours and one query a user."""

    def __init__(self, objective):
        super().__init__()
        self.items = keras.layers.Embedding(ITEMS + 1, WIDTH, mask_zero=True)
        self.pool = keras.layers.GlobalAveragePooling1D()
        self.objective = objective

    def compute_loss(self, features, training=False):
        history, next_item = features["history"], features["next"]
        if isinstance(self.objective, MaskedItems):
            return self.masked_loss(history, next_item)
        queries = self.pool(self.items(history))  # [B, D]
        if not takes_context(self.objective):
            catalogue = self.items(tf.range(1, ITEMS + 1))
            return self.objective(queries, catalogue, next_item - 1)
        candidates = CandidateLookup(lambda rows: self.items(rows + 1), ITEMS)
        # The only target of a row stands behind its newest item.
        width = tf.shape(history)[1]
        targets = tf.pad(next_item[:, tf.newaxis], [[0, 0], [width - 1, 0]])
        context = batch_context(history, targets)
        return self.objective(queries, candidates, next_item - 1, context=context)

    def masked_loss(self, history, next_item):
        """Each hidden item is guessed from the ones of its row that are seen."""
        targets = tf.concat([history[:, 1:], next_item[:, tf.newaxis]], axis=1)
        rows = self.objective.prepare({"history": history, "targets": targets})
        seen = tf.where(rows["hidden"], 0, rows["history"])
        learn = tf.where(rows["targets"] > 0)  # [M, 2]
        queries = tf.gather(self.pool(self.items(seen)), learn[:, 0])
        items = tf.gather_nd(rows["targets"], learn) - 1
        return self.objective(queries, self.items(tf.range(1, ITEMS + 1)), items)


@pytest.mark.parametrize(
    "objective",
    [
        lambda: SampledSoftmax(UniformNegatives(6), seed=0),
        lambda: GBCE(6, seed=0),
        lambda: BinaryCrossEntropy(UniformNegatives(2), seed=0),
        lambda: InBatchRetrieval(),
        lambda: FullSoftmax(),
        lambda: SampledSoftmax(PopularityNegatives(COUNTS, 6), seed=0),
        lambda: SampledSoftmax(InBatchNegatives(COUNTS), seed=0),
        lambda: MaskedItems(rate=0.3, newest_only=0.8, seed=0),
    ],
    ids=[
        *("softmax", "gbce", "bce", "task"),
        *("full", "popularity", "in-batch", "masked"),
    ],
)
def test_a_users_own_model_learns(objective):
    keras.utils.set_random_seed(0)
    starts = np.random.default_rng(0).integers(0, ITEMS, 64)
    walks = 1 + (starts[:, None] + np.arange(4)) % ITEMS
    data = {"history": walks[:, :3], "next": walks[:, 3]}
    data = {name: values.astype("int32") for name, values in data.items()}
    model = UserModel(objective())
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()
    model.fit(dataset, steps_per_epoch=60, verbose=0)
    queries = model.pool(model.items(tf.constant(data["history"])))
    scores = tf.matmul(queries, model.items.embeddings[1:], transpose_b=True).numpy()
    for row, history in enumerate(data["history"]):
        scores[row, history - 1] = -np.inf
    hits = scores.argmax(axis=1) == data["next"] - 1
    # Of ten unseen items. The mean cannot tell directions, and who hides the newest
    # item has learned from two items what is asked here of three.
    masked = isinstance(model.objective, MaskedItems)
    assert hits.mean() > (0.25 if masked else 0.5)
    if hasattr(model.objective, "weights"):
        assert any(w is model.objective.weights[0] for w in model.weights)
