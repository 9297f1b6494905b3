"""Side information from the command line: train, evaluate, go on, export, refresh."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import training
from tfrs_selfattn.export import load_recommender
from tfrs_selfattn.features import FeatureEncoder, FeatureSet

SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16")
TASTES = ("sweet", "salty", "sour")


@pytest.fixture(scope="session")
def items(events, tmp_path_factory):
    """A table of the articles of the log: 19 of 20, and 5 more."""
    ids = pl.read_csv(events, infer_schema=False)["article"].unique(maintain_order=True)
    ids = [*ids.sort().to_list()[1:], *(f"new {number}" for number in range(5))]
    draw = np.random.default_rng(0)
    frame = {
        "article": ids,
        "title": [f"Word{n % 4} word{n % 3}" for n in range(len(ids))],
        "tastes": ["|".join(draw.choice(TASTES, 2, replace=False)) for _ in ids],
        "price": [None if n == 3 else float(n) for n in range(len(ids))],
    }
    path = tmp_path_factory.mktemp("items") / "items.csv"
    pl.DataFrame(frame).write_csv(path)
    return path


@pytest.fixture(scope="session")
def features(items):
    return f"{items}:title=text,tastes=multi,price=number"


@pytest.fixture(scope="session")
def known(events, columns, features, tmp_path_factory):
    """A run with item features, not to be changed; its folder."""
    from tfrs_selfattn.cli.main import main

    folder = tmp_path_factory.mktemp("runs") / "known"
    words = ["train", "--data", str(events), *columns, *SMALL, "--epochs", "2"]
    with pytest.raises(SystemExit) as exit:
        main([*words, "--output", str(folder), "--item-features", features])
    assert exit.value.code == 0
    return folder


def test_the_run_keeps_what_it_needs(known, features, items):
    folder = training.RunFolder.open(known)
    assert folder.config.features.items == features
    assert folder.config.model.id_dropout == 0.2
    side = folder.side()
    assert side.items.features.names == ("title", "tastes", "price")
    assert side.items.features["tastes"].vocabulary
    assert tuple(side.items.table.ids) == folder.vocabulary().ids
    assert side.fingerprint() == folder.config.features.fingerprint


def test_items_that_the_table_lacks_are_counted_and_named(
    cli, events, columns, features, tmp_path
):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "1")
    done = cli(*words, "--output", tmp_path / "run", "--item-features", features)
    assert done.status == 0
    assert re.search(
        r"1 of 20 items are not in \S*items.csv, the first is '\w+'",
        re.sub(r"\s+", " ", done.out + done.err),
    )


def test_evaluate_needs_the_run_and_the_events_only(cli, known):
    done = cli("evaluate", known, "--json")
    assert done.status == 0
    assert 0 < done.json["metrics"]["model"]["hr@10"] <= 1


def test_a_trained_run_is_continued_by_the_same_features_only(
    cli, known, events, columns, features
):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "2")
    words = (*words, "--output", known, "--json", "--item-features")
    done = cli(*words, features)
    assert done.status == 0
    assert done.json["resumed_from"] == 2
    done = cli(*words, features.replace(",price=number", ""))
    assert done.status == 2
    assert "item_features" in done.err or "--item-features" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--item-features items.csv", "--item-features must be written as items.csv:"),
        ("--item-features no.csv:a=text", "file of features must be a file. .*no.csv"),
        ("--item-features {items}:a=text", "must have a column 'a'"),
        ("--item-features {items}:title=number", "column 'title' must hold finite"),
        ("--id-dropout 0.5", "--oov-buckets and --own-ids need item features"),
        ("--oov-buckets 5", "--oov-buckets and --own-ids need item features"),
        ("--own-ids 5", "--oov-buckets and --own-ids need item features"),
        ("--id-dropout 1", r"--id-dropout must be a number in \[0, 1\)"),
    ],
)
def test_options_that_are_refused(
    refused, events, columns, items, tmp_path, options, message
):
    words = ("train", "--data", events, *columns, *SMALL, "--output", tmp_path / "run")
    given = options.format(items=items).split()
    assert re.search(message, refused(*words, *given))


def test_separate_tables_of_items(cli, events, columns, features, tmp_path):
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "1", "--json")
    done = cli(
        *(*words, "--output", tmp_path / "run", "--item-features", features),
        *("--separate-items", "--oov-buckets", "3", "--id-dropout", "0.5"),
        *("--own-ids", "4", "--loss", "sampled-softmax", "--num-negatives", "8"),
    )
    assert done.status == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["share_items"] is False
    assert config["model"]["oov_buckets"] == 3
    model = training.load_model(training.RunFolder.open(tmp_path / "run"))
    assert not model.shares_table
    assert config["model"]["own_ids"] == 4
    for tower in (model.query_tower, model.candidate_tower):
        assert tower.item_embedding.embeddings.shape == [5, 8]
        assert tower.item_embedding.oov_table.shape == [3, 8]


@pytest.fixture(scope="session")
def served(known, tmp_path_factory):
    """The base folder of an export of that run, k = 30."""
    from tfrs_selfattn.cli.main import main

    base = tmp_path_factory.mktemp("models") / "served"
    with pytest.raises(SystemExit) as exit:
        main(["export", str(known), "--to", str(base), "--k", "30"])
    assert exit.value.code == 0
    return base


@pytest.fixture
def base(served, tmp_path):
    shutil.copytree(served, tmp_path / "base")
    return tmp_path / "base"


def all_items(known, items):
    """The items of the run, and the new ones of the table, with all columns."""
    table = pl.read_csv(items, infer_schema=False)
    ids = training.RunFolder.open(known).vocabulary().ids
    old = pl.DataFrame({"article": list(ids)}).join(
        table, on="article", how="left", maintain_order="left"
    )
    return pl.concat([old, table.filter(pl.col("article").str.starts_with("new"))])


def test_new_items_are_embedded_from_their_features(cli, base, known, items, tmp_path):
    import tensorflow as tf

    table = all_items(known, items)
    table.write_csv(tmp_path / "all.csv")
    words = (
        "refresh",
        base,
        "--items",
        tmp_path / "all.csv",
        "--item-column",
        "article",
    )
    done = cli(*words, "--json")
    assert done.status == 0, done.err
    assert (done.json["version"], done.json["added"], done.json["removed"]) == (2, 5, 0)

    # By the model in memory, from the raw values of the file.
    model = training.load_model(training.RunFolder.open(known))
    embedding = model.query_tower.item_embedding
    new = table.filter(pl.col("article").str.starts_with("new"))
    raw = {each.name: each.read(new[each.name], "all") for each in embedding.features}
    names = tf.constant(new["article"].to_list())
    encoded = FeatureEncoder(embedding.features)(
        {name: tf.constant(values.tolist()) for name, values in raw.items()}
    )
    wanted = embedding.of_content(encoded, names).numpy()
    signatures = tf.saved_model.load(str(base / "2")).signatures
    nothing = {
        name: tf.constant(values.tolist())
        for name, values in embedding.features.missing(5).items()
    }
    got = signatures["embed_item"](item=names, **nothing)["embedding"].numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.abs(wanted).max() > 1e-3

    # What they say counts in histories, though no training has seen them.
    before = tf.saved_model.load(str(base / "1")).signatures
    history = tf.constant([["new 0", "new 1"], ["new 2", ""]])
    assert not before["embed_query"](history=history)["embedding"].numpy().any()
    table = np.concatenate([embedding.table().numpy(), wanted])
    queries = model.query_tower(
        tf.constant([[21, 22], [23, 0]]), training=False, item_table=tf.constant(table)
    )
    np.testing.assert_allclose(
        signatures["embed_query"](history=history)["embedding"], queries, atol=1e-5
    )
    answer = signatures["serving_default"](history=history)["ids"].numpy()
    assert b"new 3" in answer[0]
    assert b"new 0" not in answer[0]

    # A refreshed version is refreshed like any other.
    done = cli(*words, "--json")
    assert (done.json["version"], done.json["added"]) == (3, 0)


def test_a_run_of_item_features_is_explained(cli, known, served):
    ids = training.RunFolder.open(known).vocabulary().ids
    history, item = [ids[3], ids[7]], ids[0]
    words = ("--history", ",".join(history), "--item", item, "--json")
    found = []
    for source in (known, served):
        done = cli("explain", source, *words)
        assert done.status == 0, done.err
        contributions = done.json["contributions"]
        assert [each["id"] for each in contributions] == history
        found.append([each["contribution"] for each in contributions])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-5)


def test_users_of_a_file_are_answered_with_new_items(cli, base, known, items, tmp_path):
    all_items(known, items).write_csv(tmp_path / "all.csv")
    words = ("--items", tmp_path / "all.csv", "--item-column", "article")
    assert cli("refresh", base, *words).status == 0
    histories = [["new 0", "new 1"], ["new 2"], []]
    users = {"user_id": ["a", "b", "c"], "history": histories}
    pl.DataFrame(users).write_parquet(tmp_path / "users.parquet")
    words = ("--users", tmp_path / "users.parquet", "--output", tmp_path / "answers")
    done = cli("recommend-all", base, *words)
    assert done.status == 0, done.err
    (part,) = (tmp_path / "answers").glob("*.parquet")
    answers = pl.read_parquet(part)["items"].to_list()
    wanted = load_recommender(base).recommend(histories)
    assert answers == [[item.id for item in answer] for answer in wanted]
    assert "new 3" in answers[0] and "new 0" not in answers[0]


def side_features(run):
    return training.RunFolder.open(run).side().items.features


def test_an_item_of_which_other_things_are_told_is_embedded_anew(
    cli, base, known, items, tmp_path
):
    import tensorflow as tf

    table = all_items(known, items)
    first = table["article"][0]
    told = pl.col("article") == first
    table = table.with_columns(
        tastes=pl.when(told).then(pl.lit("sour")).otherwise("tastes"),
        price=pl.when(told).then(pl.lit("3.0")).otherwise("price"),
    )
    table.write_csv(tmp_path / "all.csv")
    words = ("refresh", base, "--item-column", "article", "--items")
    done = cli(*words, tmp_path / "all.csv", "--json")
    assert done.status == 0, done.err
    # All get titles, from a column that is a feature too; vectors the five and the one.
    assert [done.json[name] for name in ("added", "embedded")] == [5, 6]
    before, after = (
        tf.saved_model.load(str(base / version)).signatures["embed_item"]
        for version in "12"
    )
    ids = tf.constant(table["article"].to_list()[:20])
    nothing = {
        name: tf.constant(values.tolist())
        for name, values in side_features(known).missing(20).items()
    }
    one, other = (
        embed(item=ids, **nothing)["embedding"].numpy() for embed in (before, after)
    )
    assert np.flatnonzero((one != other).any(axis=1)).tolist() == [0]
    # Without the columns of all features nothing is known of what changed.
    table.drop("price").write_csv(tmp_path / "some.csv")
    done = cli(*words, tmp_path / "some.csv")
    assert done.status == 0
    said = re.sub(r"\s+", " ", done.out)
    assert re.search(r"some.csv has no column price: items that the export knows", said)
    assert "are embedded" not in said


def test_an_unknown_item_is_embedded_by_a_request(served, known):
    import tensorflow as tf

    embed = tf.saved_model.load(str(served / "1")).signatures["embed_item"]
    one = {"title": "Word0 word1", "tastes": "sweet", "price": 3.0}
    two = {"title": "", "tastes": "", "price": np.nan}
    raw = {name: tf.constant([one[name], two[name], one[name]]) for name in one}
    first = training.RunFolder.open(known).vocabulary().ids[0]
    new, bare, padding = embed(item=tf.constant(["new", first, ""]), **raw)["embedding"]
    assert new.numpy().any()
    assert bare.numpy().any()
    assert not padding.numpy().any()


def test_a_new_item_of_which_nothing_is_told_is_refused(
    cli, base, known, items, tmp_path
):
    table = all_items(known, items)
    table = table.with_columns(
        *(
            pl.when(pl.col("article").is_in(["new 1", "new 4"]))
            .then(None)
            .otherwise(pl.col(name))
            .alias(name)
            for name in ("title", "tastes", "price")
        )
    )
    table.write_csv(tmp_path / "all.csv")
    words = (
        "refresh",
        base,
        "--items",
        tmp_path / "all.csv",
        "--item-column",
        "article",
    )
    done = cli(*words)
    assert done.status == 2
    assert "nothing for 2 of them, 'new 1', 'new 4'. Fill in one of" in done.err
    assert not (base / "2").exists()


def test_a_model_of_ids_refuses_new_items_with_a_list(
    cli, exported, known, items, tmp_path
):
    all_items(known, items).write_csv(tmp_path / "all.csv")
    shutil.copytree(exported, tmp_path / "ids")
    words = ("refresh", tmp_path / "ids", "--items", tmp_path / "all.csv")
    done = cli(*words, "--item-column", "article")
    assert done.status == 2
    assert "never saw 5 of these. Received: none for 'new 0', 'new 1'" in done.err


def test_the_manifest_holds_the_features(served, known):
    content = json.loads(
        (served / "1" / "assets.extra" / "recommender.json").read_text()
    )
    side = training.RunFolder.open(known).side()
    assert FeatureSet.from_config(content["features"]["items"]) == side.items.features
    inputs = content["signatures"]["embed_item"]["inputs"]
    assert inputs["price"] == {"dtype": "float32", "shape": [None]}
    assert inputs["title"] == {"dtype": "string", "shape": [None]}
