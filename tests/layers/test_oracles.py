"""Every layer against float64 loops: prime shapes, no zero weight, left padding.

At padded positions a layer may give anything finite; only attention promises more.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests import oracles, weights
from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras

# All different: users, positions, width, heads, width of a head, hidden width.
B, T, D, H, K, F = 3, 7, 5, 2, 6, 13
random = np.random.default_rng(0)
INPUTS = random.normal(size=[B, T, D]).astype("float32")
# Padded on the left, in between and on the right; the first two leave causal rows
# without any key.
MASK = np.array(
    [[0, 0, 1, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 0]], bool
)
SEGMENTS = np.array(
    [[0, 0, 1, 1, 2, 2, 2], [0, 4, 4, 4, 4, 9, 9], [1, 2, 3, 3, 0, 0, 0]], np.int32
)
ATTENTION_MASK = random.random([B, T, T]) < 0.7

MASKS = {
    "none": {},
    "mask": {"mask": MASK},
    "segments": {"segment_ids": SEGMENTS},
    "attention_mask": {"attention_mask": ATTENTION_MASK},
    "shared_attention_mask": {"attention_mask": ATTENTION_MASK[0]},
    "all": {"mask": MASK, "segment_ids": SEGMENTS, "attention_mask": ATTENTION_MASK},
}
masks_of_every_kind = pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)


TIMES = np.cumsum(10 ** random.integers(0, 7, [B, T]), axis=1)
REQUESTS = TIMES + random.integers(0, 9999, [B, T])
ACTIVATIONS = {
    "relu": oracles.relu,
    "tanh": np.tanh,
    "gelu": oracles.gelu,
    "silu": oracles.silu,
}


def some_biases(heads):
    return [
        layers.RelativePositionBias(heads, num_buckets=6, max_distance=9),
        layers.AlibiBias(heads),
        layers.RelativeTimeBias(heads, num_buckets=40),
    ]


def bias_loops(layer):
    """What the biases of an attention layer should add."""
    by_distance, _, by_time = layer.biases
    return [
        oracles.distance_bias(np.array(by_distance._table), 9),
        oracles.alibi(layer.num_heads),
        oracles.time_bias(np.array(by_time._table), TIMES, REQUESTS),
    ]


def block(norm, *, activation="relu", gated=False, heads=H):
    return layers.TransformerBlock(
        layers.MultiHeadSelfAttention(heads, K),
        layers.FeedForward(F, activation=activation, gated=gated),
        norm=norm,
    )


def built(layer):
    layer.build([B, T, D])
    return weights.randomize(layer)


def real_positions(masks):
    real = masks.get("mask", np.ones([B, T], bool))
    return real & (masks.get("segment_ids", np.ones([B, T])) != 0)


def assert_close(actual, expected):
    np.testing.assert_allclose(np.array(actual), expected, rtol=1e-4, atol=1e-4)


@masks_of_every_kind
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both_ways"])
@pytest.mark.parametrize("heads", [1, H])
def test_attention(heads, causal, masks):
    layer = built(layers.MultiHeadSelfAttention(heads, K, causal=causal))
    output, scores = layer(INPUTS, **masks, return_attention_scores=True)
    # What stands under padding counts as zeros.
    inputs = np.where(real_positions(masks)[..., np.newaxis], INPUTS, 0.0)
    expected, expected_scores = oracles.attention(
        inputs, weights.of_attention(layer), heads, causal=causal, **masks
    )
    assert_close(output, expected)  # everywhere, also at padding
    assert_close(scores, expected_scores)


@masks_of_every_kind
@pytest.mark.parametrize("heads", [1, H])
@pytest.mark.parametrize(
    "options",
    [
        {"rotary": True},
        {"window": 3},
        {"biased": True},
        {"block_size": 3},
        {"rotary": True, "window": 4, "biased": True, "block_size": 2},
    ],
    ids=lambda options: "+".join(options),
)
def test_attention_with_positions_and_times(options, heads, masks):
    options, times = dict(options), {}
    if options.pop("biased", False):
        options["biases"] = some_biases(heads)
        times = {"timestamps": TIMES, "request_times": REQUESTS}
    causal = heads == 1
    layer = built(layers.MultiHeadSelfAttention(heads, K, causal=causal, **options))
    inputs = np.where(real_positions(masks)[..., np.newaxis], INPUTS, 0.0)
    expected, _ = oracles.attention(
        inputs,
        weights.of_attention(layer),
        heads,
        causal=causal,
        window=layer.window,
        rotary=layer.rotary,
        biases=bias_loops(layer) if layer.biases else [],
        **masks,
    )
    assert_close(layer(INPUTS, **masks, **times), expected)


@masks_of_every_kind
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both_ways"])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize("block_size", [None, 3])
def test_hstu_block(block_size, biased, causal, masks):
    biases = some_biases(H) if biased else []
    window = None if biased else 3
    layer = built(
        layers.HSTUBlock(
            H,
            K,
            causal=causal,
            biases=biases,
            window=window,
            block_size=block_size,
        )
    )
    times = {"timestamps": TIMES, "request_times": REQUESTS} if biased else {}
    expected = oracles.hstu_block(
        INPUTS,
        weights.of_hstu_block(layer),
        H,
        biases=bias_loops(layer) if biased else [],
        causal=causal,
        window=window,
        **masks,
    )
    real = real_positions(masks)
    assert_close(np.array(layer(INPUTS, **masks, **times))[real], expected[real])


def test_bias_layers_give_what_attention_adds():
    layer = built(layers.MultiHeadSelfAttention(H, K, biases=some_biases(H)))
    for bias, loop in zip(layer.biases, bias_loops(layer), strict=True):
        times = {"timestamps": TIMES, "request_times": REQUESTS}
        found = np.array(bias(INPUTS, **times))
        for place in np.ndindex(*found.shape):
            np.testing.assert_allclose(found[place], loop(*place), rtol=1e-5)


def test_attention_with_its_own_query():
    layer = built(layers.MultiHeadSelfAttention(H, K))
    query = random.normal(size=INPUTS.shape).astype("float32")
    expected, _ = oracles.attention(
        INPUTS, weights.of_attention(layer), H, query=query, causal=True
    )
    assert_close(layer(INPUTS, query=query), expected)


def test_attention_without_biases():
    layer = built(layers.MultiHeadSelfAttention(H, K, use_bias=False))
    assert len(layer.weights) == 4
    parts = {
        name: (np.array(getattr(layer, f"_{name}_kernel")), np.zeros(width))
        for name, width in [("query", H * K), ("key", H * K), ("value", H * K)]
    }
    parts["output"] = np.array(layer._output_kernel), np.zeros(D)
    expected, _ = oracles.attention(INPUTS, parts, H, causal=True)
    assert_close(layer(INPUTS), expected)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
def test_feed_forward(activation, gated):
    layer = built(layers.FeedForward(F, activation=activation, gated=gated))
    function = ACTIVATIONS[activation]
    expand, contract = weights.of_feed_forward(layer)
    expected = oracles.feed_forward(INPUTS, expand, contract, function, gated)
    assert_close(layer(INPUTS), expected)


@masks_of_every_kind
@pytest.mark.parametrize("norm", ["pre", "post", "query", "gated"])
def test_transformer_block(norm, masks):
    gated = norm == "gated"
    layer = built(block(norm, activation="silu" if gated else "relu", gated=gated))
    expected = oracles.transformer_block(
        INPUTS,
        weights.of_block(layer),
        H,
        norm=norm,
        activation=oracles.silu if gated else oracles.relu,
        gated=gated,
        causal=True,
        **masks,
    )
    real = real_positions(masks)
    assert_close(np.array(layer(INPUTS, **masks))[real], expected[real])


@pytest.mark.parametrize("count_from", ["newest", "oldest"])
@pytest.mark.parametrize("segmented", [False, True], ids=["rows", "segments"])
@pytest.mark.parametrize("max_length", [T, 2 * T])
def test_position_embedding(max_length, segmented, count_from):
    layer = built(layers.PositionEmbedding(max_length, count_from=count_from))
    segments = SEGMENTS if segmented else None
    real = MASK & (SEGMENTS != 0) if segmented else MASK
    found = np.array(layer(INPUTS, mask=MASK, segment_ids=segments))
    expected = oracles.add_positions(
        INPUTS, np.array(layer._embeddings), real, segments, count_from
    )
    assert_close(found[real], expected[real])


@pytest.mark.parametrize("count_from", ["newest", "oldest"])
def test_positions_past_the_last_share_it(count_from):
    layer = built(layers.PositionEmbedding(3, count_from=count_from))
    everything = np.ones([B, T], bool)
    function = tf.function(
        layer, input_signature=[tf.TensorSpec([None, None, D], tf.float32)]
    )
    expected = oracles.add_positions(
        INPUTS, np.array(layer._embeddings), everything, None, count_from
    )
    assert_close(function(INPUTS), expected)


@pytest.mark.parametrize("count_from", ["newest", "oldest"])
def test_segments_longer_than_the_learned_positions_share_the_last(count_from):
    segments = np.array([[1] * 4 + [2] * 3, [1] * 7, [1, 2, 2, 2, 2, 2, 0]], np.int32)
    layer = built(layers.PositionEmbedding(3, count_from=count_from))
    found = np.array(layer(INPUTS, segment_ids=segments))
    table = np.array(layer._embeddings)
    real = segments != 0
    expected = oracles.add_positions(INPUTS, table, real, segments, count_from)
    assert_close(found[real], expected[real])
    assert np.isfinite(found).all()


@masks_of_every_kind
@pytest.mark.parametrize("final_norm", [True, False])
def test_sequence_encoder(final_norm, masks):
    norms = ["query", "pre", "post"]
    encoder = layers.SequenceEncoder(
        [block(norm) for norm in norms],
        position=layers.PositionEmbedding(T),
        scale_inputs=True,
        final_norm=final_norm,
    )
    built(encoder)
    real = real_positions(masks)
    states = np.where(real[..., np.newaxis], INPUTS, 0.0) * np.sqrt(D)
    states = oracles.add_positions(
        states,
        np.array(encoder.position._embeddings),
        real,
        masks.get("segment_ids"),
        "newest",
    )
    for norm, layer in zip(norms, encoder.blocks, strict=True):
        states = oracles.transformer_block(
            states,
            weights.of_block(layer),
            H,
            norm=norm,
            activation=oracles.relu,
            causal=True,
            **masks,
        )
    if final_norm:
        norm_weights = weights.of_norm(encoder._norm)
        states = oracles.each_position(oracles.layer_norm, states, *norm_weights)
    found = np.array(encoder(INPUTS, **masks))
    assert_close(found[real], states[real])
    assert np.isfinite(found).all()


def test_encoder_without_extras_adds_nothing():
    only = block("pre")
    encoder = built(layers.SequenceEncoder([only], final_norm=False))
    np.testing.assert_array_equal(encoder(INPUTS), only(INPUTS))


@pytest.mark.parametrize("method", ["newest", "mean"])
def test_pooling(method):
    mask = np.concatenate([MASK, np.zeros([1, T], bool)])  # the last row is empty
    inputs = np.concatenate([INPUTS, INPUTS[:1]])
    found = layers.SequencePooling(method)(inputs, mask=mask)
    assert_close(found, oracles.pool(inputs, mask, method))
    np.testing.assert_array_equal(found[-1], np.zeros(D))


@pytest.mark.parametrize("method", ["newest", "mean"])
def test_pooling_without_a_mask_takes_every_position(method):
    found = layers.SequencePooling(method)(INPUTS)
    assert_close(found, oracles.pool(INPUTS, np.ones([B, T], bool), method))


def test_mean_of_a_long_history_fits_half_precision():
    layer = layers.SequencePooling("mean", dtype="mixed_float16")
    np.testing.assert_array_equal(layer(tf.fill([1, 4099, 2], 100.0)), [[100.0, 100.0]])


def test_projections_do_not_start_alike():
    layer = layers.MultiHeadSelfAttention(
        1, D, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0)
    )
    layer.build([B, T, D])
    kernels = [np.array(w) for w in layer.trainable_weights if "kernel" in w.name]
    for i, first in enumerate(kernels):
        for second in kernels[i + 1 :]:
            assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("count_from", ["newest", "oldest"])
@pytest.mark.parametrize("segmented", [False, True], ids=["rows", "segments"])
def test_sinusoidal_positions(segmented, count_from):
    layer = layers.SinusoidalPositions(count_from=count_from)
    inputs = random.normal(size=[B, T, 6]).astype("float32")
    segments = SEGMENTS if segmented else None
    real = MASK & (SEGMENTS != 0) if segmented else MASK
    table = [oracles.sinusoids(number, 6) for number in range(T)]
    expected = oracles.add_positions(inputs, table, real, segments, count_from)
    found = np.array(layer(inputs, mask=MASK, segment_ids=segments))
    assert_close(found[real], expected[real])


@pytest.mark.parametrize("interests", [None, 1, 3])
@pytest.mark.parametrize("hidden_dim", [None, 11])
def test_attention_pooling(interests, hidden_dim):
    layer = built(layers.AttentionPooling(interests, hidden_dim=hidden_dim))
    kernels = [np.array(w, np.float64) for w in layer.trainable_weights]
    assert kernels[0].shape == (D, hidden_dim or 4 * D)
    mask = np.concatenate([MASK, np.zeros([1, T], bool)])  # the last row is empty
    inputs = np.concatenate([INPUTS, INPUTS[:1]])
    expected = oracles.attention_pool(inputs, mask, *kernels)
    found = np.array(layer(inputs, mask=mask))
    assert found.shape == ((B + 1, D) if interests is None else (B + 1, interests, D))
    assert_close(found, expected[:, 0] if interests is None else expected)
    np.testing.assert_array_equal(found[-1], np.zeros_like(found[-1]))
    everything = oracles.attention_pool(INPUTS, np.ones([B, T], bool), *kernels)
    without = layer(INPUTS)
    assert_close(without, everything[:, 0] if interests is None else everything)
