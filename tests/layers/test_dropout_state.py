"""Dropout of the layers: seeds, counters, checkpoints, replicas."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.catalogue import SPECS
from tests.layers.two_replicas import LEARNING, NAMES
from tests.weights import seed_states
from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras

INPUTS = np.random.default_rng(0).normal(size=[4, 5, 6]).astype("float32")


def encoder(seed):
    return layers.SequenceEncoder(
        [
            layers.TransformerBlock(
                layers.MultiHeadSelfAttention(2, 3, dropout=0.5, seed=seed),
                layers.FeedForward(8, dropout=0.5, seed=_after(seed, 1)),
                dropout=0.5,
                seed=_after(seed, 2),
            )
        ],
        position=layers.PositionEmbedding(8, embeddings_initializer="zeros"),
        dropout=0.5,
        seed=_after(seed, 50),
    )


def _after(seed, steps):
    return None if seed is None else seed + steps


def copies(*built):
    """Gives all the same weights; the state of dropout stays each layer's own."""
    for layer in built:
        layer.build(INPUTS.shape)
        for weight, first in zip(
            layer.trainable_weights, built[0].trainable_weights, strict=True
        ):
            weight.assign(np.array(first))
    return built


def test_the_same_seed_draws_the_same():
    first, second = copies(encoder(3), encoder(3))
    for _ in range(2):
        np.testing.assert_array_equal(
            first(INPUTS, training=True), second(INPUTS, training=True)
        )


def test_another_seed_draws_another_mask():
    first, second = copies(encoder(3), encoder(4))
    difference = np.array(first(INPUTS, training=True) - second(INPUTS, training=True))
    assert np.abs(difference).max() > 0.1


def test_every_step_draws_another_mask():
    (layer,) = copies(encoder(3))
    difference = np.array(layer(INPUTS, training=True) - layer(INPUTS, training=True))
    assert np.abs(difference).max() > 0.1


def test_no_seed_draws_one_that_keras_governs():
    def seeds():
        keras.utils.set_random_seed(5)
        return [
            np.array(state).tolist() for state in seed_states(*copies(encoder(None)))
        ]

    first, second = seeds(), seeds()
    assert first == second
    keras.utils.set_random_seed(6)
    assert [np.array(s).tolist() for s in seed_states(*copies(encoder(None)))] != first


def test_no_two_parts_of_a_model_draw_the_same():
    (layer,) = copies(encoder(3))
    seeds = [int(np.array(state)[0]) for state in seed_states(layer)]
    assert len(seeds) == 4  # the encoder, the block, its attention and feed-forward
    assert len(set(seeds)) == 4


def test_inference_neither_drops_nor_counts():
    (layer,) = copies(encoder(3))
    np.testing.assert_array_equal(layer(INPUTS), layer(INPUTS, training=False))
    assert all(int(np.array(state)[1]) == 0 for state in seed_states(layer))


def test_the_mean_over_many_draws_is_the_output_without_dropout():
    layer = layers.MultiHeadSelfAttention(2, 3, dropout=0.3, seed=1)
    plain = layer(INPUTS).numpy()
    function = tf.function(lambda: layer(INPUTS, training=True))
    draws = np.stack([function().numpy() for _ in range(400)])
    chance = 5 * draws.std(axis=0) / np.sqrt(len(draws)) + 0.01
    assert (np.abs(draws.mean(axis=0) - plain) < chance).all()


def test_without_dropout_there_is_no_state():
    layer = layers.TransformerBlock(
        layers.MultiHeadSelfAttention(2, 3), layers.FeedForward(8)
    )
    layer.build(INPUTS.shape)
    assert seed_states(layer) == []


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def model():
        return keras.Sequential([keras.Input(INPUTS.shape[1:]), encoder(3)])

    def train(model, optimizer, steps):
        targets = np.ones(INPUTS.shape, np.float32)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(INPUTS, training=True) - targets) ** 2)
            weights = model.trainable_variables
            gradients = tape.gradient(loss, weights)
            optimizer.apply_gradients(zip(gradients, weights, strict=True))

    whole, killed, resumed = model(), model(), model()
    start = whole.get_weights()
    for each in (whole, killed):
        each.set_weights(start)

    train(whole, keras.optimizers.Adam(0.01), 4)
    optimizer = keras.optimizers.Adam(0.01)
    train(killed, optimizer, 2)
    checkpoint = tf.train.Checkpoint(model=killed, optimizer=optimizer)
    path = checkpoint.save(str(tmp_path / "checkpoint"))

    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(resumed.trainable_variables)
    status = tf.train.Checkpoint(model=resumed, optimizer=optimizer).restore(path)
    status.assert_existing_objects_matched()
    train(resumed, optimizer, 2)
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def replicas(run_python):
    """What `two_replicas.py` saw under the Keras of this process."""
    from tfrs_selfattn._keras import KERAS_3

    done = run_python("-m", "tests.layers.two_replicas", legacy_keras=not KERAS_3)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.splitlines()[-1])


def test_every_layer_with_dropout_ran_on_two_replicas(replicas):
    assert set(replicas["drawing"]) == set(NAMES)
    drawing = {spec.cls for spec in SPECS if "dropout" in spec.kwargs()}
    assert drawing == {spec.cls for spec in SPECS if spec.name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_two_replicas(replicas, name):
    seen = replicas["drawing"][name]
    first, second = (np.array(step) for step in seen["steps"])
    # Each replica and each step drops other elements.
    assert np.abs(first[0] - first[1]).max() > 1e-3
    assert np.abs(first - second).reshape([2, -1]).max(axis=1).min() > 1e-3
    # Each draw counts once, however many replicas there are.
    assert seen["counters"] == [[count] * 2 for count in seen["counters_alone"]]
    assert min(seen["counters_alone"]) >= 2
    # The first of two replicas draws what one alone draws.
    for step, alone in zip(seen["steps"], seen["alone"], strict=True):
        np.testing.assert_allclose(step[0], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_two_replicas_without_dropout_are_alike(replicas, spec):
    first, second, alone = (np.array(x) for x in replicas["alike"][spec.name])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LEARNING)
def test_gradients_of_two_replicas_add_up(replicas, name):
    both, alone = replicas["learned"][name]
    assert len(both) == len(alone) > 1
    for ours, theirs in zip(both, alone, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * max(scale, 1))
    assert max(np.abs(each).max() for each in alone) > 0.1
