"""The two towers: the same items, the same vector; reload; normalization; errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights import randomize, rewind
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import (
    AttentionPooling,
    FeedForward,
    MultiHeadSelfAttention,
    PositionEmbedding,
    SequenceEncoder,
    SequencePooling,
    TransformerBlock,
    encoders,
)
from tfrs_selfattn.models import CandidateTower, QueryTower

pytestmark = pytest.mark.legacy_keras

N, D, LONGEST = 23, 6, 5


def make_tower(**options):
    encoder = SequenceEncoder(
        [
            TransformerBlock(
                MultiHeadSelfAttention(2, 3, dropout=0.3, seed=2),
                FeedForward(7, dropout=0.3, seed=3),
                dropout=0.3,
                norm="query",
                seed=1,
            )
        ],
        position=PositionEmbedding(LONGEST),
        dropout=0.3,
        seed=4,
    )
    tower = QueryTower(
        keras.layers.Embedding(N + 1, D), encoder, **{"max_length": LONGEST, **options}
    )
    tower(np.ones([1, 2], np.int32))
    return randomize(tower)


TOWER = make_tower()
items = st.integers(1, N)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(st.lists(items, max_size=2 * LONGEST), st.lists(st.integers(0, 10), max_size=4))
def test_padding_changes_nothing_bit_for_bit(history, places):
    padded = list(history)
    for place in places:
        padded.insert(place, 0)
    forms = {
        "left": [0] * 7 + history,
        "right": history + [0] * 3,
        "between": padded or [0],
    }
    expected = TOWER(np.array([history[-LONGEST:] or [0]], np.int32)).numpy()
    assert np.isfinite(expected).all()
    for name, form in forms.items():
        found = TOWER(np.array([form], np.int32)).numpy()
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_only_the_newest_items_count():
    history = np.array([[9, 8, 1, 2, 3, 4, 5]], np.int32)
    other = np.array([[7, 6, 1, 2, 3, 4, 5]], np.int32)
    np.testing.assert_array_equal(TOWER(history), TOWER(other))
    inside = np.array([[9, 8, 6, 2, 3, 4, 5]], np.int32)
    assert np.abs(TOWER(history) - TOWER(inside)).max() > 1e-3


def test_order_counts():
    found = TOWER(np.array([[1, 2, 3], [2, 1, 3]], np.int32)).numpy()
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_an_empty_history_is_the_zero_vector():
    for width in (1, 4):
        found = TOWER(np.zeros([2, width], np.int32))
        np.testing.assert_array_equal(found, np.zeros([2, D]))


def test_no_user_depends_on_another():
    histories = np.array([[0, 0, 1, 2], [3, 4, 5, 6], [0, 0, 0, 0]], np.int32)
    together = TOWER(histories).numpy()
    for row, expected in zip(histories, together, strict=True):
        np.testing.assert_allclose(
            TOWER(row[np.newaxis])[0], expected, rtol=1e-4, atol=1e-5
        )


def test_an_empty_batch():
    assert TOWER(np.zeros([0, 3], np.int32)).shape == (0, D)


def test_encode_ends_where_call_ends():
    histories = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], np.int32)
    states = TOWER.encode(histories)
    assert states.shape == (2, 5, D)
    np.testing.assert_allclose(states[:, -1], TOWER(histories), rtol=1e-5, atol=1e-6)


def test_encode_of_packed_rows_equals_rows_of_their_own():
    packed = np.array([[1, 2, 3, 4, 5, 0]], np.int32)
    segment_ids = np.array([[1, 1, 1, 2, 2, 0]], np.int32)
    tower = make_tower()
    assert packed.shape[1] > LONGEST  # rows may be longer than histories
    states = tower.encode(packed, segment_ids)
    for part in (slice(0, 3), slice(3, 5)):
        alone = tower.encode(packed[:, part])
        np.testing.assert_allclose(states[:, part], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_ragged_histories(how):
    histories = [[3, 1, 4, 1, 5, 9], [2, 6], []]
    rows = tf.ragged.constant(histories, dtype=tf.int32)
    call = tf.function(TOWER) if how == "graph" else TOWER
    np.testing.assert_array_equal(call(rows), TOWER(rows.to_tensor()))


@pytest.mark.parametrize("how", ["config", "keras", "saved_model"])
def test_reload(how, tmp_path):
    tower = make_tower(pooling=SequencePooling("mean"), normalize=True, max_length=4)
    histories = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    expected = tower(histories)
    if how == "config":
        again = QueryTower.from_config(tower.get_config())
        again(histories)
        again.set_weights(tower.get_weights())
        assert again.max_length == 4
        assert again.normalize
        assert again.pooling.method == "mean"
    elif how == "keras":
        tower.save(tmp_path / "tower.keras")
        again = keras.models.load_model(tmp_path / "tower.keras")
        assert again.max_length == 4
    else:
        # Keras writes the width of the first call, 2, into the graph it saves.
        tower.save(tmp_path / "tower", save_format="tf")
        again = tf.saved_model.load(tmp_path / "tower")
        histories = tf.constant(histories[:, 1:])
        expected = tower(histories)
    np.testing.assert_allclose(again(histories), expected, rtol=1e-6, atol=1e-6)


def test_normalized_towers_have_length_one_and_zero_stays_zero():
    tower = make_tower(normalize=True)
    found = tower(np.array([[1, 2], [0, 0]], np.int32)).numpy()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1.0, 0.0], rtol=1e-5)
    candidates = CandidateTower(keras.layers.Embedding(N + 1, D), normalize=True)
    np.testing.assert_allclose(
        np.linalg.norm(candidates.catalogue(), axis=1), np.ones(N), rtol=1e-5
    )


def test_training_draws_and_inference_does_not():
    histories = np.array([[1, 2, 3]], np.int32)
    rewind(TOWER)
    np.testing.assert_array_equal(TOWER(histories), TOWER(histories, training=False))
    assert np.abs(TOWER(histories, training=True) - TOWER(histories)).max() > 1e-3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_towers_emit_float32_under_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        tower = make_tower()
        candidates = CandidateTower(tower.item_embedding)
        query = tower(np.array([[0, 1, 2], [0, 0, 0]], np.int32))
        assert tower.encoder.compute_dtype == policy.removeprefix("mixed_")
        for found in (query, candidates(np.array([1, 2])), candidates.catalogue()):
            assert found.dtype == tf.float32
            assert np.isfinite(found).all()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    exact = make_tower()
    exact.set_weights(tower.get_weights())
    reference = exact(np.array([[0, 1, 2], [0, 0, 0]], np.int32))
    np.testing.assert_allclose(query, reference, atol=0.1)


def test_candidates_are_the_table_without_its_first_row():
    tower = CandidateTower(keras.layers.Embedding(N + 1, D))
    catalogue = tower.catalogue()
    assert tower.num_items == N
    assert catalogue.shape == (N, D)
    np.testing.assert_array_equal(catalogue, tower(np.arange(1, N + 1)))
    again = CandidateTower.from_config(tower.get_config())
    assert again.get_config() == tower.get_config()


@pytest.mark.parametrize(
    ("history", "received"),
    [
        (np.zeros([2, 3], np.float32), "dtype=float32, shape=(2, 3)"),
        (np.zeros([3], np.int32), "dtype=int32, shape=(3,)"),
        (np.array([["a"]]), "dtype=string, shape=(1, 1)"),
    ],
)
def test_histories_that_are_no_item_indices(history, received):
    message = (
        "`history` must be an integer tensor [B, T] of item indices, 0 for padding. "
        f"Received: {received}. Encode string ids with the vocabulary first"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TOWER.encode(history)


def test_max_length_must_be_positive():
    message = r"`max_length` must be a positive integer\. Received: max_length=0\."
    with pytest.raises(ValueError, match=message):
        make_tower(max_length=0)


def test_the_mask_comes_from_the_ids_and_cannot_be_lost():
    # An embedding without `mask_zero`, whose row of padding is anything but nothing.
    tower = make_tower()
    assert not tower.item_embedding.mask_zero
    history = tf.constant([[0, 0, 7, 9], [3, 0, 0, 0]])
    expected = tower(history).numpy(), tower.encode(history).numpy()
    table = tower.item_embedding.embeddings
    junk = np.full([1, D], np.nan, np.float32)
    table.assign(tf.concat([junk, table[1:]], axis=0))
    np.testing.assert_array_equal(tower(history), expected[0])
    real = history.numpy() != 0
    np.testing.assert_array_equal(
        tower.encode(history).numpy()[real], expected[1][real]
    )


def test_several_interests():
    pooling = AttentionPooling(3, hidden_dim=5)
    tower = make_tower(pooling=pooling, normalize=True)
    found = tower(tf.constant([[0, 7, 9], [0, 0, 0]])).numpy()
    assert found.shape == (2, 3, D)
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(found[1], np.zeros([3, D]))
    again = QueryTower.from_config(tower.get_config())
    assert again.pooling.get_config() == pooling.get_config()


def make_guesser(**options):
    """A tower that reads both ways and puts a token in the place of the next item."""
    encoder = encoders.bert4rec(
        D, num_blocks=2, num_heads=2, max_length=LONGEST + 1, dropout=0.0
    )
    tower = QueryTower(
        keras.layers.Embedding(N + 1, D),
        encoder,
        max_length=LONGEST,
        query_token=True,
        **options,
    )
    tower.build_from_config({})
    return randomize(tower)


def test_the_token_stands_in_for_the_next_item():
    tower = make_guesser()
    history = np.array([[3, 1, 4]], np.int32)
    expected = tower(history).numpy()
    # As in training, when the last of four items is hidden; which one does not matter.
    for item in (1, 9):
        row = np.array([[3, 1, 4, item]], np.int32)
        states = tower.encode(row, hidden=np.array([[False, False, False, True]]))
        np.testing.assert_allclose(states[:, -1], expected, rtol=1e-5, atol=1e-6)
    # Padding and older items than the tower reads make no difference either.
    for form in ([0, 0, 3, 1, 4], [3, 0, 1, 4, 0]):
        np.testing.assert_array_equal(tower(np.array([form], np.int32)), expected)
    long, cut = [8, 7, 6, 5, 3, 1, 4], [6, 5, 3, 1, 4]
    np.testing.assert_array_equal(
        tower(np.array([long], np.int32)), tower(np.array([cut], np.int32))
    )
    np.testing.assert_array_equal(tower(np.zeros([2, 3], np.int32)), np.zeros([2, D]))


def test_a_hidden_item_is_not_seen():
    tower = make_guesser()
    hidden = np.array([[False, True, False, True]])
    rows = [np.array([row], np.int32) for row in ([3, 1, 4, 2], [3, 9, 4, 9])]
    one, another = (tower.encode(row, hidden=hidden).numpy() for row in rows)
    np.testing.assert_array_equal(one, another)
    seen = np.array([[False, False, False, True]])
    one, another = (tower.encode(row, hidden=seen).numpy() for row in rows)
    assert np.abs(one - another).max() > 1e-3


def test_the_token_learns_and_comes_back(tmp_path):
    tower = make_guesser(normalize=True)
    assert tower.get_config()["query_token"]
    history = np.array([[0, 1, 2]], np.int32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower(history)[:, 0])
    (token,) = [w for w in tower.trainable_weights if "query_token" in w.name]
    assert np.abs(tape.gradient(loss, token)).max() > 0
    tower.save(tmp_path / "tower.keras")
    again = keras.models.load_model(tmp_path / "tower.keras")
    np.testing.assert_allclose(again(history), tower(history), rtol=1e-6)


def test_a_token_where_there_can_be_none():
    with pytest.raises(ValueError, match=r"`hidden` needs a tower.*query_token=False"):
        TOWER.encode(np.array([[1, 2]]), hidden=np.array([[False, True]]))
    encoder = encoders.hstu(D, num_blocks=1, num_heads=2)
    message = r"`query_token` must be False for a time-aware encoder.*query_token=True"
    with pytest.raises(ValueError, match=message):
        QueryTower(keras.layers.Embedding(N + 1, D), encoder, query_token=True)


def test_the_query_is_the_pooled_encoding():
    """What the tower leaves out of its last block was never looked at."""
    history = np.array([[0, 3, 0, 9, 4], [0, 0, 0, 0, 0], [5, 1, 2, 8, 7]], np.int32)
    aligned = np.array([[0, 0, 3, 9, 4], [0, 0, 0, 0, 0], [5, 1, 2, 8, 7]], np.int32)
    real = tf.constant(aligned > 0)
    for normalize in (False, True):
        tower = make_tower(normalize=normalize)
        states = tower.encoder(tower.item_embedding(aligned), mask=real, training=False)
        expected = tower.pooling(states, mask=real)
        if normalize:
            expected = tf.math.l2_normalize(expected, axis=-1)
        found = tower(history, training=False).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert not found[1].any()
    # Dropout falls on every position, so training encodes them all.
    assert np.abs(tower(history, training=True) - found).max() > 1e-3
