"""HSTU's pointwise attention against its loop, and what is normalised by what."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles
from tfrs_selfattn.ops import AttentionMask, pointwise_attention
from tfrs_selfattn.ops.attention import CHUNK_ROWS
from tfrs_selfattn.ops.biases import LinearBias, TimeBias

B, H, T, K, V = 2, 2, 7, 3, 5
random = np.random.default_rng(0)


def draw(*shape):
    return random.normal(size=shape).astype("float32")


QUERY, KEY, VALUE = draw(B, H, T, K), draw(B, H, T, K), draw(B, H, T, V)
PADDING = np.array([[0, 0, 1, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0, 0]], bool)
SEGMENTS = np.array([[0, 0, 1, 1, 2, 2, 2], [1, 2, 2, 3, 3, 0, 0]])
ALLOWED = random.random([B, T, T]) < 0.5


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"mask": PADDING},
        {"segment_ids": SEGMENTS},
        {"attention_mask": ALLOWED, "mask": PADDING},
    ],
    ids=lambda masks: "+".join(masks) or "none",
)
@pytest.mark.parametrize("biased", [False, True])
def test_equals_the_loop(biased, masks, causal):
    names = {"mask": "padding", "attention_mask": "allowed"}
    mask = AttentionMask(
        causal=causal, **{names.get(k, k): tf.constant(v) for k, v in masks.items()}
    )
    bias = [LinearBias(H)] if biased else []
    found = pointwise_attention(QUERY, KEY, VALUE, mask, bias=bias)
    expected = oracles.pointwise(
        QUERY,
        KEY,
        VALUE,
        [oracles.alibi(H)] if biased else [],
        causal=causal,
        **masks,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_without_a_key_gives_exact_zeros():
    mask = AttentionMask(padding=tf.constant(PADDING), causal=True)
    found = pointwise_attention(QUERY, KEY, VALUE, mask)
    np.testing.assert_array_equal(found[0, :, :2], 0.0)
    assert np.abs(found[0, :, 2:]).min(axis=-1).max() > 0


def test_is_divided_by_what_may_be_attended_to_and_not_by_the_width():
    # Equal keys and values: every weight is SiLU(1), and so is their mean.
    ones = tf.ones([1, 1, 6, 1])
    mask = AttentionMask(
        padding=tf.constant([[False, False, True, True, False, True]]), causal=True
    )
    found = pointwise_attention(ones, ones, ones, mask)
    expected = [0.0, 0.0, *[oracles.silu(1.0)] * 4]
    np.testing.assert_allclose(tf.squeeze(found), expected, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_chunks_do_not_show(causal):
    length = 3 * CHUNK_ROWS - 1
    query, key, value = (
        draw(1, 1, length, K),
        draw(1, 1, length, K),
        draw(1, 1, length, V),
    )
    found = pointwise_attention(query, key, value, AttentionMask(causal=causal))
    logits = np.matmul(query[0, 0], key[0, 0].T)
    weights = logits / (1.0 + np.exp(-logits))
    visible = np.tri(length) if causal else np.ones([length, length])
    weights = weights * visible / visible.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0, 0], weights @ value[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(dtype):
    mask = AttentionMask(padding=tf.constant(PADDING), causal=True)
    exact = pointwise_attention(QUERY, KEY, VALUE, mask)
    half = [tf.cast(tensor, dtype) for tensor in (QUERY, KEY, VALUE)]
    found = pointwise_attention(*half, mask)
    assert found.dtype == dtype
    np.testing.assert_allclose(tf.cast(found, tf.float32), exact, rtol=0, atol=0.03)


@pytest.mark.parametrize("block_size", [1, 3, 7, 9])
@pytest.mark.parametrize(
    "masks",
    [
        {"causal": True},
        {"window": 3},
        {"window": 4, "causal": True, "segment_ids": tf.constant(SEGMENTS)},
        {"padding": tf.constant(PADDING), "allowed": tf.constant(ALLOWED)},
    ],
    ids=lambda masks: "+".join(masks),
)
def test_blocks_have_the_gradient_of_tensorflow(masks, block_size):
    mask = AttentionMask(**masks)
    times = tf.constant(np.cumsum(10 ** random.integers(0, 6, [B, T]), 1), tf.int64)
    tensors = [*map(tf.constant, (QUERY, KEY, draw(B, H, T, K), draw(8, H)))]
    direction = draw(B, H, T, K)
    found = []
    for size in (block_size, None):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            *heads, table = tensors
            bias = [LinearBias(H), TimeBias(table, times, times + 100)]
            output = pointwise_attention(*heads, mask, bias=bias, block_size=size)
            loss = tf.reduce_sum(output * direction)
        found.append([output, *tape.gradient(loss, tensors)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_blocks_of_nothing():
    message = r"`block_size` must be a positive integer\. Received: block_size=0\."
    with pytest.raises(ValueError, match=message):
        pointwise_attention(QUERY, KEY, VALUE, AttentionMask(), block_size=0)
