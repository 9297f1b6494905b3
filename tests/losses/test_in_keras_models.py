"""The losses in a model of plain Keras, of either version."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import keras
from tfrs_selfattn.losses import (
    GBCE,
    BinaryCrossEntropy,
    MaskedItems,
    SampledSoftmax,
    UniformNegatives,
    batch_context,
)

ITEMS, WIDTH = 12, 5
HISTORY = tf.constant([[1, 2, 3, 4], [5, 6, 7, 0]])
TARGETS = tf.constant([[2, 3, 4, 5], [6, 7, 8, 0]])
LOSSES = {
    "softmax": lambda: SampledSoftmax(UniformNegatives(4), seed=1),
    "gbce": lambda: GBCE(4, seed=1),
    "bce": lambda: BinaryCrossEntropy(seed=1),
}


@keras.saving.register_keras_serializable(package="tests")
class Retriever(keras.Model):
    """A user's own model; the loss is an attribute like any layer."""

    def __init__(self, objective, **kwargs):
        super().__init__(**kwargs)
        self.objective = objective
        self.items = keras.layers.Embedding(ITEMS + 1, WIDTH)
        self.mix = keras.layers.Dense(WIDTH)

    def get_config(self):
        return {"objective": keras.saving.serialize_keras_object(self.objective)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["objective"]))

    def call(self, history):
        return self.mix(self.items(history))

    def loss_of(self, history, targets):
        learn = tf.where(targets > 0)
        return self.objective(
            tf.gather_nd(self(history), learn),
            tf.convert_to_tensor(self.items.embeddings)[1:],
            tf.gather_nd(targets, learn) - 1,
            context=batch_context(history, targets),
        )

    def step(self, optimizer):
        with tf.GradientTape() as tape:
            loss = self.loss_of(HISTORY, TARGETS)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return float(loss)


def make(name):
    keras.utils.set_random_seed(0)
    model = Retriever(LOSSES[name]())
    model(HISTORY)
    return model


@pytest.mark.parametrize("name", LOSSES)
def test_trains_and_its_file_goes_on_where_it_was(name, tmp_path):
    model = make(name)
    optimizer = keras.optimizers.Adam(0.1)
    losses = [model.step(optimizer) for _ in range(12)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert len(model.non_trainable_variables) == 1  # the counter of the draws
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for _ in range(2):
        found, expected = (
            float(each.loss_of(HISTORY, TARGETS)) for each in (again, model)
        )
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_keeps_the_counters(tmp_path):
    def objective():
        inner = SampledSoftmax(UniformNegatives(4), seed=1)
        return MaskedItems(inner, rate=0.5, seed=2)

    model, other = Retriever(objective()), Retriever(objective())
    rows = {"history": HISTORY, "targets": TARGETS}
    for each in (model, other):
        each(HISTORY)
    for _ in range(3):
        model.objective.prepare(rows)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=other).restore(path).assert_existing_objects_matched()
    np.testing.assert_array_equal(
        other.objective.prepare(rows)["hidden"], model.objective.prepare(rows)["hidden"]
    )
    counters = [np.array(weight).tolist() for weight in other.objective.weights]
    assert sorted(counters) == [[1, 0], [2, 4]]


def test_under_mixed_precision_the_loss_stays_float32():
    policies = keras.mixed_precision
    set_policy = getattr(policies, "set_dtype_policy", policies.set_global_policy)
    set_policy("mixed_float16")
    try:
        model = make("softmax")
        assert model(HISTORY).dtype == tf.float16
        loss = model.loss_of(HISTORY, TARGETS)
    finally:
        set_policy("float32")
    assert loss.dtype == tf.float32
    assert np.isfinite(float(loss))
