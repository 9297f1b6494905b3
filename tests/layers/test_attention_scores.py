"""The weights that blocks and encoders give to look at."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.weights import randomize
from tfrs_selfattn import layers

B, T, D, H = 3, 6, 8, 2
REAL = np.arange(T) >= np.array([[0], [2], [T]])  # the last row is all padding
SEGMENTS = np.array([[1, 1, 2, 2, 2, 3], [0, 0, 1, 1, 2, 2], [0] * T])
INPUTS = np.random.default_rng(0).normal(size=[B, T, D]).astype(np.float32)
CAUSAL = np.tril(np.ones([T, T], bool))


def block(norm="pre"):
    attention = layers.MultiHeadSelfAttention(H, D // H, dropout=0.4)
    feed_forward = layers.FeedForward(11, gated=norm == "gated")
    return layers.TransformerBlock(attention, feed_forward, norm=norm, dropout=0.4)


def encoder(*norms):
    layer = layers.SequenceEncoder(
        [block(norm) for norm in norms],
        position=layers.PositionEmbedding(T),
    )
    layer(INPUTS)
    return randomize(layer)


@pytest.mark.parametrize("norm", ["pre", "post", "query", "gated"])
@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["padded", "packed"])
def test_each_block_s_weights_are_shares_of_what_it_may_see(norm, segments):
    layer = encoder(norm, norm)
    masks = {"mask": tf.constant(REAL)}
    may_see = REAL[:, None, :] & REAL[:, :, None] & CAUSAL
    if segments is not None:
        masks["segment_ids"] = tf.constant(segments)
        may_see = may_see & (segments[:, None, :] == segments[:, :, None])
    plain = layer(INPUTS, **masks)
    states, scores = layer(INPUTS, **masks, return_attention_scores=True)
    np.testing.assert_allclose(states, plain, atol=1e-5)
    assert [tuple(weights.shape) for weights in scores] == [(B, H, T, T)] * 2
    for weights in scores:
        weights = weights.numpy()
        assert not weights[~np.broadcast_to(may_see[:, None], weights.shape)].any()
        sums = np.broadcast_to(may_see.any(-1)[:, None], [B, H, T])
        np.testing.assert_allclose(weights.sum(-1), sums, atol=1e-6)


def test_an_encoder_s_weights_are_its_blocks_one_after_the_other():
    layer = encoder("pre", "post")
    mask = tf.constant(REAL)
    _, scores = layer(INPUTS, mask=mask, return_attention_scores=True)
    states = layer.enter(tf.where(REAL[..., None], INPUTS, 0.0), mask=mask)
    for one, weights in zip(layer.blocks, scores, strict=True):
        states, expected = one(states, mask=mask, return_attention_scores=True)
        np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert np.abs(scores[0] - scores[1]).max() > 0.01  # each block has its own


def test_a_block_without_shares_of_a_whole_says_so():
    layer = layers.SequenceEncoder([layers.HSTUBlock(H, D // H)])
    with pytest.raises(ValueError, match=r"HSTUBlock, which has none.*leaving items"):
        layer(INPUTS, return_attention_scores=True)
