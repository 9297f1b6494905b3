"""Features of users and events, as clients and exports are told of them."""

from __future__ import annotations

import math
import re

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tests.export.conftest import ask_in_this_process
from tests.export.tiny import IDS, K, make_vocabulary, quick_export
from tests.export.told import EVENTS, FEATURES, HISTORIES, told_model
from tfrs_selfattn import InputError
from tfrs_selfattn.client import TensorSpec
from tfrs_selfattn.client.told import told_of
from tfrs_selfattn.data import events_from_frame, generate_events, prepare_events
from tfrs_selfattn.explain import Explainer
from tfrs_selfattn.export import (
    export_shards,
    load_recommender,
    recommend_all,
    verification,
)

SPECS = {
    "history": TensorSpec("string", (None, None)),
    "country": TensorSpec("string", (None,)),
    "taste": TensorSpec("float32", (None, 2)),
    "kind": TensorSpec("string", (None, None)),
    "price": TensorSpec("float32", (None, None)),
}


@pytest.fixture(scope="module")
def told():
    return told_model()


@pytest.fixture(scope="module")
def recommender(told, tmp_path_factory):
    base = tmp_path_factory.mktemp("told") / "base"
    return load_recommender(quick_export(base, model=told).path)


def test_lists_become_tensors_with_what_is_missing():
    told = told_of(HISTORIES, FEATURES, {"price": EVENTS["price"]})
    found = told.tensors(SPECS, width=5, before=1)
    assert set(found) == {"country", "taste", "kind", "price"}
    assert found["country"].values == [b"it", b"fr", b""]
    assert found["taste"].shape == (3, 2)
    assert found["taste"].values == [0, 0, 0, 3, 1, 1]
    assert found["kind"].shape == (3, 5)
    assert found["kind"].values == [b""] * 15
    prices = np.reshape(found["price"].values, [3, 5])
    nan = math.nan
    wanted = [[nan, 1, 5, nan, nan], [nan] * 5, [nan, 2, nan, nan, nan]]
    np.testing.assert_array_equal(prices, wanted)


def test_examples_leave_out_what_is_not_known():
    told = told_of(HISTORIES, FEATURES, EVENTS)
    texts, numbers = told.of(0)
    assert texts == {"country": [b"it"], "kind": [b"buy", b"", b"look"]}
    assert list(numbers) == ["price"]
    np.testing.assert_array_equal(numbers["price"], [1, 5, math.nan])
    assert told.of(1) == ({"country": [b"fr"]}, {"taste": [0, 3]})
    assert told_of(HISTORIES, None, None) is None


@pytest.mark.parametrize(
    ("features", "events", "message"),
    [
        ({"country": "it"}, None, "`features` must hold lists by name.*'it'"),
        ({"country": ["it"]}, None, "a value of 'country' for each history.*1 for 3"),
        ({"age": [1, 2, 3]}, None, "must be among country, taste, .*'age'"),
        ({"price": [1, 2, 3]}, None, "must be among country, taste, .*'price'"),
        ({"country": [1, 2, 3]}, None, "'country' must be told as text.*1.0"),
        ({"taste": ["it"] * 3}, None, "lists of 2 numbers for 'taste'.*b'it'"),
        ({"taste": [[1]] * 3}, None, r"lists of 2 numbers for 'taste'.*\[1.0\]"),
        ({"country": [object()] * 3}, None, "'country' must be told as text or numb"),
        (None, {"kind": [["buy"], [], ["buy"]]}, r"each item.*\[1, 0, 1\] values for"),
        (None, {"country": HISTORIES}, "must be among kind, price, .*'country'"),
        (None, {"price": [["a"] * 3, [], ["a"]]}, "'price' must be told as numbers"),
    ],
)
def test_what_is_refused(features, events, message):
    with pytest.raises(InputError, match=message):
        told_of(HISTORIES, features, events).tensors(SPECS, width=4)


def test_the_recommender_asks_with_the_features(recommender):
    answers = recommender.recommend(HISTORIES, features=FEATURES, event_features=EVENTS)
    signature = tf.saved_model.load(str(recommender.path)).signatures["serving_default"]
    nan = math.nan
    wanted = signature(
        history=tf.constant([HISTORIES[0], [""] * 3, ["item 7", "", ""]]),
        country=tf.constant(["it", "fr", ""]),
        taste=tf.constant([[0.0, 0.0], [0.0, 3.0], [1.0, 1.0]]),
        kind=tf.constant([["buy", "", "look"], [""] * 3, ["buy", "", ""]]),
        price=tf.constant([[1, 5, nan], [nan] * 3, [2, nan, nan]], tf.float32),
    )
    for answer, ids in zip(answers, wanted["ids"].numpy(), strict=True):
        assert [item.id.encode() for item in answer] == ids.tolist()
        assert len(answer) == K
    # What is not told is missing, all of it too.
    bare = recommender.recommend(HISTORIES)
    nothing = dict.fromkeys(FEATURES, [None] * 3)
    assert bare == recommender.recommend(HISTORIES, features=nothing)
    assert bare[1] != answers[1]
    assert recommender.knows_users
    reasons = recommender.explain(
        HISTORIES[:1], ["item 20"], features={"country": ["it"]}
    )
    assert [one.id for one in reasons[0]] == HISTORIES[0]
    with pytest.raises(InputError, match="must be among country, taste"):
        recommender.recommend(HISTORIES, features={"age": [1, 2, 3]})


def test_a_model_of_histories_takes_no_features(export):
    recommender = load_recommender(export.path)
    assert not recommender.knows_users
    with pytest.raises(InputError, match="must be among none, which the model takes"):
        recommender.recommend([["item 3"]], features={"country": ["it"]})


def test_the_command_line_asks_with_the_features(recommender, cli_status):
    import json

    words = ("recommend", recommender.path, "--json", "--history", "item 3,item 14")
    told = ("--feature", "country=it", "--feature", "taste=1,0.5")
    told += ("--event-feature", "kind=buy,", "--event-feature", "price=,2")
    status, out, err = cli_status(*words, *told)
    assert status == 0, err
    (answer,) = recommender.recommend(
        [["item 3", "item 14"]],
        features={"country": ["it"], "taste": [[1, 0.5]]},
        event_features={"kind": [["buy", None]], "price": [[None, 2]]},
    )
    found = json.loads(out)["recommendations"]
    assert [one["id"] for one in found] == [one.id for one in answer][:10]
    # A user without a history, known by a country alone.
    words = ("recommend", recommender.path, "--json", "--history", "")
    status, out, err = cli_status(*words, "--feature", "country=fr")
    assert status == 0, err
    assert json.loads(out)["most_popular"] is False
    (answer,) = recommender.recommend([[]], features={"country": ["fr"]})
    assert json.loads(out)["recommendations"][0]["id"] == answer[0].id

    words = ("explain", recommender.path, "--history", "item 3,item 14", "--json")
    status, out, err = cli_status(*words, *told)
    assert status == 0, err
    assert len(json.loads(out)["contributions"]) == 2
    for option, message in (
        ("--feature=age=3", "of a name that the model takes: country, taste."),
        ("--feature=country", "--feature must be NAME=VALUE"),
        ("--feature=kind=buy", "of a name that the model takes: country, taste."),
        ("--event-feature=price=a,b", "--event-feature must hold a number there"),
        ("--event-feature=kind=buy", "a value of 'kind' for each item of each history"),
    ):
        status, out, err = cli_status(*words, option)
        assert status == 2
        assert message in err


def users_of_a_file(**changes):
    """The histories of `told`, and three more, as a file of users has them."""
    columns = {
        "user_id": list("abcdef"),
        "history": [*HISTORIES, ["no item"], ["item 5"], ["item 2", "item 4"]],
        "country": [*FEATURES["country"], "fr", "it", "nowhere"],
        "taste": [None, [0, 3], [1.0, 1.0], None, [2, None], []],
        "kind": [*EVENTS["kind"], ["buy"], [], None],
        "price": [*EVENTS["price"], [2.0], [float("nan")], [1, None]],
    }
    return pl.DataFrame({**columns, **changes}, strict=False)


def test_files_of_users_tell_their_features(recommender, tmp_path):
    users = users_of_a_file()
    for part in (0, 1):  # in batches of other sizes, in several files
        users[part * 4 : part * 4 + 4].write_parquet(tmp_path / f"{part}.parquet")
    done = recommend_all(recommender.path, tmp_path, tmp_path / "answers", batch_size=3)
    assert done.users == 6
    answers = pl.read_parquet(tmp_path / "answers" / "answers-*.parquet")
    told = users.to_dict(as_series=False)
    taste = [None, [0, 3], [1, 1], None, [2, 0], None]
    empty = {
        name: [
            each or [None] * len(items)
            for each, items in zip(told[name], told["history"], strict=True)
        ]
        for name in ("kind", "price")
    }
    wanted = recommender.recommend(
        told["history"],
        features={"country": told["country"], "taste": taste},
        event_features=empty,
    )
    for row, answer in zip(answers.sort("user_id").to_dicts(), wanted, strict=True):
        assert row["items"] == [item.id for item in answer]
        scores = [item.score for item in answer]
        np.testing.assert_allclose(row["scores"], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taste": None}, r"and features: country, taste, kind, price\. .*without ta"),
        ({"country": [["it"]] * 6}, r"features: .* with country of List\(String\)"),
        ({"kind": ["buy"] * 6}, "features: .* with kind of String"),
        ({"price": [["much"]] * 6}, r"must hold what .*one does not \(conversion"),
        (
            {"price": [[1.0]] * 6},
            "price must have a value for each item of .*user '[a-f]'",
        ),
        ({"taste": [[1.0]] * 6}, "taste must have a value for 2 numbers.*user '[a-f]'"),
    ],
)
def test_files_of_users_that_are_refused(
    recommender, cli_status, tmp_path, changes, message
):
    users = users_of_a_file(**changes)
    if None in changes.values():
        users = users.drop(*changes)
    users.write_parquet(tmp_path / "users.parquet")
    words = ("--users", tmp_path / "users.parquet", "--output", tmp_path / "answers")
    status, _, err = cli_status("recommend-all", recommender.path, *words)
    assert status == 2
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "answers").glob("answers-*"))


def test_what_prepare_wrote_has_no_features(recommender, tmp_path):
    log = generate_events(20, 10, 5.0, seed=1)
    prepare_events(events_from_frame(log), tmp_path / "log", row_length=5, num_shards=2)
    with pytest.raises(InputError, match=r"country, taste, kind, price\. Received: "):
        recommend_all(recommender.path, tmp_path / "log", tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


def test_a_model_of_events_is_explained_by_its_export(told):
    explainer = Explainer(told)
    history, item = tf.constant([[3, 1]]), tf.constant([2])
    for ask in (
        lambda: explainer.contributions(history, item),
        lambda: explainer.score(history, item),
        lambda: explainer.attention(history),
    ):
        with pytest.raises(ValueError, match=r"no features of events .*Export it, and"):
            ask()


def test_shards_of_items_and_a_query_model_with_features(told, monkeypatch, tmp_path):
    monkeypatch.setattr(verification, "ask", ask_in_this_process)
    query, *shards = export_shards(
        told, tmp_path / "base", vocabulary=make_vocabulary(), num_shards=2, k=K
    )
    assert query.verified and all(shard.verified for shard in shards)
    inputs = query.manifest["signatures"]["embed_query"]["inputs"]
    assert {"history", "country", "taste", "kind", "price"} == set(inputs)
    assert set(IDS) == {
        item
        for shard in shards
        for item in (shard.path / "assets" / "vocabulary.txt").read_text().split("\n")
        if item
    }
