"""Our layers in a user's own TFRS model, on raw string ids."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import (
    PositionEmbedding,
    SequenceEncoder,
    SequencePooling,
    TransformerBlock,
)

pytestmark = pytest.mark.legacy_keras

ITEMS = [f"item {i}" for i in range(12)]
WIDTH = 8


class UserModel(tfrs.Model):
    def __init__(self):
        super().__init__()
        self.query = keras.Sequential(
            [
                keras.layers.StringLookup(vocabulary=ITEMS, mask_token=""),
                keras.layers.Embedding(len(ITEMS) + 2, WIDTH, mask_zero=True),
                SequenceEncoder(
                    [TransformerBlock(num_heads=2, key_dim=4, feed_forward_dim=16)],
                    position=PositionEmbedding(max_length=10),
                ),
                SequencePooling(),
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


def test_a_users_own_model_learns_the_next_item():
    keras.utils.set_random_seed(0)
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
    data = {"history": histories, "next": [ITEMS[walk[-1]] for walk in walks]}
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(32).repeat()

    model = UserModel()
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
