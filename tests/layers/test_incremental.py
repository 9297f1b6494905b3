"""Appending events to a state gives what encoding the whole history gives."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights import randomize
from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import encoders, incremental

B, T, D = 2, 7, 6


def block(norm="pre", *, heads=2, key_dim=4, causal=True, **options):
    return layers.TransformerBlock(
        layers.MultiHeadSelfAttention(heads, key_dim, causal=causal, **options),
        layers.FeedForward(9, gated=norm == "gated"),
        norm=norm,
    )


def encoder(blocks, **options):
    return layers.SequenceEncoder(blocks, **options)


def biases():
    return [
        layers.RelativePositionBias(2, num_buckets=6, max_distance=9),
        layers.AlibiBias(2),
    ]


def hstu(**options):
    return layers.HSTUBlock(2, 4, dropout=0.3, **options)


def preset(name, **options):
    return getattr(encoders, name)(
        D, num_blocks=2, num_heads=2, max_length=T, count_from="oldest", **options
    )


def oldest():
    return layers.PositionEmbedding(T, count_from="oldest")


ENCODERS = {
    "plain": lambda: encoder([block("pre"), block("query"), block("post")]),
    "gated": lambda: encoder([block("gated")], scale_inputs=True, final_norm=False),
    "positions": lambda: encoder([block(), block()], position=oldest()),
    "sinusoids": lambda: encoder(
        [block("query")], position=layers.SinusoidalPositions(count_from="oldest")
    ),
    "rotary": lambda: encoder([block(rotary=True), block(rotary=True)]),
    "window": lambda: encoder([block(window=3), block(window=2)]),
    "biases": lambda: encoder([block(biases=biases()), block(biases=biases())]),
    "one_head": lambda: encoder([block(heads=1)]),
    "blockwise": lambda: encoder([block(block_size=3)]),
    "hstu": lambda: encoder([hstu(biases=biases()), hstu(window=3)]),
    "mixed": lambda: encoder([hstu(), block("query", rotary=True)], position=oldest()),
    "sasrec": lambda: preset("sasrec"),
    "gsasrec": lambda: preset("gsasrec"),
    "esasrec": lambda: preset("esasrec"),
    "preset_hstu": lambda: preset("hstu", time_aware=False),
    "all": lambda: encoder(
        [block("query", rotary=True, window=4, biases=biases()), block("gated")],
        position=oldest(),
        scale_inputs=True,
        dropout=0.3,
        head=layers.FeedForward(5),
    ),
}
_built = {}


def built(name):
    if name not in _built:
        layer = ENCODERS[name]()
        layer.build([B, T, D])
        _built[name] = randomize(layer, seed=len(name))
    return _built[name]


def draw(seed):
    return np.random.default_rng(seed).normal(size=[B, T, D]).astype("float32")


def appended(layer, inputs, mask, cuts):
    """The vectors of all positions, encoded chunk by chunk."""
    state = incremental.initial_state(layer, len(inputs))
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, inputs.shape[1]], strict=True):
        part = None if mask is None else mask[:, start:stop]
        found, state = incremental.append(layer, state, inputs[:, start:stop], part)
        parts.append(found)
    return tf.concat(parts, axis=1).numpy(), state


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=4)
@given(
    cuts=st.sets(st.integers(1, T - 1)).map(sorted),
    mask=st.none()
    | st.lists(
        st.lists(st.booleans(), min_size=T, max_size=T), min_size=B, max_size=B
    ).map(np.array),
    seed=st.integers(0, 99),
)
def test_equals_encoding_the_whole(name, cuts, mask, seed):
    layer, inputs = built(name), draw(seed)
    expected = layer(inputs, mask=mask).numpy()
    found, _ = appended(layer, inputs, mask, cuts)
    real = np.ones([B, T], bool) if mask is None else mask
    np.testing.assert_allclose(found[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_event_by_event(name):
    layer, inputs = built(name), draw(3)
    found, state = appended(layer, inputs, None, range(1, T))
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-4, atol=1e-4)
    blocks = len(layer.blocks)
    first = incremental._attention(layer.blocks[0])
    heads, width = first.num_heads, first.key_dim
    assert state.keys.shape == state.values.shape == (blocks, B, heads, T, width)
    assert state.mask.shape == (B, T)


def test_junk_in_padded_events_changes_nothing():
    layer, inputs = built("all"), draw(5)
    mask = np.array([[1, 0, 1, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0, 1]], bool)
    dirty = np.where(mask[..., np.newaxis], inputs, np.float32(np.nan))
    clean, _ = appended(layer, inputs, mask, [2, 4])
    found, _ = appended(layer, dirty, mask, [2, 4])
    np.testing.assert_array_equal(found[mask], clean[mask])


def test_rows_of_a_state_can_be_gathered():
    layer, inputs = built("positions"), draw(6)
    _, state = incremental.append(
        layer, incremental.initial_state(layer, B), inputs[:, :4]
    )
    one = incremental.EncoderState(
        state.keys[:, 1:], state.values[:, 1:], state.mask[1:]
    )
    found, _ = incremental.append(layer, one, inputs[1:, 4:])
    np.testing.assert_allclose(found[0], layer(inputs)[1, 4:], rtol=1e-4, atol=1e-4)


def test_past_the_learned_positions_the_last_is_shared():
    layer = encoder(
        [block()], position=layers.PositionEmbedding(2, count_from="oldest")
    )
    layer.build([B, 2, D])
    inputs = draw(8)
    graph = tf.function(
        layer, input_signature=[tf.TensorSpec([None, None, D], tf.float32)]
    )
    found, _ = appended(layer, inputs, None, [1, 3, 5])
    np.testing.assert_allclose(found, graph(inputs), rtol=1e-4, atol=1e-4)


CUTS = [(0, 1), (1, 4), (4, T)]


def step_of(layer, users=None, known=None, new=None, **options):
    """One step as a graph, of any number of users and events unless these are given."""
    first = incremental._attention(layer.blocks[0])
    cache = tf.TensorSpec(
        [len(layer.blocks), users, first.num_heads, known, first.key_dim], tf.float32
    )

    def step(keys, values, mask, inputs):
        state = incremental.EncoderState(keys, values, mask)
        outputs, state = incremental.append(layer, state, inputs)
        return {"outputs": outputs, **state._asdict()}

    specs = {
        "keys": cache,
        "values": cache,
        "mask": tf.TensorSpec([users, known], tf.bool),
        "inputs": tf.TensorSpec([users, new, D], tf.float32),
    }
    named = [tf.TensorSpec(s.shape, s.dtype, name=n) for n, s in specs.items()]
    return tf.function(step, input_signature=named, **options)


def stepped(step, layer, inputs):
    """The vectors of all positions, by `step` of the inputs between two cuts."""
    state = incremental.initial_state(layer, tf.constant(len(inputs)))._asdict()
    parts = []
    for start, stop in CUTS:
        state = step(start, inputs=tf.constant(inputs[:, start:stop]), **state)
        parts.append(state.pop("outputs"))
    return tf.concat(parts, axis=1)


@pytest.mark.parametrize("name", ["all", "positions", "mixed"])
def test_one_step_can_be_a_graph_of_any_length(name):
    layer, inputs = built(name), draw(7)
    graph = step_of(layer)
    found = stepped(lambda start, **state: graph(**state), layer, inputs)
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-4, atol=1e-4)


def test_one_step_can_be_a_serving_signature(tmp_path):
    layer, inputs = built("mixed"), draw(7)
    module = tf.Module()
    module.layer = layer
    tf.saved_model.save(module, str(tmp_path), signatures={"append": step_of(layer)})
    served = tf.saved_model.load(str(tmp_path)).signatures["append"]
    found = stepped(lambda start, **state: served(**state), layer, inputs)
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["all", "mixed"])
def test_one_step_can_be_compiled(name):
    layer, inputs = built(name), draw(7)
    steps = {
        start: step_of(layer, B, start, stop - start, jit_compile=True)
        for start, stop in CUTS
    }
    found = stepped(lambda start, **state: steps[start](**state), layer, inputs)
    np.testing.assert_allclose(found, layer(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    shared = {"dtype": policy}
    layer = encoder(
        [
            layers.TransformerBlock(
                layers.MultiHeadSelfAttention(2, 4, **shared),
                layers.FeedForward(9, **shared),
                **shared,
            )
        ],
        **shared,
    )
    inputs = draw(9)
    expected = tf.cast(layer(inputs), tf.float32).numpy()
    state = incremental.initial_state(layer, B)
    assert state.keys.dtype == layer.compute_dtype
    found, _ = appended(layer, inputs, None, [3])
    tolerance = 0.02 if policy == "mixed_float16" else 0.1
    np.testing.assert_allclose(found.astype("float32"), expected, atol=tolerance)


def with_blocks(*blocks, **options):
    layer = encoder(list(blocks), **options)
    layer.build([B, T, D])
    return layer


class Doubled(layers.MultiHeadSelfAttention):
    """Overrides `call` alone: the inherited `append` does not fit it any more."""

    def call(self, inputs, **arguments):
        return 2.0 * super().call(inputs, **arguments)


class DoubledBlock(layers.TransformerBlock):
    def call(self, inputs, **arguments):
        return 2.0 * super().call(inputs, **arguments)


class DoubledEncoder(layers.SequenceEncoder):
    def call(self, inputs, **arguments):
        return 2.0 * super().call(inputs, **arguments)


class Nameless(keras.layers.Layer):
    """An attention that keeps a state, and says nothing of itself."""

    def call(self, inputs, **arguments):
        return inputs

    def append(self, inputs, cache, mask, query=None):
        return inputs, cache


class Places(keras.layers.Layer):
    """Positions that do not count on."""

    def call(self, inputs, mask=None, segment_ids=None):
        return inputs


def around(attention):
    return layers.TransformerBlock(attention, layers.FeedForward(9))


def whole_encoder(kind):
    layer = kind([block()])
    layer.build([B, T, D])
    return layer


NEWEST = 'positions count from the newest item; use "oldest"'
UNBUILT = (
    "a time bias depends on the time of each request; a time bias depends on the time "
    "of each request; nothing is built yet; call it once, or encoder.build"
)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: with_blocks(block(), position=layers.PositionEmbedding(T)), NEWEST),
        (lambda: with_blocks(block(), position=layers.SinusoidalPositions()), NEWEST),
        (lambda: with_blocks(block(causal=False)), "attention is not causal"),
        (lambda: with_blocks(layers.FeedForward(3)), "FeedForward keeps no state"),
        (
            lambda: with_blocks(around(Doubled(2, 3))),
            "Doubled overrides `call` and not `append`",
        ),
        (
            lambda: with_blocks(
                DoubledBlock(layers.MultiHeadSelfAttention(2, 3), layers.FeedForward(9))
            ),
            "DoubledBlock overrides `call` and not `append`",
        ),
        (
            lambda: whole_encoder(DoubledEncoder),
            "DoubledEncoder overrides `call`",
        ),
        (
            lambda: with_blocks(around(Nameless())),
            "Nameless has no `causal`, `biases`, `num_heads`, `key_dim`",
        ),
        (
            lambda: with_blocks(block(), position=Places()),
            "Places takes no `start` to count on from",
        ),
        (lambda: with_blocks(hstu(causal=False)), "attention is not causal"),
        (
            lambda: with_blocks(hstu(biases=[layers.RelativeTimeBias(2)])),
            "a time bias depends on the time of each request",
        ),
        (lambda: preset("sasrec", time_aware=True), UNBUILT),
        (
            lambda: with_blocks(block(biases=[layers.RelativeTimeBias(2)])),
            "a time bias depends on the time of each request",
        ),
        (
            lambda: with_blocks(block(), block(heads=3)),
            "blocks have heads of different number or width",
        ),
        (
            lambda: encoder([block()]),
            "nothing is built yet; call it once, or encoder.build",
        ),
        (
            lambda: with_blocks(block(causal=False), layers.FeedForward(3)),
            "attention is not causal; FeedForward keeps no state",
        ),
    ],
)
def test_encoders_that_cannot_be_continued(make, fault):
    layer = make()
    message = (
        "`encoder` must be built and causal, with positions counted from the oldest "
        f"item, to be continued. Received: an encoder where {fault}. Build one that "
        'can be, for example by `encoders.sasrec(count_from="oldest")`.'
    )
    state = incremental.EncoderState(*[tf.zeros([1, B, 2, 0, 4])] * 2, tf.zeros([B, 0]))
    for call in (
        lambda: incremental.initial_state(layer, B),
        lambda: incremental.append(layer, state, draw(0)),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


@pytest.mark.parametrize(
    ("inputs", "mask", "message"),
    [
        (
            np.ones([B, 2, D], np.int32),
            None,
            "`SequenceEncoder` needs floating-point inputs [B, T, D]. Received: "
            "dtype=int32.",
        ),
        (
            np.ones([B, D], np.float32),
            None,
            "`SequenceEncoder` needs inputs of shape [B, T, D] (users, positions, "
            "width) with D known. Received: shape=(2, 6).",
        ),
        (
            np.ones([B, 2, D + 1], np.float32),
            None,
            "`inputs` must be as wide as those the encoder was built with, 6. "
            "Received: shape=(2, 2, 7). Embed the new events with the table",
        ),
        (
            np.ones([B, 2, D], np.float32),
            np.ones([B, 3], bool),
            "`mask` of `SequenceEncoder` must have the shape [B, T] of the inputs, "
            "(2, 2). Received: shape=(2, 3).",
        ),
        (
            np.ones([B + 1, 2, D], np.float32),
            None,
            "`state` must be of the same users as `inputs`. Received: a state of 2, "
            "inputs of 3. Start from `initial_state(encoder, batch_size)`",
        ),
    ],
)
def test_events_that_do_not_fit(inputs, mask, message):
    layer = built("plain")
    state = incremental.initial_state(layer, B)
    with pytest.raises(ValueError, match=re.escape(message)):
        incremental.append(layer, state, inputs, mask)


STATE = {"keys": [1, B, 2, 4, 3], "values": [1, B, 2, 4, 3], "mask": [B, 4]}


@pytest.mark.parametrize(
    "changed",
    [
        {"keys": [2, B, 2, 4, 3], "values": [2, B, 2, 4, 3]},
        {"keys": [1, B, 3, 4, 3]},
        {"values": [1, B, 2, 4, 5]},
        {"values": [1, B, 2, 5, 3]},
        {"keys": [1, B, 2, 3]},
        {"mask": [B, 5]},
        {"mask": [B, 4, 1]},
        {"dtypes": {"mask": tf.int32}},
        {"dtypes": {"keys": tf.float16}},
    ],
    ids=str,
)
def test_states_of_another_encoder(changed):
    layer = with_blocks(block(key_dim=3))
    dtypes = {"mask": tf.bool, **changed.get("dtypes", {})}
    shapes = {name: changed.get(name, shape) for name, shape in STATE.items()}
    parts = {
        name: tf.zeros(shape, dtypes.get(name, tf.float32))
        for name, shape in shapes.items()
    }
    length = shapes["mask"][1] if len(shapes["mask"]) == 2 else None
    received = ", ".join(
        f"{name} {part.dtype.name} {tuple(part.shape)}" for name, part in parts.items()
    )
    message = (
        "`state` must hold what this encoder remembers: keys and values [blocks, B, H, "
        f"L, K], float32 (1, 2, 2, {length}, 3), and a mask [B, L], bool. Received: "
        f"{received}. Start from `initial_state(encoder, batch_size)`; the state of "
        "another encoder does not fit."
    )
    state = incremental.EncoderState(**parts)
    with pytest.raises(ValueError, match=re.escape(message)):
        incremental.append(layer, state, draw(0))


@pytest.mark.parametrize(
    ("batch_size", "received"),
    [
        (-1, "batch_size=-1"),
        (2.0, "batch_size=2.0"),
        (True, "batch_size=True"),
        (None, "batch_size=None"),
        (tf.constant([2]), "a tensor of int32, shape=(1,)"),
        (tf.constant(2.0), "a tensor of float32, shape=()"),
    ],
    ids=str,
)
def test_numbers_of_users_that_are_none(batch_size, received):
    message = (
        "`batch_size` must be an integer of at least 0, or a scalar integer tensor. "
        f"Received: {received}. Pass the number of rows of the events to come"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        incremental.initial_state(built("plain"), batch_size)


def test_nobody_has_a_state_too():
    layer = built("plain")
    state = incremental.initial_state(layer, 0)
    found, _ = incremental.append(layer, state, tf.zeros([0, 2, D]))
    assert found.shape == (0, 2, D)
