"""The newest position alone is what encoding every position gives there."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.weights import randomize
from tfrs_selfattn import layers
from tfrs_selfattn.layers._base import has_newest

B, T, D = 3, 7, 6
REAL = np.arange(T) >= np.array([[0], [3], [T - 1]])  # left-padded, one with one item


class Doubled(layers.MultiHeadSelfAttention):
    """Overrides `call` alone: the inherited `newest` does not fit it any more."""

    def call(self, inputs, **arguments):
        return 2.0 * super().call(inputs, **arguments)


class DoubledBlock(layers.TransformerBlock):
    def call(self, inputs, **arguments):
        return 2.0 * super().call(inputs, **arguments)


def block(norm="pre", kind=layers.MultiHeadSelfAttention, **options):
    return layers.TransformerBlock(
        kind(2, 4, dropout=0.3, **options),
        layers.FeedForward(9, gated=norm == "gated", dropout=0.3),
        norm=norm,
        dropout=0.3,
    )


def hstu(**options):
    return layers.HSTUBlock(2, 4, dropout=0.3, **options)


def biases():
    return [
        layers.RelativePositionBias(2, num_buckets=6, max_distance=9),
        layers.AlibiBias(2),
        layers.RelativeTimeBias(2, num_buckets=8),
    ]


ENCODERS = {
    "pre": [block("pre")],
    "post": [block("post")],
    "query": [block("query"), block("query")],
    "gated": [block("gated")],
    "not causal": [block("post", causal=False)],
    "rotary": [block(rotary=True), block("query", rotary=True)],
    "window": [block(window=2), block(window=3)],
    "not causal window": [block(window=3, causal=False)],
    "blockwise": [block(block_size=3)],
    "biases": [block(biases=biases()), block("query", biases=biases())],
    "hstu": [hstu(), hstu()],
    "hstu biases": [hstu(biases=biases()), hstu(biases=biases())],
    "hstu not causal": [hstu(causal=False)],
    "hstu window": [hstu(window=2), hstu(window=3, causal=False)],
    "another attention": [block(), block("query", Doubled)],
    "another block": [
        DoubledBlock(layers.MultiHeadSelfAttention(2, 4), layers.FeedForward(9))
    ],
}


COMPILED = ("gated", "window", "biases", "hstu biases")


@pytest.mark.parametrize("name", ENCODERS)
def test_it_is_the_last_position_of_all(name):
    encoder = layers.SequenceEncoder(
        ENCODERS[name],
        position=layers.PositionEmbedding(T),
        dropout=0.3,
        scale_inputs=True,
        head=layers.FeedForward(5),
    )
    inputs = np.random.default_rng(0).normal(size=[B, T, D]).astype(np.float32)
    inputs[~REAL] = np.nan
    times = {}
    if "biases" in name:
        moments = np.cumsum(np.full([B, T], 1000, np.int64), axis=1)
        times = {"timestamps": moments, "request_times": moments + 500}
    arguments = {k: tf.constant(v) for k, v in {"mask": REAL, **times}.items()}
    encoder(tf.constant(inputs), **arguments)
    randomize(encoder)
    expected = encoder(tf.constant(inputs), **arguments).numpy()[:, -1:]

    @tf.function(input_signature=[tf.TensorSpec([None, None, D])])
    def newest(inputs):
        return encoder.newest(inputs, **arguments)

    found = newest(tf.constant(inputs)).numpy()
    assert found.shape == (B, 1, D)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if name in COMPILED:
        compiled = tf.function(
            lambda x: encoder.newest(x, **arguments), jit_compile=True
        )
        found = compiled(tf.constant(inputs))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_who_can():
    assert has_newest(block()) and has_newest(hstu())
    assert has_newest(layers.SequenceEncoder([block()]))
    assert not has_newest(ENCODERS["another block"][0])
    assert not has_newest(Doubled(2, 4))
    assert not has_newest(layers.FeedForward(3))


def test_the_last_block_works_on_one_position():
    """Of two blocks, one does T rows of the feed-forward network and the other one."""
    encoder = layers.SequenceEncoder([block(), block()])
    encoder(tf.zeros([B, T, D]))

    def rows_of(function):
        graph = (
            tf.function(function)
            .get_concrete_function(tf.TensorSpec([B, T, D], tf.float32))
            .graph
        )
        widths = [
            op.outputs[0].shape for op in graph.get_operations() if op.type == "Relu"
        ]
        return [int(np.prod(shape[:-1])) for shape in widths]

    assert rows_of(lambda x: encoder(x)) == [B * T, B * T]
    everything = tf.ones([B, T], tf.bool)
    assert rows_of(lambda x: encoder.newest(x, everything)) == [B * T, B]
