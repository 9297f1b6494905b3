"""Our layers in a user's own TFRS model, on raw string ids."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import (
    AttentionPooling,
    FeedForward,
    MultiHeadSelfAttention,
    PositionEmbedding,
    SequenceEncoder,
    SequencePooling,
    TransformerBlock,
)

pytestmark = pytest.mark.legacy_keras

ITEMS = [f"item {i}" for i in range(12)]
WIDTH = 8


class UserModel(tfrs.Model):
    def __init__(self, pooling):
        super().__init__()
        self.query = keras.Sequential(
            [
                keras.layers.StringLookup(vocabulary=ITEMS, mask_token=""),
                keras.layers.Embedding(len(ITEMS) + 2, WIDTH, mask_zero=True),
                SequenceEncoder(
                    [TransformerBlock(MultiHeadSelfAttention(2, 4), FeedForward(16))],
                    position=PositionEmbedding(max_length=10),
                ),
                pooling,
            ]
        )
        self.candidate = keras.Sequential(
            [
                keras.layers.StringLookup(vocabulary=ITEMS, mask_token=None),
                keras.layers.Embedding(len(ITEMS) + 1, WIDTH),
            ]
        )
        self.task = tfrs.tasks.Retrieval()

    def compute_loss(self, features, training=False):
        return self.task(
            self.query(features["history"], training=training),
            self.candidate(features["next"]),
            compute_metrics=False,
        )


def walks_around_the_clock():
    """Histories whose next item is the one after the last, padded on the left."""
    random = np.random.default_rng(0)
    starts = random.integers(0, 12, 64)
    lengths = random.integers(1, 6, 64)
    walks = [
        [(s + i) % 12 for i in range(n + 1)]
        for s, n in zip(starts, lengths, strict=True)
    ]
    histories = [
        [""] * (6 - len(walk)) + [ITEMS[i] for i in walk[:-1]] for walk in walks
    ]
    return {"history": histories, "next": [ITEMS[walk[-1]] for walk in walks]}


def test_a_users_own_model_learns_the_next_item():
    keras.utils.set_random_seed(0)
    data = walks_around_the_clock()
    histories = data["history"]
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()

    model = UserModel(SequencePooling())
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    losses = model.fit(dataset, steps_per_epoch=4, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]

    index = tfrs.layers.factorized_top_k.BruteForce(model.query, k=1)
    index.index(model.candidate(tf.constant(ITEMS)), tf.constant(ITEMS))
    _, found = index(tf.constant(histories))
    hits = np.mean(found.numpy()[:, 0] == np.array(data["next"], "S"))
    assert hits > 0.8

    right = [[x for x in row if x] + [""] * row.count("") for row in histories]
    np.testing.assert_allclose(
        model.query(tf.constant(right)),
        model.query(tf.constant(histories)),
        rtol=1e-3,
        atol=1e-4,
    )


def test_several_interests_learn_with_the_retrieval_task():
    keras.utils.set_random_seed(0)
    data = walks_around_the_clock()
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()
    model = UserModel(AttentionPooling(num_interests=3))
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    losses = model.fit(dataset, steps_per_epoch=4, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    queries = model.query(tf.constant(data["history"]))
    candidates = model.candidate(tf.constant(ITEMS))
    assert queries.shape == (64, 3, WIDTH)
    # The task's loss takes the maximum over interests; so does the ranking.
    loss = model.task(queries, model.candidate(tf.constant(data["next"])))
    scores = tf.reduce_max(tf.einsum("bkd,nd->bkn", queries, candidates), axis=1)
    batch = tf.gather(scores, [ITEMS.index(item) for item in data["next"]], axis=1)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(64), batch)
    np.testing.assert_allclose(loss, tf.reduce_sum(expected), rtol=1e-4)
    hits = tf.argmax(scores, axis=1).numpy() == [ITEMS.index(x) for x in data["next"]]
    assert hits.mean() > 0.6
