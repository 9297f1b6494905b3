"""A user's own TFRS model, whose metric can be changed."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn._keras import keras
from tfrs_selfattn.evaluation import CorpusTopK

ITEMS = [f"item {n}" for n in range(40)]
KS = (1, 3, 10, 40)


def with_factorized_top_k(items, candidate_model):
    index = tfrs.layers.factorized_top_k.Streaming(k=max(KS))
    embedded = items.map(lambda ids: (ids, candidate_model(ids)))
    return tfrs.metrics.FactorizedTopK(index.index_from_dataset(embedded), ks=KS)


def with_corpus_top_k(items, candidate_model):
    return CorpusTopK(items.map(lambda ids: (ids, candidate_model(ids))), ks=KS)


class TwoTowers(tfrs.Model):
    def __init__(self, make_metric):
        super().__init__()
        self.queries = keras.layers.Embedding(25, 6, "random_normal")
        lookup = keras.layers.StringLookup(vocabulary=ITEMS, mask_token=None)
        table = keras.layers.Embedding(len(ITEMS) + 1, 6, "random_normal")
        self.candidates = keras.Sequential([lookup, table])
        items = tf.data.Dataset.from_tensor_slices(ITEMS).batch(16)
        self.task = tfrs.tasks.Retrieval(metrics=make_metric(items, self.candidates))

    def compute_loss(self, inputs, training=False):
        return self.task(
            self.queries(inputs["user"]),
            self.candidates(inputs["item"]),
            candidate_ids=inputs["item"],
            sample_weight=inputs["weight"],
            compute_metrics=not training,
        )


def batches():
    random = np.random.default_rng(0)
    users = random.integers(0, 25, 200)
    items = [ITEMS[(user * 3 + step) % 40] for user, step in enumerate(users)]
    weights = random.integers(0, 3, 200).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices(
        {"user": users, "item": items, "weight": weights}
    ).batch(64)
