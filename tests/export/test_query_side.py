"""Exports that are told of users, requests and events beside a history."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.export.conftest import ask_in_this_process
from tests.export.tiny import COUNTS, IDS, K, make_model, quick_export
from tfrs_selfattn import InputError
from tfrs_selfattn.client.tensors import example
from tfrs_selfattn.data.side import PARTS
from tfrs_selfattn.export import (
    NewItems,
    prediction_log,
    refresh_recommender,
    verification,
)
from tfrs_selfattn.export.manifest import describe_signatures
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.features import (
    Category,
    FeatureSet,
    MultiCategory,
    Number,
    Text,
    Vector,
    VectorizedText,
)
from tfrs_selfattn.features.events import table_of_events

INF, NAN = np.inf, np.nan


def strings(*values):
    return np.array([value.encode() for value in values], object)


QUERY_RAW = {
    # Every value twice, and a rare one for the token of rare and unknown ones.
    "country": strings("it", "fr", "it", "fr", "", "se"),
    "age": np.array([20, 30, 40, NAN, 25, 35], np.float32),
    "taste": np.array([[1, 0], [0, 1], [1, 1], [0, 0], [2, 1], [0, 3]], np.float32),
}
EVENT_RAW = {
    "kind": strings("buy", "look", "buy", "look", "", "rent"),
    "price": np.array([1, 2, 3, NAN, 5, 8], np.float32),
    "tags": strings("a|b", "b", "a", "", "b|c", "c"),
    "words": strings("red tea", "tea", "", "green", "green tea", "red"),
    "note": strings("Red tea!", "", "tea", "for Ann", "tea, red", "red"),
}
QUERY = FeatureSet((Category("country"), Number("age"), Vector("taste")))
EVENTS = FeatureSet(
    (
        Category("kind"),
        Number("price", buckets=3),
        MultiCategory("tags"),
        Text("words", buckets=16),
        VectorizedText("note", ("tea", "red", "red tea"), ngrams=(1, 2)),
    )
)
NOTHING = {"country": "", "age": NAN, "taste": [0.0, 0.0]}


@pytest.fixture(scope="module")
def model():
    return make_model(
        time_aware=True,
        query_features=QUERY.fit(QUERY_RAW, "here"),
        event_features=EVENTS.fit(EVENT_RAW, "here"),
        seed=3,
    )


@pytest.fixture(scope="module")
def export(model, tmp_path_factory):
    base = tmp_path_factory.mktemp("told") / "base"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "ask", ask_in_this_process)
        return quick_export(base, model=model, verify=True)


@pytest.fixture(scope="module")
def signatures(export):
    return tf.saved_model.load(str(export.path)).signatures


def asked(history, user=NOTHING, events=None):
    """Inputs of one request; `events` are columns as long as the history."""
    width = len(history)
    events = {
        "kind": [""] * width,
        "price": [NAN] * width,
        "tags": [""] * width,
        "words": [""] * width,
        "note": [""] * width,
        **(events or {}),
    }
    times = list(range(1000, 1000 + 60 * width, 60))
    return {
        "history": tf.constant([history], tf.string),
        "timestamps": tf.constant([times], tf.int64, [1, width]),
        "request_time": tf.constant([5000], tf.int64),
        "country": tf.constant([user["country"]], tf.string),
        "age": tf.constant([user["age"]], tf.float32),
        "taste": tf.constant([user["taste"]], tf.float32),
        **{
            name: tf.constant([values], EVENTS[name].dtype, [1, len(values)])
            for name, values in events.items()
        },
    }


def query(signatures, *arguments):
    inputs = asked(*arguments)
    return signatures["embed_query"](**inputs)["embedding"].numpy()[0]


def by_training(model, history, users, events):
    """Queries as training computes them: raw values encoded ahead, in tables.

    Raw values are columns, `[B]` of users and `[B, T]` of events.
    """
    side = QuerySide.of(model.query_tower)
    size, width = events["kind"].shape
    told = table_of_events(side.query, users).at(np.arange(size))
    raw = {name: values.reshape(-1) for name, values in events.items()}
    known = table_of_events(side.events, raw).at(np.arange(size * width))
    row = [IDS.index(item) + 1 for item in history]
    times = [range(1000, 1000 + 60 * width, 60)] * size
    return model.query_tower(
        tf.constant([row] * size),
        timestamps=tf.constant(times, tf.int64),
        request_time=tf.fill([size], tf.constant(5000, tf.int64)),
        query_features=tuple(tf.constant(told[part]) for part in PARTS),
        event_features=tuple(
            tf.constant(known[part].reshape(size, width, -1)) for part in PARTS
        ),
        training=False,
    ).numpy()


def test_raw_values_mean_what_they_meant_in_training(signatures, model):
    draw = np.random.default_rng(0)
    history, size = [*IDS[3:7], IDS[-4]], 50

    def some(*values, shape=size):
        chosen = draw.integers(0, len(values), shape)
        kind = object if isinstance(values[0], bytes) else np.float32
        return np.array(values, kind)[chosen]

    each = [size, len(history)]
    users = {
        "country": some(b"it", b" fr ", b"se", b"nowhere", b"", "naïve ☕".encode()),
        "age": some(20, 33, -5, 1e9, NAN),
        "taste": some([1, 0], [0.5, -2], [0, 0]),
    }
    events = {
        "kind": some(b"buy", b"rent", b"never", b"", shape=each),
        "price": some(1, 2.5, 8, -1, 99, NAN, shape=each),
        "tags": some(b"a|b", b"b|new", b"|", b"", shape=each),
        "words": some(b"Red TEA", b"blue", b"tea, tea", b"", shape=each),
        "note": some(b"Red; TEA", b"a blue red", b"tea tea", b"", shape=each),
    }
    one = asked(history)
    inputs = {name: tf.repeat(value, size, axis=0) for name, value in one.items()}
    inputs |= {
        name: tf.constant(values.tolist(), inputs[name].dtype)
        for name, values in {**users, **events}.items()
    }
    found = signatures["embed_query"](**inputs)["embedding"].numpy()
    wanted = by_training(model, history, users, events)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.std(wanted, axis=0).min() > 0.05


def test_an_empty_history_is_answered_by_what_is_known_of_the_user(signatures, model):
    italian = {**NOTHING, "country": "it", "age": 20.0}
    french = {**NOTHING, "country": "fr", "taste": [0.0, 3.0]}
    answers = []
    for user in (italian, french):
        got = signatures["serving_default"](**asked([""], user))
        projected = model.query_tower.query_projection(encoded(model, user))
        scores = model.candidate_tower.catalogue().numpy() @ projected.numpy()[0]
        best = np.argsort(-scores, kind="stable")[:K]
        assert got["ids"].numpy()[0].tolist() == [IDS[row].encode() for row in best]
        np.testing.assert_allclose(got["scores"][0], scores[best], rtol=1e-4, atol=1e-5)
        answers.append(got["ids"].numpy()[0].tolist())
    assert answers[0] != answers[1]
    # Ids that are not known make no history.
    strange = signatures["serving_default"](**asked(["no such item"], italian))
    assert strange["ids"].numpy()[0].tolist() == answers[0]


def encoded(model, user):
    from tfrs_selfattn.features import FeatureEncoder

    features = QuerySide.of(model.query_tower).query
    raw = {
        name: tf.constant([user[name]], features[name].dtype) for name in features.names
    }
    return FeatureEncoder(features)(raw)


def test_of_whom_nothing_is_known_gets_the_most_popular(tmp_path_factory):
    # Of features that training always had, a missing one adds nothing.
    whole = {"country": strings("it", "it", "fr", "fr")}
    model = make_model(query_features=FeatureSet((Category("country"),)).fit(whole, ""))
    base = tmp_path_factory.mktemp("whole") / "base"
    export = quick_export(base, model=model)
    ask = tf.saved_model.load(str(export.path)).signatures["serving_default"]
    history = tf.constant([[""], [""], ["item 3"]])
    answer = ask(history=history, country=tf.constant(["", "it", ""]))["ids"].numpy()
    popular = np.argsort(-COUNTS, kind="stable")[:K]
    assert answer[0].tolist() == [IDS[row].encode() for row in popular]
    assert answer[1].tolist() != answer[0].tolist()
    unknown = (tf.zeros([1, 0], tf.int32), *tf.zeros([2, 1, 0]))
    score = model.score(tf.constant([[4]]), query_features=unknown)
    scores = score.numpy()[0]
    scores[3] = -INF
    best = np.argsort(-scores, kind="stable")[:K]
    assert answer[2].tolist() == [IDS[row].encode() for row in best]


HISTORY = list(IDS[3:6])


@pytest.mark.parametrize(
    ("name", "strange", "same", "other"),
    [
        ("country", "never seen", "se", ""),
        ("age", INF, 40.0, NAN),
        ("age", -INF, 20.0, NAN),
        ("age", 1e6, 40.0, 39.0),
    ],
)
def test_values_that_training_never_showed(signatures, name, strange, same, other):
    """An unknown category is a rare one, a number out of range the nearest in it."""
    found = [
        query(signatures, HISTORY, {**NOTHING, name: value})
        for value in (strange, same, other)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "strange", "same", "other"),
    [
        ("kind", "never seen", "rent", ""),
        ("price", INF, 8.0, NAN),
        ("price", -INF, 1.0, NAN),
    ],
)
def test_events_that_training_never_showed(signatures, name, strange, same, other):
    found = [
        query(signatures, HISTORY, NOTHING, {name: [value] * 3})
        for value in (strange, same, other)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_no_number_makes_an_answer_that_is_none(signatures):
    user = {"country": "it", "age": INF, "taste": [3e38, -3e38]}
    answer = signatures["serving_default"](**asked(HISTORY, user))
    assert np.isfinite(answer["scores"]).all()


def test_padding_of_events_follows_the_history(signatures):
    """What stands beside padding and unknown ids says nothing."""
    told = {"kind": ["buy", "look", "rent"], "price": [1.0, 8.0, 3.0]}
    wanted = query(signatures, HISTORY, NOTHING, told)
    one, two, three = HISTORY
    odd = [
        ([one, two, three, "", ""], [0, 1, 2, 0, 0]),
        (["", "", one, two, three], [1, 1, 0, 1, 2]),
        ([one, "no such item", two, "", three], [0, 2, 1, 2, 2]),
    ]
    for history, places in odd:
        events = {name: [values[p] for p in places] for name, values in told.items()}
        # Times of their own: those of `asked` go by the place.
        inputs = asked(history, NOTHING, events)
        at = [HISTORY.index(item) if item in HISTORY else 0 for item in history]
        times = tf.constant([[1000 + 60 * place for place in at]], tf.int64)
        found = signatures["embed_query"](**{**inputs, "timestamps": times})
        np.testing.assert_allclose(found["embedding"][0], wanted, rtol=1e-4, atol=1e-5)
    moved = {"kind": ["look", "buy", "rent"], "price": [1.0, 8.0, 3.0]}
    assert np.abs(query(signatures, HISTORY, NOTHING, moved) - wanted).max() > 1e-3


@pytest.mark.parametrize("width", [0, 2, 5])
def test_events_of_another_width_are_cut_or_missing(signatures, width):
    kinds = ["buy", "look", "rent", "buy", "buy"][:width]
    full = (kinds + [""] * 3)[:3]
    inputs = asked(HISTORY, NOTHING, {"kind": full})
    wanted = signatures["embed_query"](**inputs)["embedding"]
    inputs["kind"] = tf.constant([kinds], tf.string, [1, width])
    found = signatures["embed_query"](**inputs)["embedding"]
    np.testing.assert_array_equal(found, wanted)


def test_a_row_does_not_depend_on_its_neighbours(signatures):
    users = [NOTHING, {"country": "fr", "age": 31.0, "taste": [1.0, 1.0]}]
    requests = [
        asked(HISTORY, user, {"kind": [kind] * 3})
        for user, kind in zip(users, ("buy", ""), strict=True)
    ]
    both = {name: tf.concat([r[name] for r in requests], 0) for name in requests[0]}
    together = signatures["embed_query"](**both)["embedding"].numpy()
    for row, request in enumerate(requests):
        alone = signatures["embed_query"](**request)["embedding"].numpy()[0]
        np.testing.assert_allclose(together[row], alone, rtol=1e-5, atol=1e-6)


def test_features_travel_in_examples_and_have_defaults_there(signatures):
    user = {"country": "it", "age": 33.0, "taste": [0.5, -1.0]}
    events = {
        "kind": ["buy", "", "look"],
        "price": [1.0, 8.0, NAN],
        "tags": ["a", "b|c", ""],
        "words": ["", "tea", "red"],
        "note": ["red tea", "", "tea!"],
    }
    ids = {"history": [item.encode() for item in HISTORY]}
    times = {"timestamps": [1000, 1060, 1120], "request_time": [5000]}
    words = {
        name: [value.encode() for value in events[name]]
        for name in ("kind", "tags", "words", "note")
    }
    numbers = {"age": [33.0], "taste": user["taste"], "price": events["price"]}
    whole = example({**ids, **words, "country": [b"it"]}, times, numbers)
    bare = example(ids, times)
    some = example(
        {**ids, "kind": [b"buy"]}, times, {"age": [33.0, 7.0], "taste": [1.0]}
    )
    odd = example({**ids, "age": [b"young"]}, times)  # of another type
    answer = signatures["tf_example"](examples=tf.constant([whole, odd, bare, some]))
    assert answer["ids"].numpy()[1].tolist() == [b""] * K
    cut = {**NOTHING, "age": 33.0, "taste": [1.0, 0.0]}
    for row, direct in (
        (0, asked(HISTORY, user, events)),
        (2, asked(HISTORY)),
        (3, asked(HISTORY, cut, {"kind": ["buy", "", ""]})),
    ):
        wanted = signatures["serving_default"](**direct)
        assert answer["ids"].numpy()[row].tolist() == wanted["ids"].numpy()[0].tolist()
        np.testing.assert_allclose(
            answer["scores"][row], wanted["scores"][0], rtol=1e-5
        )


def test_the_signatures_are_the_ones_on_file(signatures, assert_golden):
    text = json.dumps(describe_signatures(signatures), indent=2, sort_keys=True)
    assert_golden("signatures_users_and_events.json", text + "\n")


def test_the_manifest_and_the_signatures_say_what_is_taken(export, model):
    side = QuerySide.from_manifest(export.manifest)
    assert side == QuerySide.of(model.query_tower)
    assert side.query.names == QUERY.names
    for name in ("serving_default", "recommend_excluding", "explain", "embed_query"):
        inputs = export.manifest["signatures"][name]["inputs"]
        assert inputs["country"] == {"dtype": "string", "shape": [None]}
        assert inputs["taste"] == {"dtype": "float32", "shape": [None, 2]}
        assert inputs["price"] == {"dtype": "float32", "shape": [None, None]}
    assert set(export.manifest["signatures"]["embed_item"]["inputs"]) == {"item"}


def test_it_is_warmed_up_with_features(export, signatures):
    path = export.path / "assets.extra" / "tf_serving_warmup_requests"
    names = set()
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        name, inputs = prediction_log.decode(record)
        if name not in ("tf_example", "embed_item"):
            assert {*QUERY.names, *EVENTS.names} <= set(inputs)
        signatures[name](**inputs)
        names.add(name)
    assert names == set(signatures)


def test_contributions_see_the_features(signatures):
    inputs = asked(HISTORY, NOTHING, {"kind": ["buy", "look", "rent"]})
    inputs["item"] = tf.constant([IDS[20]])
    found = signatures["explain"](**inputs)["contribution"].numpy()[0]
    candidate = signatures["embed_item"](item=tf.constant([IDS[20]]))["embedding"]
    candidate = candidate.numpy()[0]
    del inputs["item"]
    whole = signatures["embed_query"](**inputs)["embedding"].numpy()[0] @ candidate
    gone = {
        name: value[:, 1:]
        if name in ("history", "timestamps", *EVENTS.names)
        else value
        for name, value in inputs.items()
    }
    without = signatures["embed_query"](**gone)["embedding"].numpy()[0] @ candidate
    np.testing.assert_allclose(found[0], whole - without, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("in_this_process")
def test_a_refresh_keeps_the_features(export, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(export.path.parent, base)
    done = refresh_recommender(base, NewItems(list(IDS[:-1])), verify=True)
    assert done.export.verified
    before, after = (
        tf.saved_model.load(str(base / version)).signatures for version in ("1", "2")
    )
    inputs = asked(HISTORY, {**NOTHING, "country": "fr"}, {"kind": ["rent"] * 3})
    np.testing.assert_array_equal(
        before["embed_query"](**inputs)["embedding"],
        after["embed_query"](**inputs)["embedding"],
    )
    assert QuerySide.from_manifest(done.export.manifest) == QuerySide.from_manifest(
        export.manifest
    )


def test_names_are_those_of_one_input():
    with pytest.raises(InputError, match=r"of their own\. Received: 'kind' more"):
        QuerySide(
            FeatureSet((Category("kind"),)).fit({"kind": strings("a")}, ""),
            EVENTS.fit(EVENT_RAW, ""),
        )
