"""The forms of attention agree: by chunks, block against block, all at once.

All at once, with TensorFlow's own gradient, is `return_weights=True`, which the oracles
of `test_attention.py` and of the layers judge.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn.ops import (
    AttentionMask,
    blockwise_attention,
    dot_product_attention,
)
from tfrs_selfattn.ops.attention import CHUNK_ROWS, query_spans
from tfrs_selfattn.ops.biases import DistanceBias, LinearBias, TimeBias

B, H, K, BUCKETS = 2, 2, 3, 8
SEED = tf.constant([5, 6], tf.int64)
KINDS = ("none", "causal", "window", "padding", "segments", "allowed", "all")


def draw(random, *shape, dtype="float32"):
    return tf.cast(random.normal(size=shape), dtype)


def heads(seed, length, keys=None, dtype="float32"):
    random = np.random.default_rng(seed)
    sizes = (length, keys or length, keys or length)
    return [draw(random, B, H, size, K, dtype=dtype) for size in sizes]


def masks(kind, seed, length):
    """One kind of mask; in the second row of all but the first three, holes."""
    random = np.random.default_rng(seed)
    padding = random.random([B, length]) < 0.6
    padding[1, : length // 2] = False  # rows without a key, if causal
    parts = {
        "causal": {"causal": True},
        "window": {"window": 1 + seed % 4, "causal": bool(seed % 2)},
        "padding": {"padding": tf.constant(padding), "causal": bool(seed % 2)},
        "segments": {
            "segment_ids": tf.constant(np.sort(random.integers(0, 4, [B, length]))),
            "causal": bool(seed % 2),
        },
        "allowed": {"allowed": tf.constant(random.random([B, length, length]) < 0.4)},
    }
    if kind == "all":
        kinds = ("allowed", "segments", "padding", "window")
        return AttentionMask(**{k: v for name in kinds for k, v in parts[name].items()})
    return AttentionMask(**parts.get(kind, {}))


def biases(seed, length):
    """The parameters, and a function from them to one bias of each kind."""
    random = np.random.default_rng(seed)
    times = np.cumsum(10 ** random.integers(0, 6, [B, length]), axis=1)
    times = tf.constant(times, tf.int64)
    tables = [draw(random, BUCKETS, H) for _ in range(2)]

    def make(by_distance, by_time):
        return [
            DistanceBias(by_distance, 20, bidirectional=bool(seed % 2)),
            LinearBias(H),
            TimeBias(by_time, times, times + 100),
        ]

    return tables, make


def value_and_gradients(function, tensors):
    """What a function gives, and the gradients of a random sum of it."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = function(*tensors)
        direction = np.random.default_rng(9).normal(size=output.shape)
        loss = tf.reduce_sum(tf.cast(output, tf.float32) * direction.astype("float32"))
    found = [output, *tape.gradient(loss, tensors)]
    return [tf.cast(each, tf.float32).numpy() for each in found]


def assert_agree(found, expected, tolerance=2e-5):
    for ours, theirs in zip(found, expected, strict=True):
        scale = max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def forms(mask, bias, **options):
    """Attention by chunks, and all at once, as functions of what is learned."""

    def by_chunks(q, k, v, *tables):
        return dot_product_attention(q, k, v, mask, bias=bias(*tables), **options)

    def at_once(q, k, v, *tables):
        return dot_product_attention(
            q, k, v, mask, bias=bias(*tables), return_weights=True, **options
        )[0]

    return by_chunks, at_once


def no_bias():
    return []


EDGES = [1, 2, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1]
EDGES += [n * CHUNK_ROWS + d for n in (2, 3) for d in (-1, 0, 1)]


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize("kind", ["none", "causal", "all"])
def test_chunks_have_the_gradient_of_tensorflow(length, kind):
    tables, make = biases(length, length)
    by_chunks, at_once = forms(masks(kind, length, length), make)
    tensors = [*heads(length, length), *tables]
    found = value_and_gradients(by_chunks, tensors)
    assert_agree(found, value_and_gradients(at_once, tensors))


@pytest.mark.parametrize("length", EDGES)
@pytest.mark.parametrize("causal", [False, True])
def test_spans_cover_every_row_once(length, causal):
    query = tf.zeros([1, 1, length, 1])
    spans = query_spans(query, query, causal=causal)
    rows = [row for start, stop, _ in spans for row in range(start, stop)]
    assert rows == list(range(length))
    for _, stop, keys in spans:
        assert stop <= keys <= length
        assert causal or keys == length
    assert len(spans) == max(length // CHUNK_ROWS, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_chunks_under_every_mask_and_precision(kind, dtype):
    length = 2 * CHUNK_ROWS + 1
    by_chunks, at_once = forms(masks(kind, 3, length), no_bias)
    tensors = heads(3, length, dtype=dtype)
    tolerance = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 5e-2}[dtype]
    found = value_and_gradients(by_chunks, tensors)
    assert_agree(found, value_and_gradients(at_once, tensors), tolerance)


@pytest.mark.parametrize(("length", "keys"), [(101, 130), (130, 101), (3, 5), (5, 3)])
@pytest.mark.parametrize("mask", [{}, {"causal": True}, {"window": 2}], ids=str)
def test_fewer_or_more_rows_than_keys(length, keys, mask):
    by_chunks, at_once = forms(AttentionMask(**mask), no_bias)
    tensors = heads(1, length, keys)
    found = value_and_gradients(by_chunks, tensors)
    assert_agree(found, value_and_gradients(at_once, tensors))
    if mask.get("window") and length > keys + 1:  # the last rows see no key
        np.testing.assert_array_equal(found[0][:, :, keys + 1 :], 0.0)


def test_dropout_has_the_gradient_of_what_it_kept():
    # Of one chunk, in which both forms draw the same.
    length = CHUNK_ROWS + 1
    options = {"dropout_rate": 0.3, "dropout_seed": SEED}
    by_chunks, at_once = forms(masks("all", 2, length), no_bias, **options)
    tensors = heads(2, length)
    found = value_and_gradients(by_chunks, tensors)
    assert_agree(found, value_and_gradients(at_once, tensors))


def slope_by_differences(function, tensors, index, direction):
    """The change of a sum of outputs along a direction, by central differences."""
    step = 1e-2

    def total(sign):
        moved = list(tensors)
        moved[index] = tensors[index] + sign * step * direction
        output = tf.cast(function(*moved), tf.float64)
        weights = np.random.default_rng(9).normal(size=output.shape)
        return float(tf.reduce_sum(output * weights.astype("float32")))

    return (total(1) - total(-1)) / (2 * step)


@pytest.mark.parametrize("form", ["chunks", "blocks"])
def test_dropout_has_the_slope_of_small_steps(form):
    length = 2 * CHUNK_ROWS if form == "chunks" else 7
    mask = masks("causal", 0, length)
    options = {"dropout_rate": 0.3, "dropout_seed": SEED}
    if form == "blocks":
        options["block_size"] = 3
    attention = {"chunks": dot_product_attention, "blocks": blockwise_attention}[form]

    def function(q, k, v):
        return attention(q, k, v, mask, **options)

    tensors = heads(0, length)
    _, *gradients = value_and_gradients(function, tensors)
    for index, gradient in enumerate(gradients):
        direction = draw(np.random.default_rng(index), *gradient.shape)
        expected = slope_by_differences(function, tensors, index, direction)
        found = float(np.sum(gradient * direction))
        assert found == pytest.approx(expected, rel=2e-2, abs=2e-2)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    length=st.integers(1, 9),
    block_size=st.integers(1, 11),
    biased=st.booleans(),
    dtype=st.sampled_from(["float32", "float32", "float16", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_blockwise_equals_plain(kind, length, block_size, biased, dtype, seed):
    tables, make = biases(seed, length) if biased else ([], no_bias)
    mask = masks(kind, seed, length)

    def blockwise(q, k, v, *tables):
        return blockwise_attention(
            q, k, v, mask, block_size=block_size, bias=make(*tables)
        )

    plain, _ = forms(mask, make)
    tensors = [*heads(seed, length, dtype=dtype), *tables]
    found = value_and_gradients(blockwise, tensors)
    expected = value_and_gradients(plain, tensors)
    tolerance = {"float32": 2e-5, "float16": 1e-2, "bfloat16": 6e-2}[dtype]
    assert_agree(found, expected, tolerance)
    nothing = np.abs(expected[0]).max(axis=-1) == 0  # rows without a key
    np.testing.assert_array_equal(found[0][nothing], 0.0)


def test_rows_without_a_key_are_zero_in_every_form():
    length = 2 * CHUNK_ROWS
    padding = np.ones([B, length], bool)
    padding[0, :60] = False
    mask = AttentionMask(padding=tf.constant(padding), causal=True)
    by_chunks, at_once = forms(mask, no_bias)

    def blockwise(q, k, v):
        return blockwise_attention(q, k, v, mask, block_size=32)

    for function in (by_chunks, at_once, blockwise):
        found, *gradients = value_and_gradients(function, heads(4, length))
        np.testing.assert_array_equal(found[0, :, :60], 0.0)
        assert np.abs(found[0, :, 60:]).min(axis=-1).max() > 0
        np.testing.assert_array_equal(gradients[0][0, :, :60], 0.0)
        for gradient in gradients:
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("form", ["chunks", "blocks"])
@pytest.mark.parametrize("how", ["graph", "dynamic", "xla"])
def test_graphs_equal_eager(form, how):
    length = 101 if form == "chunks" else 7
    tables, make = biases(1, length)
    mask = masks("all", 3, length)
    attention = {"chunks": dot_product_attention, "blocks": blockwise_attention}[form]
    options = {"chunks": {}, "blocks": {"block_size": 3}}[form]
    shape = [None, H, None if how == "dynamic" else length, K]
    if how == "xla":
        shape[0] = B

    def both(q, k, v, *tables):
        tensors = [q, k, v, *tables]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = attention(q, k, v, mask, bias=make(*tables), **options)
            direction = np.random.default_rng(9).normal(size=[B, H, length, K])
            loss = tf.reduce_sum(output * tf.constant(direction, tf.float32))
        return [output, *tape.gradient(loss, tensors)]

    tensors = [*heads(1, length), *tables]
    function = tf.function(
        both,
        input_signature=[tf.TensorSpec(shape)] * 3 + [tf.TensorSpec([BUCKETS, H])] * 2,
        jit_compile=how == "xla",
    )
    assert_agree([x.numpy() for x in function(*tensors)], both(*tensors))


def sizes_of_a_step(attention, length, **options):
    """How many elements each tensor of a step has, forward and backward, in its graph.

    With users, heads and width of 1, 1 and 2; sizes that the graph leaves open, -1,
    count as 1.
    """

    def step(q, k, v, padding):
        mask = AttentionMask(padding=padding, causal=True)
        options["bias"] = [LinearBias(1)]
        with tf.GradientTape() as tape:
            tape.watch([q, k, v])
            output = attention(
                q, k, v, mask, dropout_rate=0.1, dropout_seed=SEED, **options
            )
        return tape.gradient(output, [q, k, v])

    heads = [tf.TensorSpec([1, 1, length, 2])] * 3
    function = tf.function(step).get_concrete_function(
        *heads, tf.TensorSpec([1, length], tf.bool)
    )
    graph = function.graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node]
    for inner in graph.library.function:  # bodies of loops
        nodes += inner.node_def
    # Loops that TensorFlow differentiates keep what they compute, on stacks.
    assert not [node for node in nodes if node.op == "TensorListPushBack"]
    shapes = [s for node in nodes for s in node.attr["_output_shapes"].list.shape]
    return [abs(math.prod(dim.size for dim in shape.dim)) for shape in shapes]


def test_no_tensor_of_a_blockwise_step_grows_faster_than_t():
    length, block_size = 512, 32
    sizes = sizes_of_a_step(blockwise_attention, length, block_size=block_size)
    logits = block_size**2
    assert sizes.count(logits) > 10  # the blocks of weights are among them
    # Queries, keys, values and what is like them are the largest.
    assert max(sizes) <= 2 * length * 2 < length**2
    # The short form holds all weights, in chunks of rows.
    chunks = sizes_of_a_step(dot_product_attention, length)
    assert max(chunks) >= CHUNK_ROWS * length


def test_blockwise_runs_on_large_logits():
    # The maximum of the later blocks is larger than exp can hold on its own.
    query = tf.ones([1, 1, 6, 1])
    key = tf.reshape(tf.constant([-200.0, 0.0, 90.0, 300.0, 1e4, -1e4]), [1, 1, 6, 1])
    value = tf.reshape(tf.range(6.0), [1, 1, 6, 1])
    mask = AttentionMask(causal=True)
    found = blockwise_attention(query, key, value, mask, block_size=2)
    np.testing.assert_array_equal(tf.squeeze(found), [0.0, 1.0, 2.0, 3.0, 4.0, 4.0])
    # And that of the earlier ones, from which later blocks must be measured.
    falling = tf.reverse(tf.sort(key, axis=2), axis=[2])
    found = blockwise_attention(query, falling, value, mask, block_size=2)
    np.testing.assert_array_equal(tf.squeeze(found), [0.0] * 6)


@pytest.mark.parametrize("form", [dot_product_attention, blockwise_attention])
def test_dropout_keeps_the_mean(form):
    length, rate, draws = 6, 0.4, 300
    options = {} if form is dot_product_attention else {"block_size": 4}
    mask = masks("causal", 0, length)
    q, k, v = heads(7, length)
    expected = form(q, k, v, mask, **options).numpy()

    @tf.function
    def once(step):
        seed = tf.stack([tf.constant(3, tf.int64), step])
        return form(q, k, v, mask, dropout_rate=rate, dropout_seed=seed, **options)

    found = np.stack([once(tf.constant(i, tf.int64)).numpy() for i in range(draws)])
    chance = 5 * found.std(axis=0) / np.sqrt(draws) + 0.01
    assert (np.abs(found.mean(axis=0) - expected) < chance).all()
    assert found.std(axis=0).max() > 0.1


@pytest.mark.parametrize("form", [dot_product_attention, blockwise_attention])
def test_no_two_chunks_drop_the_same(form):
    # Equal queries: only dropout can tell their rows apart.
    half = CHUNK_ROWS
    options = {} if form is dot_product_attention else {"block_size": half}
    equal = tf.zeros([B, H, 2 * half, K])
    _, _, value = heads(1, 2 * half)
    found = form(
        equal, equal, value, dropout_rate=0.5, dropout_seed=SEED, **options
    ).numpy()
    assert np.abs(found[:, :, :half] - found[:, :, half:]).max(axis=(1, 3)).min() > 0


def test_blockwise_dropout_needs_a_seed():
    message = (
        r"`dropout_seed` must be an int tensor of shape \[2\].*"
        r"Received: dropout_seed=None, dropout_rate=0\.5\."
    )
    with pytest.raises(ValueError, match=message):
        blockwise_attention(*heads(0, 3), block_size=2, dropout_rate=0.5)


def test_blocks_of_nothing():
    message = (
        "`block_size` must be a positive integer. Received: block_size=0. Use for "
        "example 512."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        blockwise_attention(*heads(0, 3), block_size=0)


@pytest.mark.parametrize("form", [dot_product_attention, blockwise_attention])
def test_rates_of_dropout_that_are_none(form):
    options = {} if form is dot_product_attention else {"block_size": 2}
    message = "`dropout_rate` must be a number in [0, 1). Received: dropout_rate=1.5."
    with pytest.raises(ValueError, match=re.escape(message)):
        form(*heads(0, 3), dropout_rate=1.5, dropout_seed=SEED, **options)


def test_masks_of_numbers():
    message = "`allowed` must be bool, True = may be attended to. Received: dtype=int32"
    with pytest.raises(ValueError, match=re.escape(message)):
        dot_product_attention(*heads(0, 3), tf.ones([3, 3], tf.int32))
