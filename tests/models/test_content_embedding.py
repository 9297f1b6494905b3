"""Items by id and content: one vector however it is asked for; ids that are dropped."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.features import FeatureSet, FeatureTable, MultiCategory, Number
from tfrs_selfattn.features._vocabulary import bucket_of
from tfrs_selfattn.models import ContentEmbedding, FeatureProjection, ItemContent
from tfrs_selfattn.models.query_tower import QueryTower

IDS = [f"item {number}" for number in range(6)]
RAW = {
    "genres": np.array([b"a|b", b"b", b"", b"a", b"a|b", b"b|c"], object),
    "price": np.array([1, 2, np.nan, 4, 5, 6], np.float32),
}
FEATURES = FeatureSet((MultiCategory("genres"), Number("price"))).fit(RAW, "here")


def make(**options):
    content = ItemContent.of(FEATURES, FeatureTable(IDS, RAW))
    return ContentEmbedding.for_content(content, 5, seed=1, **options)


def test_calls_and_the_table_give_the_same_vectors():
    layer = make()
    table = layer.table()
    assert table.shape == [7, 5]
    indices = tf.constant([[0, 3, 6], [6, 1, 3]])
    np.testing.assert_allclose(layer(indices), tf.gather(table, indices), atol=1e-7)


def test_an_item_is_its_id_and_its_content():
    layer = make()
    np.testing.assert_array_equal(layer.table()[0], layer.embeddings[0])
    content = layer.table() - layer.embeddings
    # Items 1 and 5 have the same genres and differ by their price alone.
    kernel = layer.projection.kernel[0]
    deviation = FEATURES["price"].deviation
    wanted = kernel * (4.0 / deviation)
    np.testing.assert_allclose(content[5] - content[1], wanted, atol=1e-6)


@pytest.mark.parametrize("oov_buckets", [0, 2])
def test_a_dropped_id_leaves_what_a_new_item_would_have(oov_buckets):
    from tfrs_selfattn.features import FeatureEncoder

    layer = make(id_dropout=0.5, oov_buckets=oov_buckets)
    raw = {name: tf.constant(values.tolist()) for name, values in RAW.items()}
    encoded = FeatureEncoder(FEATURES)(raw)
    new = layer.of_content(encoded, tf.constant(IDS)).numpy()
    whole, dropped = layer.table().numpy()[1:], 0
    for _ in range(40):
        for row, found in enumerate(layer.table(training=True).numpy()[1:]):
            near = [np.allclose(found, each[row], atol=1e-6) for each in (whole, new)]
            assert any(near)
            dropped += near[1]
    assert 80 < dropped < 160  # of 240
    np.testing.assert_array_equal(layer.table(training=False)[1:], whole)


@pytest.mark.parametrize("oov_buckets", [0, 2])
def test_only_the_first_items_have_ids_of_their_own(oov_buckets):
    layer = make(own_ids=2, oov_buckets=oov_buckets)
    assert layer.embeddings.shape == [3, 5]
    assert sum(weight.shape[0] for weight in layer.trainable_weights) == (
        3 + oov_buckets + FEATURES.num_tokens + FEATURES.num_dense
    )
    whole = make()
    layer.projection.set_weights(whole.projection.get_weights())
    ids = layer.table() - (whole.table() - whole.embeddings)
    np.testing.assert_allclose(ids[:3], layer.embeddings, atol=1e-6)
    shared = np.zeros([4, 5], np.float32)
    if oov_buckets:
        shared = layer.oov_table.numpy()[bucket_of(tf.constant(IDS[2:]), 2).numpy()]
    np.testing.assert_allclose(ids[3:], shared, atol=1e-6)
    indices = tf.constant([[0, 3, 6], [2, 1, 3]])
    np.testing.assert_allclose(
        layer(indices), tf.gather(layer.table(), indices), atol=1e-7
    )


def test_items_of_one_bucket_learn_together():
    layer = make(own_ids=1, oov_buckets=2)
    buckets = bucket_of(tf.constant(IDS), 2).numpy()
    for read in (layer.table, lambda training: layer(tf.range(7), training=training)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(read(training=True)[2:])
        own, shared = tape.gradient(loss, [layer.embeddings, layer.oov_table])
        np.testing.assert_array_equal(tf.convert_to_tensor(own), np.zeros([2, 5]))
        wanted = np.bincount(buckets[1:], minlength=2)
        np.testing.assert_allclose(tf.convert_to_tensor(shared)[:, 0], wanted)


@pytest.mark.parametrize("own_ids", [6, 7, None])
def test_as_many_ids_as_items_are_all_of_them(own_ids):
    layer = make(own_ids=own_ids, id_dropout=0.5)
    assert layer.embeddings.shape == [7, 5]
    again = type(layer).from_config(layer.get_config())
    assert (again.own_ids, again.id_dropout) == (own_ids, 0.5)
    with pytest.raises(ValueError, match="`own_ids` must be"):
        make(own_ids=-1)


def test_features_of_the_query_and_of_events():
    projections = [FeatureProjection(FEATURES, 5) for _ in range(2)]
    items = tf.keras.layers.Embedding(7, 5)
    encoder = tf.keras.layers.Lambda(lambda x: x)
    tower = QueryTower(
        items,
        lambda x, mask, training: encoder(x),
        query_projection=projections[0],
        event_projection=projections[1],
    )
    draw = np.random.default_rng(0)

    def encoded(*shape):
        from tfrs_selfattn.features import Encoded

        return Encoded(
            tf.constant(draw.integers(0, FEATURES.num_tokens, [*shape, 3]), tf.int32),
            tf.constant(draw.random([*shape, 3]), tf.float32),
            tf.constant(draw.random([*shape, FEATURES.num_dense]), tf.float32),
        )

    query, event = encoded(2), encoded(2, 3)
    history = tf.constant([[0, 4, 2], [0, 0, 0]])
    got = tower(history, query_features=query, event_features=event)
    known = projections[0](query)
    np.testing.assert_allclose(got[1], known[1], atol=1e-6)  # by features alone
    newest = items(tf.constant(2)) + projections[1](event)[0, 2]
    np.testing.assert_allclose(got[0], newest + known[0], atol=1e-6)
    # Padded on the other side, with what belongs to the items.
    event = type(event)(*(tf.roll(each, -1, axis=1) for each in event))
    again = tower(
        tf.roll(history, -1, axis=1), query_features=query, event_features=event
    )
    np.testing.assert_allclose(again, got, atol=1e-6)
    with pytest.raises(ValueError, match="`query_features` must be given"):
        tower(history, event_features=event)
