"""The same weights, the same outputs: in both Keras, and as Keras' own attention."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.catalogue import INPUTS, LENGTH, MASK, SPECS, USERS, WIDTH
from tests.conformance.other_keras import outputs_of
from tests.weights import randomize
from tfrs_selfattn import layers
from tfrs_selfattn._keras import KERAS_3, keras

HEADS, HEAD_WIDTH = 2, 3


def test_weights_move_between_keras_2_and_keras_3(run_python, tmp_path):
    built = {spec.name: randomize(spec.build(), seed=3) for spec in SPECS}
    np.savez(
        tmp_path / "weights.npz",
        **{
            f"{name}/{i}": np.array(variable)
            for name, layer in built.items()
            for i, variable in enumerate(layer.trainable_weights)
        },
    )
    module = "tests.conformance.other_keras"
    paths = [str(tmp_path / "weights.npz"), str(tmp_path / "outputs.npz")]
    done = run_python("-m", module, *paths, legacy_keras=KERAS_3)
    assert done.returncode == 0, done.stdout
    theirs = np.load(tmp_path / "outputs.npz")
    assert bool(theirs["keras_3"]) is not KERAS_3
    for spec in SPECS:
        ours = np.stack(outputs_of(spec, built[spec.name]))
        np.testing.assert_allclose(
            theirs[spec.name], ours, rtol=1e-5, atol=1e-5, err_msg=spec.name
        )


@pytest.fixture
def both():
    """Our attention, and Keras' with the same weights."""
    ours = layers.MultiHeadSelfAttention(HEADS, HEAD_WIDTH)
    ours.build([USERS, LENGTH, WIDTH])
    randomize(ours, seed=7)
    theirs = keras.layers.MultiHeadAttention(HEADS, HEAD_WIDTH)
    theirs(INPUTS, INPUTS)
    split = [WIDTH, HEADS, HEAD_WIDTH]
    values = []
    for name in ("query", "key", "value"):
        values.append(np.array(getattr(ours, f"_{name}_kernel")).reshape(split))
        values.append(np.array(getattr(ours, f"_{name}_bias")).reshape(split[1:]))
    output = np.array(ours._output_kernel).reshape([HEADS, HEAD_WIDTH, WIDTH])
    theirs.set_weights([*values, output, np.array(ours._output_bias)])
    return ours, theirs


def test_equals_keras_attention_where_both_define_the_answer(both):
    ours, theirs = both
    output, scores = ours(INPUTS, mask=MASK, return_attention_scores=True)
    # Keras takes the padding mask of keys as an attention mask.
    expected, expected_scores = theirs(
        INPUTS,
        INPUTS,
        attention_mask=np.repeat(MASK[:, np.newaxis, :], LENGTH, axis=1),
        use_causal_mask=True,
        return_attention_scores=True,
    )
    attends = np.logical_and.accumulate(~MASK, axis=1) == 0  # has a key to attend to
    assert attends.sum() == 8
    np.testing.assert_allclose(
        np.array(output)[attends], np.array(expected)[attends], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        np.swapaxes(scores, 1, 2)[attends],
        np.swapaxes(expected_scores, 1, 2)[attends],
        rtol=1e-5,
        atol=1e-6,
    )


def test_differs_from_keras_attention_where_nothing_may_be_attended_to(both):
    ours, theirs = both
    nothing = np.zeros([LENGTH, LENGTH], bool)
    bias = np.broadcast_to(np.array(ours._output_bias), INPUTS.shape)
    np.testing.assert_array_equal(ours(INPUTS, attention_mask=nothing), bias)
    scores_too = {"return_attention_scores": True}
    np.testing.assert_array_equal(
        ours(INPUTS, attention_mask=nothing, **scores_too)[0], bias
    )
    mask = tf.constant(nothing[np.newaxis].repeat(USERS, 0))
    with_scores, scores = theirs(INPUTS, INPUTS, attention_mask=mask, **scores_too)
    without = theirs(INPUTS, INPUTS, attention_mask=mask)
    if KERAS_3:  # zeros like ours, but only when the scores are asked for
        np.testing.assert_allclose(with_scores, bias, rtol=1e-5, atol=1e-6)
    else:  # the average of all that is hidden
        np.testing.assert_allclose(scores, 1.0 / LENGTH, rtol=1e-5)
    assert np.abs(np.array(without) - bias).max() > 0.1
