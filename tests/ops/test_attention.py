"""Scaled dot-product attention: known answers, masks, and what padding cannot do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.ops import dot_product_attention

# Different primes: users, heads, positions, attended positions, width of a head.
B, H, T, S, K = 2, 3, 5, 7, 11


def draw(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return tf.constant(values, tf.float32)


def weighed(*arguments, **options):
    """The output and the weights."""
    return dot_product_attention(*arguments, return_weights=True, **options)


def test_hand_set_weights():
    # One query, two keys; the logits are ln 3 and 0, hence the weights 3/4 and 1/4.
    query = tf.constant([[[[math.log(3.0) * math.sqrt(2.0), 0.0]]]])
    key = tf.constant([[[[1.0, 0.0], [0.0, 1.0]]]])
    value = tf.constant([[[[4.0, 0.0], [0.0, 8.0]]]])
    output, weights = weighed(query, key, value)
    np.testing.assert_allclose(weights, [[[[3 / 4, 1 / 4]]]], rtol=1e-6)
    np.testing.assert_allclose(output, [[[[3.0, 2.0]]]], rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(B, T, S), (1, T, S), (B, 1, S), (1, 1, S), (T, S), (B, T, 1)]
)
def test_equals_a_loop_over_visible_positions(shape):
    query, key, value = (
        draw(B, H, T, K),
        draw(B, H, S, K, seed=1),
        draw(B, H, S, K, seed=2),
    )
    mask = np.random.default_rng(3).random(shape) < 0.5
    mask[0, 0] = False  # at least one row may attend to nothing
    output, weights = weighed(query, key, value, tf.constant(mask))
    visible = np.broadcast_to(mask, [B, T, S])
    for b, h, t in np.ndindex(B, H, T):
        seen = np.flatnonzero(visible[b, t])
        logits = [np.dot(query[b, h, t], key[b, h, s]) / math.sqrt(K) for s in seen]
        shares = np.exp(logits) / np.sum(np.exp(logits))
        expected = sum(
            (share * value[b, h, s] for share, s in zip(shares, seen, strict=True)),
            start=np.zeros(K),
        )
        np.testing.assert_allclose(output[b, h, t], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            weights.numpy()[b, h, t, seen], shares, rtol=1e-4, atol=1e-6
        )
        hidden = np.delete(weights.numpy()[b, h, t], seen)
        assert (hidden == 0).all()  # exactly, not nearly


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_hidden_values_do_not_matter_bit_for_bit(dtype):
    query, key, value = (
        tf.cast(draw(B, H, T, K, seed=seed), dtype) for seed in range(3)
    )
    mask = np.tril(np.ones([1, T, T], bool))
    expected = weighed(query, key, value, tf.constant(mask))
    # The largest finite logits: a penalty added to them would not hide them.
    huge = tf.cast(tf.fill([B, H, 1, K], 200.0), dtype)
    junk_key = tf.concat([key[:, :, :-1], huge], axis=2)
    junk_value = tf.concat([value[:, :, :-1], -huge], axis=2)
    found = weighed(query, junk_key, junk_value, tf.constant(mask))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours[:, :, :-1], theirs[:, :, :-1])
    assert not np.array_equal(found[0][:, :, -1], expected[0][:, :, -1])


@pytest.mark.parametrize("hidden", [1e6, 3e10])
def test_large_penalties_are_not_enough(hidden):
    # Such logits under the mask beat "- 1e5" and "- 1e9", and an addition of the lowest
    # float would round the visible logits away in a fully hidden row.
    query = tf.ones([1, 1, 1, 1])
    key = tf.constant([[[[1.0], [hidden]]]])
    value = tf.constant([[[[3.0], [5.0]]]])
    mask = tf.constant([[[True, False]]])
    output, weights = weighed(query, key, value, mask)
    np.testing.assert_array_equal(output, [[[[3.0]]]])
    np.testing.assert_array_equal(weights, [[[[1.0, 0.0]]]])


def test_a_row_without_a_key_gives_exact_zeros():
    mask = np.ones([B, T, T], bool)
    mask[1, 2] = False
    output, weights = weighed(
        *(draw(B, H, T, K, seed=seed) for seed in range(3)), tf.constant(mask)
    )
    np.testing.assert_array_equal(output[1, :, 2], np.zeros([H, K]))
    np.testing.assert_array_equal(weights[1, :, 2], np.zeros([H, T]))
    assert np.abs(output[0]).min() > 0


def test_gradients_are_finite_in_rows_without_a_key():
    query, key, value = (draw(1, 1, T, K, seed=seed) for seed in range(3))
    mask = tf.constant(np.tril(np.ones([1, T, T], bool), k=-1))
    with tf.GradientTape() as tape:
        tape.watch([query, key, value])
        output = dot_product_attention(query, key, value, mask)
        loss = tf.reduce_sum(output**2)
    for gradient in tape.gradient(loss, [query, key, value]):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


def test_softmax_is_float32_in_half_precision():
    # 2,048 equal keys: in float16 their weights would not sum to one half of 1 + 1.
    width, keys = 1, 2048
    zeros = tf.zeros([1, 1, 1, width], tf.float16)
    key = tf.zeros([1, 1, keys, width], tf.float16)
    _, weights = weighed(zeros, key, key)
    assert weights.dtype == tf.float16
    np.testing.assert_array_equal(weights, np.full([1, 1, 1, keys], 1 / keys))


def test_dropout_touches_the_output_and_not_the_returned_weights():
    arguments = [draw(B, H, T, K, seed=seed) for seed in range(3)]
    seed = tf.constant([1, 2], tf.int64)
    plain, weights = weighed(*arguments)
    dropped, same_weights = weighed(*arguments, dropout_rate=0.5, dropout_seed=seed)
    np.testing.assert_array_equal(same_weights, weights)
    assert np.abs(dropped - plain).max() > 0.1


def test_dropout_needs_a_seed():
    arguments = [draw(1, 1, 2, 3)] * 3
    message = (
        r"`dropout_seed` must be an int tensor of shape \[2\].*"
        r"Received: dropout_seed=None, dropout_rate=0\.5\."
    )
    with pytest.raises(ValueError, match=message):
        dot_product_attention(*arguments, dropout_rate=0.5)
