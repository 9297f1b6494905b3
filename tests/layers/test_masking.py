"""What padding, the future and other users must not do, bit for bit where it can be.

Shapes are small and many: Hypothesis draws the masks.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights import randomize, rewind
from tfrs_selfattn import layers
from tfrs_selfattn._keras import keras
from tfrs_selfattn.ops import lengths_mask

B, D, HEADS = 2, 5, 2
SIZES = st.sampled_from([(B, D, HEADS), (1, 6, 3), (3, 4, 1)])  # users, width, heads
LENGTH = 6
few = settings(max_examples=5)
JUNK = [np.nan, np.inf, -np.inf, 3e38, 7.0]
RATE = 0.4


def attention(dtype, causal=True, heads=HEADS, **options):
    return layers.MultiHeadSelfAttention(
        heads, 4, causal=causal, dropout=RATE, seed=1, dtype=dtype, **options
    )


def every_bias(dtype, causal, heads):
    return [
        layers.RelativePositionBias(
            heads, num_buckets=6, max_distance=9, bidirectional=not causal, dtype=dtype
        ),
        layers.RelativeTimeBias(heads, num_buckets=50, dtype=dtype),
        layers.AlibiBias(heads, dtype=dtype),
    ]


def full_attention(dtype, causal=True, heads=HEADS, **options):
    biases = every_bias(dtype, causal, heads)
    return attention(dtype, causal, heads, rotary=True, biases=biases, **options)


def blockwise_attention(dtype, causal=True, heads=HEADS):
    return full_attention(dtype, causal, heads, block_size=4)


def block(norm):
    def make(dtype, causal=True, heads=HEADS):
        feed_forward = layers.FeedForward(
            7, gated=norm == "gated", dropout=RATE, seed=3, dtype=dtype
        )
        return layers.TransformerBlock(
            attention(dtype, causal, heads),
            feed_forward,
            dropout=RATE,
            norm=norm,
            seed=2,
            dtype=dtype,
        )

    return make


def hstu_block(dtype, causal=True, heads=HEADS):
    return layers.HSTUBlock(
        heads,
        3,
        causal=causal,
        dropout=RATE,
        biases=every_bias(dtype, causal, heads),
        seed=4,
        dtype=dtype,
    )


def encoder(dtype, causal=True, heads=HEADS):
    return layers.SequenceEncoder(
        [
            block("query")(dtype, causal, heads),
            block("gated")(dtype, causal, heads),
            hstu_block(dtype, causal, heads),
        ],
        position=layers.PositionEmbedding(32, dtype=dtype),
        dropout=RATE,
        scale_inputs=True,
        seed=3,
        dtype=dtype,
    )


LAYERS = {
    "attention": attention,
    "full_attention": full_attention,
    "blockwise_attention": blockwise_attention,
    "block_post": block("post"),
    "block_query": block("query"),
    "block_gated": block("gated"),
    "hstu_block": hstu_block,
    "encoder": encoder,
}
TIMED = ("full_attention", "blockwise_attention", "hstu_block", "encoder")
_built = {}


def built(name, dtype="float32", causal=True, width=D, heads=HEADS):
    """One layer for all examples: building and the first call are what costs."""
    key = name, dtype, causal, width, heads
    if key not in _built:
        layer = LAYERS[name](dtype, causal, heads)
        layer.timed = name in TIMED
        layer.build([None, LENGTH, width])
        _built[key] = randomize(layer, seed=len(name))
    return _built[key]


def outputs(layer, inputs, training=False, **arguments):
    """All the layer returns, from the same state of dropout, as float32."""
    rewind(layer)
    if isinstance(layer, layers.MultiHeadSelfAttention) and not layer.block_size:
        arguments["return_attention_scores"] = True
    if layer.timed and "timestamps" not in arguments:
        arguments |= times_of(inputs)
    found = layer(tf.constant(inputs), training=training, **arguments)
    found = found if isinstance(found, tuple) else (found,)
    return [tf.cast(tensor, tf.float32).numpy() for tensor in found]


def times_of(inputs):
    """An hour between two events, a minute from each to the request."""
    steps = tf.range(inputs.shape[1], dtype=tf.int64) * 3600
    timestamps = tf.broadcast_to(10**9 + steps, inputs.shape[:2])
    return {"timestamps": timestamps, "request_times": timestamps + 60}


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


every_layer = pytest.mark.parametrize("name", LAYERS)
modes = pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
# The encoder holds all the others.
dtypes = pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in LAYERS),
        ("full_attention", "mixed_float16"),
        ("blockwise_attention", "mixed_bfloat16"),
        ("encoder", "mixed_float16"),
        ("encoder", "mixed_bfloat16"),
    ],
)
masks = st.lists(
    st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH), min_size=3, max_size=3
).map(np.array)
seeds = st.integers(0, 1000)


@dtypes
@modes
@few
@given(
    size=SIZES,
    mask=masks,
    seed=seeds,
    junk=st.sampled_from(JUNK),
    causal=st.booleans(),
)
def test_junk_under_padding_changes_nothing(
    name, training, dtype, size, mask, seed, junk, causal
):
    users, width, heads = size
    layer, mask = built(name, dtype, causal, width, heads), mask[:users]
    inputs = draw(seed, users, LENGTH, width)
    dirty = np.where(mask[..., np.newaxis], inputs, np.float32(junk))
    clean, *clean_scores = outputs(layer, inputs, training, mask=mask)
    found, *scores = outputs(layer, dirty, training, mask=mask)
    np.testing.assert_array_equal(found[mask], clean[mask])
    assert np.isfinite(found[mask]).all()
    for ours, theirs in zip(scores, clean_scores, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@every_layer
@modes
@few
@given(cut=st.integers(0, LENGTH - 1), seed=seeds, junk=st.sampled_from(JUNK))
def test_junk_in_segment_zero_changes_nothing(name, training, cut, seed, junk):
    layer = built(name)
    inputs = draw(seed, B, LENGTH, D)
    segment_ids = np.ones([B, LENGTH], np.int32)
    segment_ids[0, :cut] = 0
    segment_ids[1, LENGTH - cut :] = 0
    real = segment_ids != 0
    dirty = np.where(real[..., np.newaxis], inputs, np.float32(junk))
    clean, *_ = outputs(layer, inputs, training, segment_ids=segment_ids)
    found, *_ = outputs(layer, dirty, training, segment_ids=segment_ids)
    np.testing.assert_array_equal(found[real], clean[real])


@dtypes
@modes
@few
@given(size=SIZES, mask=masks, seed=seeds, t=st.integers(0, LENGTH - 2))
def test_the_future_changes_nothing_earlier_and_something_later(
    name, training, dtype, size, mask, seed, t
):
    users, width, heads = size
    layer, mask = built(name, dtype, True, width, heads), mask[:users]
    mask[:, t + 1] = True  # the item that changes is a real one
    inputs = draw(seed, users, LENGTH, width)
    changed = inputs.copy()
    changed[:, t + 1 :] = draw(seed + 1, users, LENGTH - t - 1, width)
    before, *scores_before = outputs(layer, inputs, training, mask=mask)
    after, *scores_after = outputs(layer, changed, training, mask=mask)
    np.testing.assert_array_equal(after[:, : t + 1], before[:, : t + 1])
    if not training:  # dropout may hide the one item that changed
        assert (np.abs(after[:, t + 1] - before[:, t + 1]).max(axis=-1) > 1e-3).all()
    for ours, theirs in zip(scores_after, scores_before, strict=True):
        np.testing.assert_array_equal(ours[:, :, : t + 1], theirs[:, :, : t + 1])


@pytest.mark.parametrize("how", ["graph", "xla"])
@pytest.mark.parametrize("name", ["blockwise_attention", "encoder"])
def test_neither_junk_nor_the_future_changes_a_graph(name, how):
    """In the encoder are all the others."""
    layer = built(name)
    inputs = draw(0, B, LENGTH, D)
    times = times_of(inputs)
    mask = np.array([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 1]], bool)

    @tf.function(jit_compile=how == "xla")
    def call(inputs):
        return layer(inputs, mask=tf.constant(mask), training=True, **times)

    def outputs_of(inputs):
        rewind(layer)
        return call(tf.constant(inputs)).numpy()

    clean = outputs_of(inputs)
    for junk in JUNK:
        dirty = np.where(mask[..., np.newaxis], inputs, np.float32(junk))
        np.testing.assert_array_equal(outputs_of(dirty)[mask], clean[mask])
    for t in range(LENGTH - 1):
        changed = inputs.copy()
        changed[:, t + 1 :] = draw(1, B, LENGTH - t - 1, D)
        found = outputs_of(changed)
        earlier = mask & (np.arange(LENGTH) <= t)
        np.testing.assert_array_equal(found[earlier], clean[earlier])
        assert np.abs(found - clean).max() > 1e-3


@every_layer
def test_without_causal_the_future_does_reach_back(name):
    layer = built(name, causal=False)
    inputs = draw(0, B, LENGTH, D)
    changed = inputs.copy()
    changed[:, -1] = draw(1, B, D)
    before, after = outputs(layer, inputs)[0], outputs(layer, changed)[0]
    assert (np.abs(after - before)[:, 0].max(axis=-1) > 1e-3).all()


@every_layer
@few
@given(size=SIZES, length=st.integers(1, LENGTH), seed=seeds, more=st.integers(0, 5))
def test_side_and_length_of_padding_do_not_matter(name, size, length, seed, more):
    users, width, heads = size
    layer = built(name, width=width, heads=heads)
    items = draw(seed, users, length, width)
    padding = draw(seed + 1, users, more, width)
    real, unreal = np.ones([users, length], bool), np.zeros([users, more], bool)
    alone, *_ = outputs(layer, items, mask=real)
    left, *_ = outputs(
        layer,
        np.concatenate([padding, items], axis=1),
        mask=np.concatenate([unreal, real], axis=1),
    )
    right, *_ = outputs(
        layer,
        np.concatenate([items, padding], axis=1),
        mask=np.concatenate([real, unreal], axis=1),
    )
    # Sums over more zeros may be taken in another order: float tolerance.
    np.testing.assert_allclose(left[:, more:], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(right[:, :length], alone, rtol=1e-4, atol=1e-5)


@every_layer
@few
@given(
    size=SIZES,
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    padding=st.integers(0, 2),
    seed=seeds,
    causal=st.booleans(),
)
def test_a_packed_row_equals_separate_rows(name, size, lengths, padding, seed, causal):
    _, width, heads = size
    layer = built(name, causal=causal, width=width, heads=heads)
    parts = [draw(seed + i, 1, n, width) for i, n in enumerate(lengths)]
    row = np.concatenate([*parts, np.zeros([1, padding, width], "float32")], axis=1)
    numbers = [np.full([1, n], i) for i, n in enumerate(lengths, 1)]
    segment_ids = np.concatenate([*numbers, np.zeros([1, padding])], axis=1)
    packed, *_ = outputs(layer, row, segment_ids=segment_ids.astype("int32"))
    start = 0
    for part in parts:
        stop = start + part.shape[1]
        alone, *_ = outputs(layer, part)
        np.testing.assert_allclose(packed[:, start:stop], alone, rtol=1e-4, atol=1e-5)
        start = stop


@every_layer
@modes
@few
@given(cut=st.integers(1, LENGTH - 1), seed=seeds, causal=st.booleans())
def test_nothing_leaks_from_one_segment_to_another(name, training, cut, seed, causal):
    layer = built(name, causal=causal)
    segment_ids = np.repeat([[1] * cut + [2] * (LENGTH - cut)], B, 0).astype("int32")
    inputs = draw(seed, B, LENGTH, D)
    for changed_segment in (1, 2):
        inside = segment_ids == changed_segment
        changed = np.where(
            inside[..., np.newaxis], draw(seed + 1, B, LENGTH, D), inputs
        )
        before, *_ = outputs(layer, inputs, training, segment_ids=segment_ids)
        after, *_ = outputs(layer, changed, training, segment_ids=segment_ids)
        np.testing.assert_array_equal(after[~inside], before[~inside])
        assert np.abs(after[inside] - before[inside]).max() > 1e-3


@every_layer
@modes
def test_an_empty_history_gives_finite_vectors(name, training):
    layer = built(name)
    nothing = np.zeros([B, LENGTH], bool)
    for arguments in ({"mask": nothing}, {"segment_ids": nothing.astype("int32")}):
        for found in outputs(layer, draw(0, B, LENGTH, D), training, **arguments):
            assert np.isfinite(found).all()


@modes
def test_attention_to_nothing_is_the_output_bias_exactly(training):
    layer = built("attention")
    mask = np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
    found, scores = outputs(layer, draw(0, B, LENGTH, D), training, mask=mask)
    bias = np.array(layer._output_bias)
    for user, t in [(0, 0), (0, 1), *((1, t) for t in range(LENGTH))]:
        np.testing.assert_array_equal(found[user, t], bias)
        np.testing.assert_array_equal(scores[user, :, t], 0.0)
    assert np.abs(found[0, 2:] - bias).min(axis=-1).max() > 1e-3


def test_attention_to_nothing_is_zero_without_a_bias():
    layer = layers.MultiHeadSelfAttention(2, 3, use_bias=False)
    nothing = np.zeros([LENGTH, LENGTH], bool)
    found = layer(draw(0, B, LENGTH, D), attention_mask=nothing)
    np.testing.assert_array_equal(found, np.zeros([B, LENGTH, D]))


@every_layer
@few
@given(mask=masks.map(lambda mask: mask[:B]), seed=seeds)
def test_a_batch_equals_its_rows_one_by_one(name, mask, seed):
    layer = built(name)
    inputs = draw(seed, B, LENGTH, D)
    together, *_ = outputs(layer, inputs, mask=mask)
    for user in range(B):
        one = slice(user, user + 1)
        alone, *_ = outputs(layer, inputs[one], mask=mask[one])
        real = mask[one]
        np.testing.assert_allclose(
            together[one][real], alone[real], rtol=1e-4, atol=1e-5
        )


@few
@given(mask=masks.map(lambda mask: mask[:B]), seed=seeds, junk=st.sampled_from(JUNK))
def test_pooling_ignores_junk_under_padding(mask, seed, junk):
    inputs = draw(seed, B, LENGTH, D)
    dirty = np.where(mask[..., np.newaxis], inputs, np.float32(junk))
    for method in ("newest", "mean"):
        pooling = layers.SequencePooling(method)
        np.testing.assert_array_equal(
            pooling(dirty, mask=mask), pooling(inputs, mask=mask)
        )


def gradients(layer, inputs, **arguments):
    """Of a random sum over real positions, for the inputs and every weight."""
    rewind(layer)
    inputs = tf.constant(inputs)
    times = times_of(inputs) if layer.timed else {}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        found = layer(inputs, training=True, **times, **arguments)
        real = arguments["mask"]
        if "segment_ids" in arguments:
            real = real & (arguments["segment_ids"] != 0)
        weights = np.where(real[..., np.newaxis], draw(9, *inputs.shape), 0.0)
        loss = tf.reduce_sum(tf.where(weights != 0.0, found * weights, 0.0))
    found = tape.gradient(loss, [inputs, *layer.trainable_weights])
    return [tf.convert_to_tensor(each).numpy() for each in found]


@every_layer
def test_gradients_are_finite_with_empty_and_packed_rows(name):
    found = gradients(
        built(name),
        draw(0, B, LENGTH, D),
        mask=np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]], bool),
        segment_ids=np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 2, 2, 3]], np.int32),
    )
    for each in found:
        assert np.isfinite(each).all()


@every_layer
@pytest.mark.parametrize("junk", JUNK)
def test_gradients_do_not_see_junk_under_padding(name, junk):
    layer = built(name)
    mask = np.array([[0, 0, 1, 1, 1, 0], [1, 1, 0, 1, 0, 0]], bool)
    inputs = draw(0, B, LENGTH, D)
    dirty = np.where(mask[..., np.newaxis], inputs, np.float32(junk))
    expected, found = (gradients(layer, x, mask=mask) for x in (inputs, dirty))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", TIMED)
@few
@given(
    mask=masks.map(lambda mask: mask[:B]),
    seed=seeds,
    junk=st.sampled_from([0, -1, 2**62, -(2**62)]),
)
def test_times_under_padding_change_nothing(name, mask, seed, junk):
    layer = built(name)
    inputs = draw(seed, B, LENGTH, D)
    times = times_of(inputs)
    dirty = {
        k: tf.where(mask, v, tf.constant(junk, tf.int64)) for k, v in times.items()
    }
    clean, *_ = outputs(layer, inputs, mask=mask, **times)
    found, *_ = outputs(layer, inputs, mask=mask, **dirty)
    np.testing.assert_array_equal(found[mask], clean[mask])


@pytest.mark.parametrize("name", TIMED)
def test_times_do_matter(name):
    layer = built(name)
    inputs = draw(0, B, LENGTH, D)
    times = times_of(inputs)
    before, *_ = outputs(layer, inputs, **times)
    later = {**times, "request_times": times["request_times"] + 10**6}
    after, *_ = outputs(layer, inputs, **later)
    assert (np.abs(after - before).max(axis=-1)[:, 1:] > 1e-4).all()


@few
@given(window=st.integers(1, LENGTH), seed=seeds, causal=st.booleans())
def test_what_is_outside_of_the_window_changes_nothing(window, seed, causal):
    layer = layers.MultiHeadSelfAttention(2, 3, causal=causal, window=window)
    inputs = draw(seed, B, LENGTH, D)
    randomize(layer.build(inputs.shape) or layer, seed)
    changed = inputs.copy()
    changed[:, 2] = draw(seed + 1, B, D)
    moved = np.abs(layer(changed) - layer(inputs)).max(axis=(0, 2)) > 0
    for t in range(LENGTH):
        sees = abs(t - 2) < window and not (causal and t < 2)
        assert moved[t] == sees


@pytest.mark.parametrize("name", ["encoder", "encoder_of_ids"])
def test_mask_lengths_ragged_rows_and_keras_masks_agree(name):
    """The four ways to say which items are real."""
    ids = np.array([[3, 1, 4, 1, 5, 0], [2, 6, 0, 0, 0, 0]], np.int32)
    lengths = tf.constant([5, 2])
    mask = ids != 0
    table = keras.layers.Embedding(9, D, mask_zero=True)
    items = table(tf.constant(ids))
    vectors = tf.identity(tf.convert_to_tensor(items))
    layer = built(name.removesuffix("_of_ids"))
    times = times_of(vectors)
    explicit = layer(vectors, mask=mask, **times).numpy()
    by_length = layer(vectors, mask=lengths_mask(lengths, LENGTH), **times)
    np.testing.assert_array_equal(by_length, explicit)
    np.testing.assert_array_equal(layer(items, **times), explicit)
    if name == "encoder_of_ids":
        rows = table(tf.RaggedTensor.from_tensor(ids, lengths=lengths))
    else:
        rows = tf.RaggedTensor.from_tensor(vectors, lengths=lengths)
    ragged_times = {
        k: tf.RaggedTensor.from_tensor(v, lengths=lengths) for k, v in times.items()
    }
    ragged = layer(rows, **ragged_times)
    assert ragged.row_lengths().numpy().tolist() == [5, 2]
    dense = ragged.to_tensor().numpy()
    kept = mask[:, : dense.shape[1]]
    np.testing.assert_allclose(dense[kept], explicit[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "pooling",
    [
        layers.SequencePooling(),
        layers.SequencePooling("mean"),
        layers.AttentionPooling(2),
    ],
    ids=["newest", "mean", "interests"],
)
def test_ragged_ids_to_one_vector_a_user(pooling):
    ids = np.array([[3, 1, 4, 1, 5, 0], [2, 6, 0, 0, 0, 0]], np.int32)
    table = keras.layers.Embedding(9, D, mask_zero=True)
    layer = layers.SequenceEncoder([block("pre")("float32")])
    expected = pooling(layer(table(tf.constant(ids)))).numpy()
    rows = tf.ragged.constant([[3, 1, 4, 1, 5], [2, 6]], dtype=tf.int32)
    found = pooling(layer(table(rows)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ragged_rows_with_segments():
    layer = layers.SequenceEncoder([block("pre")("float32")])
    inputs = draw(0, B, LENGTH, D)
    segment_ids = np.array([[1, 1, 2, 2, 2, 0], [1, 2, 0, 0, 0, 0]], np.int32)
    lengths = [5, 2]
    expected = layer(inputs, segment_ids=segment_ids).numpy()
    found = layer(
        tf.RaggedTensor.from_tensor(inputs, lengths=lengths),
        segment_ids=tf.RaggedTensor.from_tensor(segment_ids, lengths=lengths),
    )
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            found[row], expected[row, :length], rtol=1e-5, atol=1e-5
        )


def test_implicit_masks_are_lost_as_keras_loses_them():
    """What Keras drops, a layer of floats cannot see: hence `mask`."""
    ids = tf.constant([[3, 1, 0], [0, 0, 2]])
    items = keras.layers.Embedding(9, D, mask_zero=True)(ids)
    layer = layers.MultiHeadSelfAttention(2, 3)
    masked = layer(items).numpy()
    np.testing.assert_array_equal(masked, layer(tf.identity(items), mask=ids != 0))
    lost = layer(items + 0.0).numpy()
    assert np.abs(lost - masked).max() > 1e-6
    np.testing.assert_array_equal(layer(items + 0.0, mask=ids != 0), masked)


def test_keras_attention_loses_them_in_the_same_places():
    ids = tf.constant([[3, 1, 0], [0, 0, 2]])
    items = keras.layers.Embedding(9, D, mask_zero=True)(ids)
    theirs = keras.layers.MultiHeadAttention(2, 3)
    masked = theirs(items, items, use_causal_mask=True).numpy()
    lost = theirs(items + 0.0, items + 0.0, use_causal_mask=True).numpy()
    assert np.abs(lost - masked).max() > 1e-6
    # There the mask of keys has to be made by hand, T times as large.
    keys = tf.repeat((ids != 0)[:, tf.newaxis], 3, axis=1)
    found = theirs(items + 0.0, items + 0.0, attention_mask=keys, use_causal_mask=True)
    real = (ids != 0).numpy()
    np.testing.assert_allclose(found.numpy()[real], masked[real], rtol=1e-5, atol=1e-6)


def test_an_encoder_can_insist_on_a_mask():
    ids = tf.constant([[3, 1, 0], [0, 0, 2]])
    items = keras.layers.Embedding(9, D, mask_zero=True)(ids)
    layer = layers.SequenceEncoder([block("pre")("float32")], require_mask=True)
    expected = layer(tf.identity(items), mask=ids != 0)
    np.testing.assert_array_equal(layer(items), expected)
    with pytest.raises(ValueError, match=r"mask=None, segment_ids=None, and inputs"):
        layer(items + 0.0)


POOLINGS = {
    "newest": layers.SequencePooling,
    "mean": lambda: layers.SequencePooling("mean"),
    "interests": lambda: layers.AttentionPooling(2),
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("how", ["graph", "sequential", "functional", "gradient"])
def test_ragged_ids_wherever_keras_takes_them(how, pooling):
    ids = np.array([[3, 1, 4, 1, 5, 0], [2, 6, 0, 0, 0, 0]], np.int32)
    rows = tf.RaggedTensor.from_tensor(ids, lengths=[5, 2])
    parts = [
        keras.layers.Embedding(9, D, mask_zero=True),
        layers.SequenceEncoder([block("pre")("float32")]),
        POOLINGS[pooling](),
    ]

    def call(ids):
        for part in parts:
            ids = part(ids)
        return ids

    expected = call(tf.constant(ids))
    if how == "graph":
        call = tf.function(call)
    elif how == "sequential":
        call = keras.Sequential(parts)
    elif how == "functional":
        inputs = keras.Input([None], dtype="int32", ragged=True)
        call = keras.Model(inputs, call(inputs))
    if how != "gradient":
        np.testing.assert_allclose(call(rows), expected, rtol=1e-5, atol=1e-5)
        return
    weights = [weight for part in parts[1:] for weight in part.trainable_weights]
    slopes = []
    for each in (tf.constant(ids), rows):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(call(each) ** 2)
        slopes.append(tape.gradient(loss, weights))
    for ours, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
