"""Wrong use of the layers: each message says what was expected, got, and what to do."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn import layers
from tfrs_selfattn._keras import KERAS_3

INPUTS = np.zeros([2, 5, 6], np.float32)
MASK = np.ones([2, 5], bool)


def attention(**kwargs):
    return layers.MultiHeadSelfAttention(**{"num_heads": 2, "key_dim": 3, **kwargs})


def block(**kwargs):
    return layers.TransformerBlock(attention(), feed_forward(), **kwargs)


def feed_forward(**kwargs):
    return layers.FeedForward(**{"hidden_dim": 7, **kwargs})


def hstu(**kwargs):
    return layers.HSTUBlock(**{"num_heads": 2, "key_dim": 3, **kwargs})


def distance(**kwargs):
    return layers.RelativePositionBias(**{"num_heads": 2, **kwargs})


def positions(**kwargs):
    return layers.PositionEmbedding(**{"max_length": 9, **kwargs})


def encoder(**kwargs):
    return layers.SequenceEncoder([block()], **kwargs)


POSITIVE = "a positive integer"
FRACTION = "a number in [0, 1)"
NORMS = "one of 'pre', 'post', 'query', 'gated'"
ENDS = "one of 'newest', 'oldest'"
FLAG = "a bool"
SEED = "an integer or None"
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
        (lambda: attention(window=0), "window", POSITIVE, "0"),
        (lambda: attention(window=-2), "window", POSITIVE, "-2"),
        (lambda: attention(block_size=0), "block_size", POSITIVE, "0"),
        (lambda: hstu(num_heads=0), "num_heads", POSITIVE, "0"),
        (lambda: hstu(key_dim=1.5), "key_dim", POSITIVE, "1.5"),
        (lambda: hstu(dropout=1), "dropout", FRACTION, "1"),
        (lambda: hstu(window=0), "window", POSITIVE, "0"),
        (lambda: hstu(block_size=0), "block_size", POSITIVE, "0"),
        (lambda: distance(num_heads=0), "num_heads", POSITIVE, "0"),
        (lambda: distance(num_buckets=0), "num_buckets", POSITIVE, "0"),
        (lambda: distance(max_distance=0), "max_distance", POSITIVE, "0"),
        (lambda: layers.AlibiBias(0), "num_heads", POSITIVE, "0"),
        (lambda: layers.RelativeTimeBias(0), "num_heads", POSITIVE, "0"),
        (
            lambda: layers.RelativeTimeBias(2, num_buckets=0),
            "num_buckets",
            POSITIVE,
            "0",
        ),
        (
            lambda: layers.SinusoidalPositions(count_from="left"),
            "count_from",
            ENDS,
            "'left'",
        ),
        (lambda: layers.AttentionPooling(0), "num_interests", POSITIVE, "0"),
        (
            lambda: layers.AttentionPooling(hidden_dim=0),
            "hidden_dim",
            POSITIVE,
            "0",
        ),
        (lambda: block(dropout=-0.1), "dropout", FRACTION, "-0.1"),
        (lambda: block(norm="rms"), "norm", NORMS, "'rms'"),
        (lambda: feed_forward(hidden_dim=0), "hidden_dim", POSITIVE, "0"),
        (lambda: feed_forward(dropout=math.nan), "dropout", FRACTION, "nan"),
        (lambda: positions(max_length=0), "max_length", POSITIVE, "0"),
        (lambda: positions(count_from="left"), "count_from", ENDS, "'left'"),
        (lambda: encoder(dropout=2), "dropout", FRACTION, "2"),
        (lambda: layers.SequencePooling("last"), "method", METHODS, "'last'"),
        (lambda: attention(causal="no"), "causal", FLAG, "'no'"),
        (lambda: attention(use_bias=None), "use_bias", FLAG, "None"),
        (lambda: attention(rotary=1), "rotary", FLAG, "1"),
        (lambda: hstu(causal="no"), "causal", FLAG, "'no'"),
        (lambda: feed_forward(gated="yes"), "gated", FLAG, "'yes'"),
        (lambda: distance(bidirectional=0), "bidirectional", FLAG, "0"),
        (lambda: encoder(scale_inputs=2.0), "scale_inputs", FLAG, "2.0"),
        (lambda: encoder(final_norm="no"), "final_norm", FLAG, "'no'"),
        (lambda: encoder(require_mask="no"), "require_mask", FLAG, "'no'"),
        (lambda: attention(seed=1.5), "seed", SEED, "1.5"),
        (lambda: encoder(seed=True), "seed", SEED, "True"),
        (lambda: feed_forward(seed="1"), "seed", SEED, "'1'"),
    ],
)
def test_constructor(make, name, expected, received):
    message = f"`{name}` must be {expected}. Received: {name}={received}."
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("blocks", "received"),
    [
        (lambda: [], "blocks=[]"),
        (lambda: None, "blocks=None"),
        (lambda: "block", "blocks='block'"),
        (block, "one TransformerBlock"),
    ],
)
def test_encoder_without_a_list_of_blocks(blocks, received):
    message = (
        f"`blocks` must be a list of at least one layer. Received: {received}. Use for "
        "example [TransformerBlock(MultiHeadSelfAttention(2, 32), FeedForward(256))]."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        layers.SequenceEncoder(blocks())


@pytest.mark.parametrize(
    ("make", "name", "received", "example"),
    [
        (
            lambda: layers.TransformerBlock(2, feed_forward()),
            "attention",
            "builtins.int",
            "MultiHeadSelfAttention(2, 32)",
        ),
        (
            lambda: layers.TransformerBlock(attention(), None),
            "feed_forward",
            "builtins.NoneType",
            "FeedForward(256)",
        ),
        (
            lambda: layers.SequenceEncoder([attention]),
            "blocks",
            "builtins.function",
            "[TransformerBlock(MultiHeadSelfAttention(2, 32), FeedForward(256))]",
        ),
        (
            lambda: encoder(position=200),
            "position",
            "builtins.int",
            "PositionEmbedding(200)",
        ),
        (lambda: encoder(head="gelu"), "head", "builtins.str", "a Dense, or None"),
    ],
)
def test_parts_that_are_no_layers(make, name, received, example):
    ours = "keras" if KERAS_3 else "tf_keras"
    message = (
        f"`{name}` must be a layer of {ours}. Received: {received}. Use for example "
        f"{example}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_seeds_of_numpy_are_seeds():
    assert attention(seed=np.int64(3)).get_config()["seed"] == 3
    assert attention(causal=np.False_).causal is False


def test_rotation_turns_pairs():
    message = (
        "`key_dim` must be even with `rotary`, which turns pairs of channels. "
        "Received: key_dim=5. Use key_dim=6."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        attention(key_dim=5, rotary=True)


@pytest.mark.parametrize("make", [attention, hstu])
def test_biases_of_another_number_of_heads(make):
    message = (
        "Every bias must have the heads of the attention. Received: "
        "AlibiBias(num_heads=3), num_heads=2. Build the bias with num_heads=2."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make(biases=[layers.RelativeTimeBias(2), layers.AlibiBias(3)])


@pytest.mark.parametrize("make", [attention, hstu])
def test_biases_that_are_none(make):
    message = (
        "`biases` must be a list of `RelativePositionBias`, `AlibiBias` or "
        "`RelativeTimeBias`. Received: FeedForward. Use for example [AlibiBias(2)]."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make(biases=[feed_forward()])


@pytest.mark.parametrize(("buckets", "longest"), [(32, 16), (32, 3), (2, 1), (1, 1)])
def test_max_distance_too_small(buckets, longest):
    message = (
        "`max_distance` must exceed 1 and half of `num_buckets`, the distances that "
        f"have a bucket each. Received: max_distance={longest}, num_buckets={buckets}. "
        "Use fewer buckets or a larger distance."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        distance(num_buckets=buckets, max_distance=longest)


def test_one_bucket_for_two_directions():
    message = (
        "`num_buckets` must be at least 2 with `bidirectional`, one for each "
        "direction. Received: num_buckets=1. Use for example 32."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        distance(num_buckets=1, bidirectional=True)


@pytest.mark.parametrize(("buckets", "longest"), [(1, 2), (2, 2), (32, 17)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_smallest_distances_that_do(buckets, longest, bidirectional):
    buckets = max(buckets, 2) if bidirectional else buckets
    bias = distance(
        num_buckets=buckets, max_distance=longest, bidirectional=bidirectional
    )
    assert np.isfinite(bias(INPUTS)).all()


EVERY_LAYER = {
    "MultiHeadSelfAttention": attention,
    "TransformerBlock": block,
    "FeedForward": feed_forward,
    "PositionEmbedding": positions,
    "SequenceEncoder": encoder,
    "SequencePooling": layers.SequencePooling,
    "HSTUBlock": hstu,
    "SinusoidalPositions": layers.SinusoidalPositions,
    "AttentionPooling": layers.AttentionPooling,
}
TAKING_A_MASK = [
    "MultiHeadSelfAttention",
    "TransformerBlock",
    "PositionEmbedding",
    "SequenceEncoder",
    "HSTUBlock",
    "SinusoidalPositions",
    "SequencePooling",
    "AttentionPooling",
]
TAKING_SEGMENTS = TAKING_A_MASK[:-2]
TAKING_ATTENTION_MASKS = ["MultiHeadSelfAttention", "TransformerBlock", "HSTUBlock"]
TAKING_ATTENTION_MASKS += ["SequenceEncoder"]


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
    owner = "MultiHeadSelfAttention" if name == "TransformerBlock" else name
    assert_raises(
        EVERY_LAYER[name](),
        f"`attention_mask` of `{owner}` must have the shape [B, T, T] or "
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


def test_packed_rows_may_be_longer_than_the_learned_positions():
    segment_ids = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 1, 0]], np.int32)
    layer = layers.PositionEmbedding(4)
    assert layer(INPUTS, segment_ids=segment_ids).shape == INPUTS.shape


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 5, 5), (5, 5)])
def test_attention_masks_that_fit(shape):
    assert (
        attention()(INPUTS, attention_mask=np.ones(shape, bool)).shape == INPUTS.shape
    )


def test_sinusoids_come_in_pairs():
    assert_raises(
        layers.SinusoidalPositions(),
        "`SinusoidalPositions` needs an even width, half for sines and half for "
        "cosines. Received: D=7. Use D=8.",
        inputs=np.zeros([2, 5, 7], np.float32),
    )


def test_scores_of_blocks():
    assert_raises(
        attention(block_size=2),
        "`return_attention_scores` must be False with `block_size`, which never holds "
        "all weights. Received: return_attention_scores=True, block_size=2. Set "
        "block_size=None to look at them.",
        return_attention_scores=True,
    )


@pytest.mark.parametrize("name", ["PositionEmbedding", "SinusoidalPositions"])
@pytest.mark.parametrize(
    ("start", "received"),
    [
        (np.array([1, 2, 3]), "dtype=int64, shape=(3,)"),
        (3, "dtype=int32, shape=()"),
        (np.array([1.0, 2.0], np.float32), "dtype=float32, shape=(2,)"),
    ],
)
def test_starts_that_are_none(name, start, received):
    assert_raises(
        EVERY_LAYER[name](),
        f"`start` of `{name}` must be an integer tensor [B], (2,): how many items came "
        f"before. Received: {received}. Count the real items of each earlier history.",
        start=start,
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            np.zeros([2, 5], np.float32),
            "needs inputs of shape [B, T, D] (users, positions, width) with D known. "
            "Received: shape=(2, 5).",
        ),
        (
            np.zeros([2, 5, 6], np.int32),
            "needs floating-point inputs [B, T, D]. Received: dtype=int32.",
        ),
    ],
)
def test_biases_of_something_else(inputs, message):
    for bias in (distance(), layers.AlibiBias(2), layers.RelativeTimeBias(2)):
        name = type(bias).__name__
        assert_raises(bias, f"`{name}` {message}", inputs=inputs)


def test_nothing_says_which_items_are_real():
    layer = encoder(require_mask=True)
    assert_raises(
        layer,
        "`SequenceEncoder(require_mask=True)` needs to know which items are real. "
        "Received: mask=None, segment_ids=None, and inputs that carry no mask. Pass "
        "mask=ids != 0; an operation between the embedding and this layer, such as "
        "x + 1.0, may have lost it.",
    )
    rows = tf.RaggedTensor.from_row_lengths(tf.zeros([4, 6]), [3, 1])
    for inputs, known in (
        (INPUTS, {"mask": MASK}),
        (INPUTS, {"segment_ids": MASK.astype("int32")}),
        (rows, {}),
    ):
        assert layer(inputs, **known).shape[0] == 2


def timed_attention():
    return attention(biases=[layers.RelativeTimeBias(2)])


def timed_hstu():
    return hstu(biases=[layers.RelativeTimeBias(2)])


TAKING_TIMES = {
    "RelativeTimeBias": lambda: layers.RelativeTimeBias(2),
    "MultiHeadSelfAttention": timed_attention,
    "HSTUBlock": timed_hstu,
    "TransformerBlock": lambda: layers.TransformerBlock(
        timed_attention(), feed_forward()
    ),
    "SequenceEncoder": lambda: layers.SequenceEncoder([timed_hstu()]),
}
TIMES = np.ones([2, 5], np.int64)


@pytest.mark.parametrize("make", TAKING_TIMES.values(), ids=TAKING_TIMES)
@pytest.mark.parametrize(
    ("given", "received"),
    [
        ({}, "timestamps=None, request_times=None"),
        (
            {"timestamps": TIMES},
            "timestamps=a tensor of shape (2, 5), request_times=None",
        ),
        (
            {"request_times": TIMES},
            "timestamps=None, request_times=a tensor of shape (2, 5)",
        ),
    ],
)
def test_times_that_are_missing(make, given, received):
    layer = make()
    # An encoder says so itself, before it has begun.
    owner = "RelativeTimeBias"
    if isinstance(layer, layers.SequenceEncoder):
        owner = "SequenceEncoder"
    assert_raises(
        layer,
        f"`{owner}` needs `timestamps` and `request_times`, int64 [B, T] Unix "
        f"seconds. Received: {received}. Pass both to the outermost layer that is "
        "called, or leave the bias out.",
        **given,
    )


@pytest.mark.parametrize("name", list(TAKING_TIMES)[:3])
@pytest.mark.parametrize("argument", ["timestamps", "request_times"])
def test_times_of_another_shape_or_dtype(name, argument):
    times = {"timestamps": TIMES, "request_times": TIMES}
    assert_raises(
        TAKING_TIMES[name](),
        f"`{argument}` of `{name}` must have the shape [B, T] of the inputs, (2, 5). "
        "Received: shape=(2, 4). Pad it as the inputs are padded.",
        **{**times, argument: TIMES[:, 1:]},
    )
    assert_raises(
        TAKING_TIMES[name](),
        f"`{argument}` of `{name}` must be integers, Unix seconds. Received: "
        "dtype=float32. Use int64: float32 is two minutes off.",
        **{**times, argument: TIMES.astype("float32")},
    )


def test_ragged_inputs_with_dense_arguments():
    assert_raises(
        encoder(),
        "`segment_ids` must be a RaggedTensor when the inputs are. Received: a tensor "
        "of shape (2, 3). Make both ragged, or pad both.",
        inputs=tf.RaggedTensor.from_row_lengths(tf.zeros([4, 6]), [3, 1]),
        segment_ids=tf.ones([2, 3], tf.int32),
    )


@pytest.mark.skipif(not KERAS_3, reason="legacy Keras refuses them by itself")
@pytest.mark.parametrize("make", [attention, block, hstu, positions, feed_forward])
def test_ragged_inputs_where_they_make_no_sense(make):
    layer = make()
    name = type(layer).__name__
    message = (
        f"`{name}` needs padded inputs [B, T, D]. Received: a RaggedTensor. Use "
        "inputs.to_tensor() and mask=lengths_mask(…), or `SequenceEncoder`, which "
        "takes both."
    )
    ragged = tf.RaggedTensor.from_row_lengths(tf.zeros([4, 6]), [3, 1])
    assert_raises(layer, message, inputs=ragged)


def test_ragged_inputs_with_a_mask():
    assert_raises(
        encoder(),
        "`mask` must be None with ragged inputs, whose lengths say what is real. "
        "Received: a tensor of shape (2, 3). Leave it out, or pad the inputs.",
        inputs=tf.RaggedTensor.from_row_lengths(tf.zeros([4, 6]), [3, 1]),
        mask=tf.ones([2, 3], tf.bool),
    )
