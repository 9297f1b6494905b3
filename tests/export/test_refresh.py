"""A version with other items: what it answers, and what it leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.export.tiny import COUNTS, IDS, LOWEST, WIDTH, K, quick_export, top_k_of
from tfrs_selfattn import InputError
from tfrs_selfattn.export import (
    NewItems,
    load_recommender,
    read_new_items,
    refresh_recommender,
)
from tfrs_selfattn.features import (
    FeatureSet,
    MultiCategory,
    Text,
    Vector,
    read_feature_table,
)

KEPT = [*IDS[20:], *IDS[:15]]  # in another order, without five of them
VECTOR = np.linspace(-3, 3, WIDTH).astype(np.float32)
HISTORIES = [["item 3", "item 14"], ["item 17", "new"], ["new"], [], ["item 17"]]


def files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def base(export, tmp_path_factory):
    base = tmp_path_factory.mktemp("refresh") / "base"
    shutil.copytree(export.path, base / "1")
    return base


@pytest.fixture(scope="module")
def refreshed(base):
    """Five items gone, one new with a vector, one with another title and popularity."""
    before = files(base / "1")
    size = len(KEPT)
    items = NewItems(
        [*KEPT, "new"],
        titles=[*["Thirty" if item == "0" else None for item in KEPT], "The new one"],
        events=[*[1000 if item == "0" else None for item in KEPT], 5],
        embeddings=[*[None] * size, VECTOR],
    )
    done = refresh_recommender(base, items)
    assert files(base / "1") == before
    return done


def oracle(model, history, among=None):
    """Plain loops over the tower's query and the vectors of the refreshed items."""
    catalogue = model.candidate_tower.catalogue().numpy()
    ids = [*KEPT, "new"]
    vectors = {item: catalogue[IDS.index(item)] for item in KEPT} | {"new": VECTOR}
    known = [IDS.index(item) + 1 for item in history if item in IDS]
    if known:
        query = model.query_tower(tf.constant([known])).numpy()[0]
        scores = [float(np.dot(vectors[item], query)) for item in ids]
    else:
        events = [1000 if i == "0" else int(COUNTS[IDS.index(i)]) for i in KEPT] + [5]
        scores = [np.log(max(count, 0.5) / sum(events)) for count in events]
    return top_k_of(ids, scores, lambda j: ids[j] not in history, K)


def test_it_answers_with_the_new_items_alone(refreshed, model):
    recommender = load_recommender(refreshed.export.path)
    for history, answer in zip(
        HISTORIES, recommender.recommend(HISTORIES), strict=True
    ):
        ids, scores = oracle(model, history)
        assert [item.id.encode() for item in answer] == [i for i in ids if i != b""]
        wanted = [score for score in scores if score > LOWEST]
        assert [i.score for i in answer] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    # An item that is gone still says something about a user who had it.
    assert recommender.recommend([["item 17"]]) != recommender.recommend([[]])


def test_it_says_what_is_different(refreshed, base):
    assert (refreshed.source, refreshed.export.version) == (1, 2)
    assert refreshed.added == ["new"]
    assert refreshed.removed == [f"item {j}" for j in range(15, 20)]
    assert refreshed.changed == ["0"]
    written = refreshed.export.manifest
    assert (written["refreshed_from"], written["items"], written["known"]) == (
        1,
        27,
        32,
    )
    assert written["metrics"] == {"ndcg@10": 0.25}
    assert written["verified"] > 5
    titles = pl.read_csv(base / "2" / "assets.extra" / "titles.csv")
    assert dict(titles.iter_rows())["new"] == "The new one"
    assert dict(titles.iter_rows())["item 0"] == 'Zero, "the" first'


def test_items_come_back_without_a_vector(refreshed, base, signatures, strings):
    done = refresh_recommender(base, NewItems(IDS), source=2, verify=False)
    assert done.added == [f"item {j}" for j in range(15, 20)]
    assert done.removed == ["new"]
    again = tf.saved_model.load(str(done.export.path)).signatures
    history = strings([["item 3", "item 17"], ["item 9"]])
    for name in ("serving_default", "embed_query"):
        first, second = signatures[name](history=history), again[name](history=history)
        for output, values in first.items():
            np.testing.assert_array_equal(values, second[output])
    shutil.rmtree(done.export.path)


def test_the_graph_does_not_grow_by_refreshes(export, tmp_path):
    """A server is refreshed every hour: each version from the one before."""
    shutil.copytree(export.path, tmp_path / "1")
    graphs = [
        refresh_recommender(tmp_path, NewItems(IDS), verify=False).export.path
        for _ in range(4)
    ]
    # Not bytes: names carry a counter of the process, which gains a digit now and then.
    assert len({_nodes(path) for path in graphs}) == 1


def _nodes(path):
    """How many nodes the graph of a SavedModel has, those in its functions included."""
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    graph = saved.meta_graphs[0].graph_def
    functions = [len(function.node_def) for function in graph.library.function]
    return len(graph.node), len(functions), sum(functions)


def test_prune_keeps_the_highest_versions(export, tmp_path):
    for version in (1, 2, 7):
        shutil.copytree(export.path, tmp_path / str(version))
    (tmp_path / "notes").mkdir()
    done = refresh_recommender(tmp_path, NewItems(IDS), prune=2, verify=False)
    assert done.pruned == [1, 2]
    assert sorted(child.name for child in tmp_path.iterdir()) == ["7", "8", "notes"]
    done = refresh_recommender(
        tmp_path, NewItems(IDS), version=3, prune=1, verify=False
    )
    assert (done.export.version, done.pruned) == (3, [7])


def test_what_is_refused(export, base, tmp_path):
    shutil.copytree(export.path, tmp_path / "1")
    new = [*IDS, *(f"new {j}" for j in range(12))]
    for items, options, message in (
        (NewItems(new), {}, r"never saw 12 of these.*'new 0', .*and 2 more"),
        (NewItems(IDS[:3]), {}, r"leaves out 28 of 31 items.*`max_removed`"),
        (NewItems(IDS), {"source": 9}, r"source=9, and there are \[1\]"),
        (NewItems(IDS), {"version": 1}, "version=1"),
        (NewItems(IDS), {"prune": 0}, "`prune` must be a positive integer"),
        (
            NewItems(["a"], embeddings=[np.ones(3, np.float32)]),
            {"max_removed": 0.99},
            "Received: 3 for 'a'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            refresh_recommender(tmp_path, items, **options)
    assert [child.name for child in tmp_path.iterdir()] == ["1"]


def test_normalized_vectors_stay_normalized(tiny, tmp_path):
    from tfrs_selfattn.models import CandidateTower, SequenceRetrieval

    model = tiny.make_model()
    candidates = CandidateTower(
        tf.keras.layers.Embedding(tiny.N + 1, 8), normalize=True
    )
    quick_export(tmp_path, model=SequenceRetrieval(model.query_tower, candidates))
    long = NewItems([*IDS, "a"], embeddings=[*[None] * len(IDS), VECTOR])
    with pytest.raises(
        InputError, match=r"length 1, .* Received: length 5\.\d+ for 'a'"
    ):
        refresh_recommender(tmp_path, long)


@pytest.mark.usefixtures("in_this_process")
def test_the_items_alone_are_refreshed_too(tiny, tmp_path, model):
    """As a server of the index has them, and as a vector database does."""
    quick_export(tmp_path, model=model, parts="index")
    kept = [*IDS[5:], "new"]
    items = NewItems(kept, embeddings=[*[None] * len(IDS[5:]), VECTOR])
    done = refresh_recommender(tmp_path, items)
    assert (done.added, len(done.removed)) == (["new"], 5)
    written = done.export.manifest
    assert (written["parts"], written["index"]["recall"]) == ("index", 1.0)
    assert written["verified"] > 0
    assert set(written["signatures"]) == {"search", "embed_item"}
    frame = pl.read_parquet(done.export.path / "assets.extra" / "embeddings.parquet")
    assert frame["item_id"].to_list() == kept
    np.testing.assert_allclose(frame["embedding"].to_list()[-1], VECTOR, rtol=1e-6)
    signatures = tf.saved_model.load(str(done.export.path)).signatures
    query = model.query_tower(tf.constant([[1, 9]])).numpy()
    catalogue = model.candidate_tower.catalogue().numpy()
    scores = np.concatenate([catalogue[5:], [VECTOR]]) @ query[0]
    found = signatures["search"](
        embedding=tf.constant(query), exclude=tf.constant([["new", IDS[30]]])
    )["ids"].numpy()[0]
    left = [kept[j] for j in np.argsort(-scores) if kept[j] not in ("new", IDS[30])]
    assert [item.decode() for item in found] == left[: len(found)]
    # And once more, from what that one holds.
    again = refresh_recommender(tmp_path, NewItems(list(IDS)), verify=False)
    assert (again.added, again.removed) == (sorted(IDS[:5]), ["new"])


def test_exports_that_cannot_be_refreshed(tiny, tmp_path, model):
    quick_export(tmp_path / "query", model=model, parts="query")
    with pytest.raises(InputError, match="parts='query'"):
        refresh_recommender(tmp_path / "query", NewItems(IDS))
    with pytest.raises(InputError, match="does not exist"):
        refresh_recommender(tmp_path / "nowhere", NewItems(IDS))


def test_a_file_of_items(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(
        'film,title,events,embedding\n1,Tea,7,"[1.0, 2.0]"\n2,,,\n'
        '"a,b", Milk ,0,3 -4e-1\n'
    )
    items = read_new_items(path, item_column="film")
    assert items.ids == ["1", "2", "a,b"]
    assert items.titles == ["Tea", None, "Milk"]
    assert items.events == [7, None, 0]
    np.testing.assert_allclose(items.embeddings[0], [1, 2])
    assert items.embeddings[1] is None
    np.testing.assert_allclose(items.embeddings[2], [3, -0.4])
    lists = pl.DataFrame({"item_id": ["x"], "embedding": [[0.5, 1.5]]})
    lists.write_parquet(tmp_path / "items.parquet")
    items = read_new_items(tmp_path / "items.parquet")
    np.testing.assert_allclose(items.embeddings[0], [0.5, 1.5])
    assert (items.titles, items.events) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item_id\n", "at least one item"),
        ("item\n1\n", "must have a column 'item_id'. Received: item"),
        ("item_id\n1\n1\n", r"row 2 \(line 3\) repeats the id '1'"),
        ("item_id,title\n,x\n", r"row 1 \(line 2\) has no id"),
        ("item_id,events\n1,-3\n", r"'events' must hold .* Received: '-3'"),
        ("item_id,events\n1,1.5\n", "'events' must hold"),
        ("item_id,embedding\n1,a b\n", "'embedding' must hold finite numbers"),
        ("item_id,embedding\n1,nan\n", "'embedding' must hold finite numbers"),
        ("item_id,title\n1,a,b\n", "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    path = tmp_path / "items.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_new_items(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("movies.dat", "1::Café (1995)::Comedy|War\n02::Tea (1990)::Drama\n"),
        (
            "u.item",
            "1|Café (1995)|1-Jan-1995|||" + "|".join("0000010000000000010") + "\n"
            "02|Tea (1990)|1-Jan-1990|||" + "|".join("0000000010000000000") + "\n",
        ),
        (
            "x.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "1\tCafé\t1995\tComedy War\n02\tTea\t1990\tDrama\n",
        ),
    ],
)
def test_films_are_read_as_in_training(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8" if name == "x.item" else "latin-1")
    features = FeatureSet((Text("title"), MultiCategory("genres")))
    new, trained = (
        read_new_items(path, features=features),
        read_feature_table(path, features),
    )
    assert list(new.ids) == trained.ids == ["1", "02"]
    assert new.titles == ["Café (1995)", "Tea (1990)"]
    for feature in features.names:
        assert new.features[feature].tolist() == trained.raw[feature].tolist()
    assert new.features["genres"].tolist() == [b"Comedy|War", b"Drama"]


def test_vectors_of_a_file_of_their_own(tmp_path):
    path, matrix = tmp_path / "items.csv", tmp_path / "look.npy"
    path.write_text("item_id,title\na,Tea\nb,Milk\nc,\n")
    vectors = np.array([[1.0, 2], [0, 0], [3, 4]])
    np.save(matrix, vectors)
    features = FeatureSet(
        (Text("title"), Vector("look", "of/training.npy", (0.0, 1.0)))
    )
    new = read_new_items(path, features=features, vectors={"look": matrix})
    np.testing.assert_array_equal(new.features["look"], vectors)
    assert new.tells_all(features)
    assert not read_new_items(path, features=features).tells_all(features)
    for name, rows, message in (
        ("look", 2, "a row for each of the 3 rows .* Received: 2. Write them in the"),
        ("title", 3, "of the kind vector that .* by: look. Received: 'title'. Corr"),
    ):
        np.save(matrix, vectors[:rows])
        with pytest.raises(InputError, match=message):
            read_new_items(path, features=features, vectors={name: matrix})


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="must be a file"):
        read_new_items(tmp_path / "nowhere.csv")


def test_the_command(cli_status, base, export, tmp_path):
    shutil.copytree(export.path, tmp_path / "base" / "1")
    (tmp_path / "items.csv").write_text("item_id\n" + "\n".join(IDS[:20]) + "\n")
    arguments = ("refresh", tmp_path / "base", "--items", tmp_path / "items.csv")
    status, out, _ = cli_status(*arguments, "--prune", "1", "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["version"], told["source"], told["pruned"]) == (2, 1, [1])
    assert (told["items"], told["added"], told["removed"]) == (20, 0, 11)
    (tmp_path / "items.csv").write_text("item_id\nnobody knows\n")
    for more, message in (
        (("--max-removed", "0.99"), "error: Every new item must have a vector"),
        (("--vectors", "look"), "error: --vectors must be NAME=FILE.npy. Received: 'l"),
        (("--vectors", "a=b.npy"), "error: --vectors must be NAME=FILE.npy, of a feat"),
    ):
        status, _, err = cli_status(*arguments, *more)
        assert status == 2
        assert err.startswith(message)
        assert len(err.splitlines()) == 1
    # Which ones all are, is for machines.
    new = [f"new {j}" for j in range(12)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id", *IDS, *new]) + "\n")
    status, out, err = cli_status(*arguments, "--json")
    assert (status, json.loads(out)["items"]) == (2, new)
    assert "and 2 more" in err and json.loads(out)["error"] in err
    (tmp_path / "items.csv").write_text(f"item_id\n{IDS[0]}\n")
    status, out, _ = cli_status(*arguments, "--json")
    left_out = {*IDS[1:20]}  # of the version that the first refresh has written
    assert (status, set(json.loads(out)["items"])) == (2, left_out)
