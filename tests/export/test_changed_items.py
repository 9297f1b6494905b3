"""Items whose features are others now: a refresh embeds them anew, and only them."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.export.content import FEATURES, RAW, content_model
from tests.export.test_refresh import _nodes
from tests.export.tiny import IDS, quick_export
from tfrs_selfattn.export import NewItems, refresh_recommender
from tfrs_selfattn.export.manifest import describe_signatures
from tfrs_selfattn.features import FeatureEncoder
from tfrs_selfattn.features._vocabulary import bucket_of

CHANGED = {3: (b"sour", 60.0), 12: (b"sweet|sour", 2.0), 30: (b"salty", np.nan)}
KINDS = {
    "one table": {},
    "two normalized tables": {"share_items": False, "normalize": True},
    "with buckets": {"oov_buckets": 5},
    "with fewer ids": {"oov_buckets": 5, "own_ids": 8},
}


def told(rows=(), ids=IDS, changes=CHANGED, **more):
    """A file that says of these rows what `changes` says, of others the old."""
    raw = {name: values.copy() for name, values in RAW.items()}
    for row in rows:
        raw["tastes"][row], raw["price"][row] = changes[row]
    return NewItems(list(ids), features=raw, **more)


def with_new(items, tastes=b"sour", price=3.0):
    raw = {
        "tastes": np.append(items.features["tastes"], tastes),
        "price": np.append(items.features["price"], np.float32(price)),
    }
    return NewItems([*items.ids, "new"], features=raw)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A function from a kind to a model of items by features and an export of it."""

    @functools.cache
    def make(kind):
        model = content_model(**KINDS[kind])
        base = tmp_path_factory.mktemp("changed") / "base"
        quick_export(base, model=model)
        return model, base

    return make


@pytest.fixture
def made(make, request, tmp_path):
    """The model, and a folder with that export as version 1."""
    model, base = make(getattr(request, "param", "one table"))
    shutil.copytree(base, tmp_path / "base")
    return model, tmp_path / "base"


every_kind = pytest.mark.parametrize("made", KINDS, indirect=True)


def vectors_of(embedding, row, tastes, price):
    """Its id's vector and that of these features, by the layers in memory."""
    raw = {"tastes": tf.constant([tastes]), "price": tf.constant([price], tf.float32)}
    content = embedding.projection(FeatureEncoder(FEATURES)(raw))[0]
    if row is None:
        encoded = FeatureEncoder(FEATURES)(raw)
        return embedding.of_content(encoded, tf.constant(["new"]))[0]
    if row + 1 >= embedding.embeddings.shape[0]:  # known by the hash of its id
        bucket = bucket_of(tf.constant([IDS[row]]), embedding.oov_buckets)
        return tf.gather(embedding.oov_table, bucket)[0] + content
    return embedding.embeddings[row + 1] + content


def answers(folder, histories):
    signatures = tf.saved_model.load(str(folder)).signatures
    history = tf.constant(histories)
    return {
        "candidates": embedded(signatures, [*IDS, "new"]),
        "queries": signatures["embed_query"](history=history)["embedding"].numpy(),
    }


def embedded(signatures, ids):
    nothing = {
        name: tf.constant(values.tolist(), FEATURES[name].dtype)
        for name, values in FEATURES.missing(len(ids)).items()
    }
    return signatures["embed_item"](item=tf.constant(ids), **nothing)["embedding"]


def queries_of(model, table, histories):
    return model.query_tower(
        tf.constant(histories), training=False, item_table=tf.constant(table)
    ).numpy()


def test_the_signatures_are_the_ones_on_file(make, assert_golden):
    _, base = make("one table")
    signatures = tf.saved_model.load(str(base / "1")).signatures
    text = json.dumps(describe_signatures(signatures), indent=2, sort_keys=True)
    assert_golden("signatures_item_features.json", text + "\n")


HISTORIES = [[IDS[3], IDS[30]], [IDS[5], IDS[12]], [IDS[7], IDS[8]]]
INDICES = [[4, 31], [6, 13], [8, 9]]


@every_kind
def test_changed_items_are_embedded_anew(made, in_this_process):
    model, base = made
    before = answers(base / "1", HISTORIES)
    done = refresh_recommender(base, told(CHANGED))
    assert done.embedded == [IDS[row] for row in CHANGED]
    assert set(done.changed) == {IDS[row] for row in CHANGED}
    assert (done.added, done.removed) == ([], [])
    assert done.export.verified > 5
    after = answers(done.export.path, HISTORIES)
    mine = model.candidate_tower.item_embedding
    theirs = model.query_tower.item_embedding
    table = theirs.table().numpy()
    for row in range(len(IDS)):
        if row not in CHANGED:
            np.testing.assert_array_equal(
                after["candidates"][row], before["candidates"][row]
            )
            continue
        wanted = model.candidate_tower.finish(vectors_of(mine, row, *CHANGED[row]))
        np.testing.assert_allclose(after["candidates"][row], wanted, atol=1e-5)
        assert np.abs(after["candidates"][row] - before["candidates"][row]).max() > 0.01
        table[row + 1] = vectors_of(theirs, row, *CHANGED[row])
    wanted = queries_of(model, table, INDICES)
    np.testing.assert_allclose(after["queries"], wanted, atol=1e-4)
    moved = np.abs(after["queries"] - before["queries"]).max(axis=1)
    assert (moved[:2] > 0.01).all() and moved[2] == 0


def test_the_same_features_change_nothing(made):
    _, base = made
    before = answers(base / "1", HISTORIES)
    done = refresh_recommender(base, told(), verify=False)
    assert (done.changed, done.embedded) == ([], [])
    after = answers(done.export.path, HISTORIES)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_change_and_back_again(made):
    _, base = made
    before = answers(base / "1", HISTORIES)
    refresh_recommender(base, told(CHANGED), verify=False)
    done = refresh_recommender(base, told(), verify=False)
    assert done.embedded == [IDS[row] for row in CHANGED]
    after = answers(done.export.path, HISTORIES)
    for name, values in before.items():
        np.testing.assert_allclose(values, after[name], atol=1e-5)
    # Each version of the same graph: nothing grows by refreshes.
    assert len({_nodes(base / str(version)) for version in (2, 3)}) == 1


def test_fewer_ids_than_items_are_served_as_in_memory(tmp_path):
    """By a process that has TensorFlow alone, before the version is published."""
    model = content_model(**KINDS["with fewer ids"])
    assert model.query_tower.item_embedding.embeddings.shape[0] == 9 < len(IDS)
    export = quick_export(tmp_path / "base", model=model, verify=True)
    assert export.verified > 5
    served = answers(export.path, HISTORIES)
    catalogue = model.candidate_tower.catalogue()
    np.testing.assert_allclose(served["candidates"][:-1], catalogue, atol=1e-5)


@every_kind
def test_an_item_that_a_refresh_added_changes_like_a_new_one(made):
    model, base = made
    done = refresh_recommender(base, with_new(told()), verify=False)
    assert done.embedded == done.added == ["new"]
    done = refresh_recommender(base, with_new(told(), b"sweet", 1.0), verify=False)
    assert (done.embedded, done.changed, done.added) == (["new"], ["new"], [])
    history = [["new", IDS[4]]]
    after = answers(done.export.path, history)
    towers = (model.candidate_tower.item_embedding, model.query_tower.item_embedding)
    mine, theirs = (vectors_of(each, None, b"sweet", 1.0) for each in towers)
    wanted = model.candidate_tower.finish(mine)
    np.testing.assert_allclose(after["candidates"][-1], wanted, atol=1e-5)
    table = np.vstack([towers[1].table().numpy(), theirs])
    wanted = queries_of(model, table, [[len(IDS) + 1, 5]])
    np.testing.assert_allclose(after["queries"], wanted, atol=1e-4)


def test_what_is_not_told_stays(made):
    """Of an item nothing, or of no item all: they keep their vectors."""
    _, base = made
    blank = dict.fromkeys(CHANGED, (b" ", np.nan))
    done = refresh_recommender(base, told(blank, changes=blank), verify=False)
    # Two of the three had features: of those nothing is told, not that they are gone.
    assert done.embedded == []
    tastes = {"tastes": told(CHANGED).features["tastes"]}
    done = refresh_recommender(base, NewItems(list(IDS), features=tastes), verify=False)
    assert done.embedded == []


def test_an_item_comes_back_with_other_features(made):
    model, base = made
    kept = [row for row in range(len(IDS)) if row != 3]
    some = NewItems([IDS[row] for row in kept])
    done = refresh_recommender(base, some, verify=False)
    assert (done.removed, done.embedded) == ([IDS[3]], [])
    done = refresh_recommender(base, told([3]), verify=False)
    assert (done.added, done.embedded) == ([IDS[3]], [IDS[3]])
    after = answers(done.export.path, HISTORIES[:1])
    wanted = vectors_of(model.query_tower.item_embedding, 3, *CHANGED[3])
    np.testing.assert_allclose(after["candidates"][3], wanted, atol=1e-5)
    table = model.query_tower.item_embedding.table().numpy()
    table[4] = wanted
    wanted = queries_of(model, table, INDICES[:1])
    np.testing.assert_allclose(after["queries"], wanted, atol=1e-4)


def test_a_vector_that_was_given_stays_until_features_change(made):
    model, base = made
    vector = np.full(8, np.sqrt(1 / 8), np.float32)
    given = [vector if row == 3 else None for row in range(len(IDS))]
    done = refresh_recommender(base, told(embeddings=given), verify=False)
    assert (done.changed, done.embedded) == ([IDS[3]], [])
    done = refresh_recommender(base, told(), verify=False)
    assert done.changed == []
    # Of both, the vector counts for answers, and features in histories.
    done = refresh_recommender(base, told([3], embeddings=given), verify=False)
    assert done.embedded == [IDS[3]]
    after = answers(done.export.path, HISTORIES)
    np.testing.assert_array_equal(after["candidates"][3], vector)
    table = model.query_tower.item_embedding.table().numpy()
    table[4] = vectors_of(model.query_tower.item_embedding, 3, *CHANGED[3])
    wanted = queries_of(model, table, INDICES[:1])
    np.testing.assert_allclose(after["queries"][:1], wanted, atol=1e-4)


def test_an_export_of_an_earlier_version_keeps_vectors(made):
    _, base = made
    (base / "1" / "assets.extra" / "id_vectors.npy").unlink()
    done = refresh_recommender(base, with_new(told(CHANGED)), verify=False)
    assert (done.embedded, done.changed) == (["new"], [])
