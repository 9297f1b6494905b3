"""Wrong use of the layers: each message says what was expected, got, and what to do."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import layers

INPUTS = np.zeros([2, 5, 6], np.float32)
MASK = np.ones([2, 5], bool)


def attention(**kwargs):
    return layers.MultiHeadSelfAttention(**{"num_heads": 2, "key_dim": 3, **kwargs})


def block(**kwargs):
    sizes = {"num_heads": 2, "key_dim": 3, "feed_forward_dim": 7}
    return layers.TransformerBlock(**{**sizes, **kwargs})


def feed_forward(**kwargs):
    return layers.FeedForward(**{"hidden_dim": 7, **kwargs})


def positions(**kwargs):
    return layers.PositionEmbedding(**{"max_length": 9, **kwargs})


def encoder(**kwargs):
    return layers.SequenceEncoder([block()], **kwargs)


POSITIVE = "a positive integer"
FRACTION = "a number in [0, 1)"
NORMS = "one of 'pre', 'post', 'query'"
ENDS = "one of 'newest', 'oldest'"
METHODS = "one of 'newest', 'mean'"


@pytest.mark.parametrize(
    ("make", "name", "expected", "received"),
    [
        (lambda: attention(num_heads=0), "num_heads", POSITIVE, "0"),
        (lambda: attention(num_heads=2.0), "num_heads", POSITIVE, "2.0"),
        (lambda: attention(num_heads=True), "num_heads", POSITIVE, "True"),
        (lambda: attention(key_dim=-1), "key_dim", POSITIVE, "-1"),
        (lambda: attention(dropout=1.0), "dropout", FRACTION, "1.0"),
        (lambda: attention(dropout="0.1"), "dropout", FRACTION, "'0.1'"),
        (lambda: block(num_heads=0), "num_heads", POSITIVE, "0"),
        (lambda: block(key_dim=0), "key_dim", POSITIVE, "0"),
        (lambda: block(feed_forward_dim=0), "feed_forward_dim", POSITIVE, "0"),
        (lambda: block(dropout=-0.1), "dropout", FRACTION, "-0.1"),
        (lambda: block(norm="rms"), "norm", NORMS, "'rms'"),
        (lambda: feed_forward(hidden_dim=0), "hidden_dim", POSITIVE, "0"),
        (lambda: feed_forward(dropout=math.nan), "dropout", FRACTION, "nan"),
        (lambda: positions(max_length=0), "max_length", POSITIVE, "0"),
        (lambda: positions(count_from="left"), "count_from", ENDS, "'left'"),
        (lambda: encoder(dropout=2), "dropout", FRACTION, "2"),
        (lambda: layers.SequencePooling("last"), "method", METHODS, "'last'"),
    ],
)
def test_constructor(make, name, expected, received):
    message = f"`{name}` must be {expected}. Received: {name}={received}."
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_encoder_without_blocks():
    message = (
        "`blocks` must be a list of at least one layer. Received: blocks=[]. Use for "
        "example [TransformerBlock(num_heads=2, key_dim=32, feed_forward_dim=256)]."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        layers.SequenceEncoder([])


EVERY_LAYER = {
    "MultiHeadSelfAttention": attention,
    "TransformerBlock": block,
    "FeedForward": feed_forward,
    "PositionEmbedding": positions,
    "SequenceEncoder": encoder,
    "SequencePooling": layers.SequencePooling,
}
TAKING_A_MASK = [
    "MultiHeadSelfAttention",
    "PositionEmbedding",
    "SequenceEncoder",
    "SequencePooling",
]
TAKING_SEGMENTS = TAKING_A_MASK[:3]
TAKING_ATTENTION_MASKS = ["MultiHeadSelfAttention", "TransformerBlock"]


def assert_raises(layer, message, inputs=INPUTS, **arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(inputs, **arguments)


@pytest.mark.parametrize("name", EVERY_LAYER)
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 6, 1)])
def test_inputs_of_another_rank(name, shape):
    assert_raises(
        EVERY_LAYER[name](),
        f"`{name}` needs inputs of shape [B, T, D] (users, positions, width) with D "
        f"known. Received: shape={shape}. Embed item ids first",
        inputs=np.zeros(shape, np.float32),
    )


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_width_must_be_known(name):
    with pytest.raises(
        ValueError, match=r"with D known\. Received: shape=\(2, 5, None\)"
    ):
        EVERY_LAYER[name]().build((2, 5, None))


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_ids_that_were_not_embedded(name):
    assert_raises(
        EVERY_LAYER[name](),
        f"`{name}` needs floating-point inputs [B, T, D]. Received: dtype=int32. "
        "Embed item ids first, for example with `Embedding(mask_zero=True)`.",
        inputs=tf.ones([2, 5, 6], tf.int32),
    )


@pytest.mark.parametrize("name", TAKING_A_MASK)
@pytest.mark.parametrize("shape", [(2, 4), (3, 5), (2, 5, 1), (5,)])
def test_mask_of_another_shape(name, shape):
    assert_raises(
        EVERY_LAYER[name](),
        f"`mask` of `{name}` must have the shape [B, T] of the inputs, (2, 5). "
        f"Received: shape={shape}. Pad it as the inputs are padded.",
        mask=np.ones(shape, bool),
    )


@pytest.mark.parametrize("name", TAKING_A_MASK)
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_mask_of_another_dtype(name, dtype):
    assert_raises(
        EVERY_LAYER[name](),
        f"`mask` of `{name}` must be bool, True = keep. Received: dtype={dtype}. "
        "Use for example mask=ids != 0.",
        mask=MASK.astype(dtype),
    )


@pytest.mark.parametrize("name", TAKING_SEGMENTS)
def test_segment_ids_of_another_shape_or_dtype(name):
    layer = EVERY_LAYER[name]()
    assert_raises(
        layer,
        f"`segment_ids` of `{name}` must have the shape [B, T] of the inputs, (2, 5). "
        "Received: shape=(2, 6).",
        segment_ids=np.ones([2, 6], np.int32),
    )
    assert_raises(
        layer,
        f"`segment_ids` of `{name}` must be integers, 0 for padding. Received: "
        "dtype=float32. Number the users of each row 1, 2, … as int32.",
        segment_ids=np.ones([2, 5], np.float32),
    )


@pytest.mark.parametrize("name", TAKING_ATTENTION_MASKS)
@pytest.mark.parametrize("shape", [(5,), (4, 4), (5, 4), (3, 5, 5), (2, 2, 5, 5)])
def test_attention_mask_of_another_shape(name, shape):
    assert_raises(
        EVERY_LAYER[name](),
        "`attention_mask` of `MultiHeadSelfAttention` must have the shape [B, T, T] or "
        f"[T, T] of the inputs, (2, 5, 5) or (5, 5). Received: shape={shape}.",
        attention_mask=np.ones(shape, bool),
    )


def test_attention_mask_of_another_dtype():
    assert_raises(
        attention(),
        "`attention_mask` of `MultiHeadSelfAttention` must be bool, True = keep. "
        "Received: dtype=int32. Use for example tf.cast(attention_mask, tf.bool).",
        attention_mask=np.ones([5, 5], np.int32),
    )


def test_query_of_another_shape():
    assert_raises(
        attention(),
        "`query` must have the shape of the inputs, (2, 5, 6). "
        "Received: shape=(2, 4, 6).",
        query=np.zeros([2, 4, 6], np.float32),
    )


def test_more_positions_than_learned():
    assert_raises(
        layers.PositionEmbedding(4),
        "`inputs` must have at most `max_length` positions. Received: T=5, "
        "max_length=4. Keep the newest items of each history",
    )


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 5, 5), (5, 5)])
def test_attention_masks_that_fit(shape):
    assert (
        attention()(INPUTS, attention_mask=np.ones(shape, bool)).shape == INPUTS.shape
    )
