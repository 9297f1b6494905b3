"""Shards of the items and the query model: what they hold, all or none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tests.export.tiny import COUNTS, IDS, K, N, make_model, make_vocabulary
from tfrs_selfattn import InputError
from tfrs_selfattn.data import Vocabulary
from tfrs_selfattn.export import (
    ExportError,
    NewItems,
    export_recommender,
    export_shards,
    manifest,
    refresh_recommender,
    sharded,
)
from tfrs_selfattn.export.popularity import log_shares
from tfrs_selfattn.export.searching import Index
from tfrs_selfattn.index import building

SHARDS = 3


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    base = tmp_path_factory.mktemp("shards")
    options = {"vocabulary": make_vocabulary(), "num_shards": SHARDS, "k": K}
    return export_shards(model, base, verify=False, **options)


def test_the_items_are_dealt_out_in_their_order(model, exports):
    query, *shards = exports
    assert query.path.parent.name == "query"
    assert [each.path.parent.name for each in shards] == [
        f"shard-{number}-of-3" for number in range(SHARDS)
    ]
    tables = [
        pl.read_parquet(each.path / "assets.extra" / "embeddings.parquet")
        for each in shards
    ]
    assert [len(table) for table in tables] == [10, 10, 11]
    together = pl.concat(tables)
    assert together["item_id"].to_list() == list(IDS)
    vectors = np.array(together["embedding"].to_list(), np.float32)
    np.testing.assert_array_equal(vectors, model.candidate_tower.catalogue().numpy())
    assert [each.manifest["first_row"] for each in shards] == [0, 10, 20]
    for number, each in enumerate(shards):
        assert each.manifest["shard"] == {"number": number, "of": 3}
        assert each.manifest["model"] == query.manifest["model"]
        for key in each.manifest:
            assert f"`{key}`" in manifest.__doc__, key


def test_popularity_is_that_of_all_items(exports):
    for export in exports[1:]:
        search = tf.saved_model.load(str(export.path)).signatures["search"]
        answer = search(
            embedding=tf.zeros([1, 8]), exclude=tf.constant([[""]], tf.string)
        )
        ids, scores = (answer[name].numpy()[0] for name in ("ids", "scores"))
        for item, score in zip(ids, scores, strict=True):
            assert score == log_shares(COUNTS)[IDS.index(item.decode())]


def test_shards_are_not_refreshed(exports):
    for export in exports:
        base = export.path.parent
        with pytest.raises(InputError, match=r"parts='(query|index)'.*--shards"):
            refresh_recommender(base, NewItems(IDS))
        assert [path.name for path in base.iterdir()] == [export.path.name]


@pytest.mark.usefixtures("in_this_process")
def test_a_verified_export_takes_the_next_version_of_all(model, tmp_path):
    (tmp_path / "shard-1-of-2" / "4").mkdir(parents=True)
    options = {"vocabulary": make_vocabulary(), "num_shards": 2, "k": K}
    done = export_shards(model, tmp_path, **options)
    assert [each.version for each in done] == [5, 5, 5]
    assert all(each.verified > 5 for each in done)


@pytest.mark.parametrize(
    ("num_items", "settings", "wanted"),
    [
        (10_000_000, {}, 168),  # of 25,298 leaves one in 150; a quarter's alone: 84
        (10_000_000, {"num_leaves": 6_000}, 40),
        (10_000_000, {"num_leaves_to_search": 5}, 5),
        (30_000, {}, 234),  # A quarter has all of its 234 leaves searched.
    ],
)
def test_a_shard_searches_as_many_leaves_as_the_whole(num_items, settings, wanted):
    whole = Index("partitioned", settings)
    found = whole.of_shard(num_items, num_items // 4, 100)
    assert found.settings == settings | {"num_leaves_to_search": wanted}
    assert Index("exact").of_shard(num_items, num_items // 4, 100) == Index("exact")


def test_partitioned_shards_together_miss_no_more_than_one_index(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_SEARCH_ALL", 100)
    size, draw = 3_000, np.random.default_rng(0)
    model = make_model(size)
    words = {
        "vocabulary": Vocabulary(
            tuple(f"i{row}" for row in range(size)), np.arange(size, 0, -1)
        ),
        "k": K,
        "index": "partitioned",
        "verify": False,
    }
    whole = export_recommender(model, tmp_path / "whole", parts="index", **words)
    _, *shards = export_shards(model, tmp_path / "parts", num_shards=3, **words)
    vectors = model.candidate_tower.catalogue().numpy()
    queries = draw.normal(size=[64, vectors.shape[1]]).astype(np.float32)
    best = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :K]

    def asked(export):
        search = tf.saved_model.load(str(export.path)).signatures["search"]
        found = search(
            embedding=tf.constant(queries), exclude=tf.fill([len(queries), 1], "")
        )
        rows = [[int(item[1:]) for item in row] for row in found["ids"].numpy()]
        return np.array(rows), found["scores"].numpy()

    def recall(rows):
        found = [len({*row} & {*right}) for row, right in zip(rows, best, strict=True)]
        return sum(found) / best.size

    rows, scores = (
        np.concatenate(part, axis=1) for part in zip(*map(asked, shards), strict=True)
    )
    merged = np.take_along_axis(
        rows, np.argsort(-scores, axis=1, kind="stable")[:, :K], axis=1
    )
    alone, _ = asked(whole)
    assert 0.3 < recall(alone) < 1.0
    assert recall(merged) >= recall(alone)


def test_none_is_left_when_one_fails(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ExportError("no")

    monkeypatch.setattr(sharded, "export_recommender", fail)
    options = {"vocabulary": make_vocabulary(), "num_shards": 2, "k": K}
    with pytest.raises(ExportError, match="no"):
        export_shards(model, tmp_path, verify=False, **options)
    assert not [*tmp_path.rglob("saved_model.pb")]


def test_more_shards_than_items(model, tmp_path):
    with pytest.raises(InputError, match=f"num_shards={N + 1} for {N} items"):
        export_shards(
            model, tmp_path, vocabulary=make_vocabulary(), num_shards=N + 1, k=K
        )
