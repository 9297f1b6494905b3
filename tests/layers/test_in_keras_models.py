"""Our layers among others: several inputs, Sequential, subclassed models, exports."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.weights import randomize
from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras

IDS = np.array([[0, 0, 3, 4, 1], [2, 5, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)
SEGMENTS = np.array([[0, 0, 1, 1, 2], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)
MASK = IDS != 0


def encoder():
    return layers.SequenceEncoder(
        [
            layers.TransformerBlock(
                layers.MultiHeadSelfAttention(2, 3, dropout=0.2),
                layers.FeedForward(7, dropout=0.2),
                dropout=0.2,
            )
        ],
        position=layers.PositionEmbedding(9),
    )


def embedding():
    return keras.layers.Embedding(6, 8, mask_zero=True)


def test_implicit_mask_beside_segment_ids(tmp_path):
    ids = keras.Input([None], dtype="int32", name="ids")
    segment_ids = keras.Input([None], dtype="int32", name="segment_ids")
    items, encode = embedding(), encoder()
    model = keras.Model([ids, segment_ids], encode(items(ids), segment_ids=segment_ids))
    randomize(model)
    found = model([tf.constant(IDS), tf.constant(SEGMENTS)])
    vectors = tf.identity(tf.convert_to_tensor(items(tf.constant(IDS))))
    expected = encode(vectors, mask=MASK, segment_ids=SEGMENTS)
    np.testing.assert_array_equal(found.numpy()[MASK], expected.numpy()[MASK])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again([tf.constant(IDS), tf.constant(SEGMENTS)]), found, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "others",
    [
        {"segment_ids": np.ones_like(IDS)},
        {"attention_mask": np.ones([5, 5], bool)},
        {"timestamps": np.arange(15).reshape([3, 5]), "request_times": IDS + 10**9},
    ],
    ids=lambda others: "+".join(others),
)
@pytest.mark.parametrize("how", ["eager", "graph", "functional"])
def test_no_other_argument_costs_the_implicit_mask(others, how):
    # Keras 3 hands the mask on by itself only when there is one tensor.
    if "timestamps" in others:
        biases = [layers.RelativeTimeBias(2)]
        layer = layers.HSTUBlock(2, 3, causal=False, biases=biases)
    else:
        layer = layers.MultiHeadSelfAttention(2, 3, causal=False)
    items = embedding()
    vectors = tf.identity(tf.convert_to_tensor(items(tf.constant(IDS))))
    others = {name: tf.constant(value) for name, value in others.items()}
    expected = layer(vectors, mask=tf.constant(MASK), **others)

    def call(ids):
        return layer(items(ids), **others)

    if how == "functional":
        ids = keras.Input([5], dtype="int32")
        call = keras.Model(ids, layer(items(ids), **others))
    elif how == "graph":
        call = tf.function(call)
    np.testing.assert_allclose(call(tf.constant(IDS)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["eager", "graph", "functional"])
@pytest.mark.parametrize("named", [False, True], ids=["by_place", "by_name"])
def test_no_mask_given_is_the_implicit_one(named, how):
    layer = layers.MultiHeadSelfAttention(2, 3, causal=False)
    items = embedding()
    allowed = tf.constant(np.random.default_rng(0).random([5, 5]) < 0.7)
    vectors = tf.identity(tf.convert_to_tensor(items(tf.constant(IDS))))
    expected = layer(vectors, mask=tf.constant(MASK), attention_mask=allowed)

    def call(ids):
        if named:
            return layer(items(ids), mask=None, attention_mask=allowed)
        return layer(items(ids), None, allowed)

    if how == "functional":
        ids = keras.Input([5], dtype="int32")
        call = keras.Model(ids, call(ids))
    elif how == "graph":
        call = tf.function(call)
    np.testing.assert_allclose(call(tf.constant(IDS)), expected, rtol=1e-5, atol=1e-6)


def test_a_mask_given_by_place_counts():
    layer = layers.MultiHeadSelfAttention(2, 3)
    items = embedding()(tf.constant(IDS))
    everything = tf.ones_like(MASK)
    np.testing.assert_array_equal(
        layer(items, everything), layer(tf.identity(items), mask=everything)
    )


def test_a_sequential_of_ids_to_one_vector():
    model = keras.Sequential([embedding(), encoder(), layers.SequencePooling("newest")])
    found = model(tf.constant(IDS)).numpy()
    assert found.shape == (3, 8)
    np.testing.assert_array_equal(found[2], np.zeros(8))
    # The same items on the other side of the padding.
    moved = np.array([[3, 4, 1, 0, 0], [0, 0, 0, 2, 5], [0, 0, 0, 0, 0]], np.int32)
    np.testing.assert_allclose(model(tf.constant(moved)), found, rtol=1e-4, atol=1e-5)
    predicted = model.predict(IDS, verbose=0)
    np.testing.assert_allclose(predicted, found, rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_under_a_graph_keeps_the_mask():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.items, self.encode = embedding(), encoder()
            self.pool = layers.SequencePooling("mean")

        def call(self, ids, training=None):
            return self.pool(self.encode(self.items(ids), training=training))

    model = Model()
    expected = model(tf.constant(IDS))
    function = tf.function(
        model, input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )
    np.testing.assert_allclose(function(IDS), expected, rtol=1e-5, atol=1e-6)
    states = tf.convert_to_tensor(model.encode(model.items(tf.constant(IDS))))
    pooled = layers.SequencePooling("mean")(states.numpy(), mask=MASK)
    np.testing.assert_allclose(expected, pooled, rtol=1e-5, atol=1e-6)


def test_scores_in_a_functional_model():
    inputs = keras.Input([5, 6])
    layer = layers.MultiHeadSelfAttention(2, 3)
    outputs, scores = layer(inputs, return_attention_scores=True)
    model = keras.Model(inputs, [outputs, scores])
    found, weights = model(np.ones([4, 5, 6], np.float32))
    assert found.shape == (4, 5, 6)
    assert weights.shape == (4, 2, 5, 5)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1.0, rtol=1e-6)


def test_numpy_masks_are_as_good_as_tensors():
    layer = layers.MultiHeadSelfAttention(2, 3)
    inputs = np.random.default_rng(0).normal(size=[3, 5, 8]).astype("float32")
    everything = {
        "mask": MASK,
        "segment_ids": SEGMENTS,
        "attention_mask": np.tri(5) > 0,
    }
    tensors = {name: tf.constant(value) for name, value in everything.items()}
    np.testing.assert_array_equal(
        layer(inputs, **everything), layer(tf.constant(inputs), **tensors)
    )


def test_the_exported_graph_needs_no_compiler(tmp_path):
    layer = encoder()
    layer.build([None, None, 8])
    module = tf.Module()
    module.layer = layer
    module.serve = tf.function(
        lambda x, mask: layer(x, mask=mask),
        input_signature=[
            tf.TensorSpec([None, None, 8], tf.float32),
            tf.TensorSpec([None, None], tf.bool),
        ],
    )
    expected = module.serve(tf.ones([3, 5, 8]), tf.constant(MASK))
    tf.saved_model.save(module, str(tmp_path))
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert functions
    for function in functions:
        assert not function.attr["_XlaMustCompile"].b
    again = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(
        again.serve(tf.ones([3, 5, 8]), tf.constant(MASK)), expected, rtol=1e-6
    )
