"""Exports of other kinds: time-aware, in parts, with an index that is not exact."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tests.export.tiny import (
    IDS,
    LOWEST,
    WIDTH,
    K,
    make_model,
    make_vocabulary,
    quick_export,
)
from tfrs_selfattn import InputError
from tfrs_selfattn.export import load_recommender, prediction_log
from tfrs_selfattn.export.manifest import describe_signatures
from tfrs_selfattn.export.tf_example import decode_examples

NOW = 1_700_000_000
MANY = 400


@pytest.fixture(scope="module")
def timed_model():
    return make_model(preset="hstu", seed=1)


@pytest.fixture(scope="module")
def timed(timed_model, tmp_path_factory):
    return quick_export(
        tmp_path_factory.mktemp("timed") / "base", model=timed_model, verify=True
    )


@pytest.fixture(scope="module")
def parts(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return {
        name: quick_export(folder / name, model=model, parts=name)
        for name in ("query", "index")
    }


def load(export):
    return tf.saved_model.load(str(export.path)).signatures


@pytest.fixture(scope="module")
def timed_parts(timed_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed parts")
    return {
        f"time_aware_{name}": quick_export(folder / name, model=timed_model, parts=name)
        for name in ("query", "index")
    }


def test_the_signatures_are_the_ones_on_file(timed, parts, timed_parts, assert_golden):
    kinds = (("time_aware", timed), *parts.items(), *timed_parts.items())
    for name, export in kinds:
        text = json.dumps(describe_signatures(load(export)), indent=2, sort_keys=True)
        assert_golden(f"signatures_{name}.json", text + "\n")


def test_every_kind_is_warmed_up(timed, parts):
    for export in (timed, *parts.values()):
        path = export.path / "assets.extra" / "tf_serving_warmup_requests"
        signatures = load(export)
        asked = set()
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            signature, inputs = prediction_log.decode(record)
            signatures[signature](**inputs)
            asked.add(signature)
        assert asked == set(export.manifest["signatures"])


def example(history, **numbers):
    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    items = [item.encode() for item in history]
    features = {"history": tf.train.Feature(bytes_list=tf.train.BytesList(value=items))}
    features |= {name: ints(values) for name, values in numbers.items()}
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


def timed_inputs(history, timestamps, request_time):
    return {
        "history": tf.constant(history, tf.string),
        "timestamps": tf.constant(timestamps, tf.int64),
        "request_time": tf.constant(request_time, tf.int64),
    }


def test_times_matter_and_travel_in_examples_alike(timed, timed_model):
    signatures = load(timed)
    history, times = ["item 3", "nothing", "item 14"], [NOW - 90, NOW - 60, NOW - 30]
    rows = timed_inputs([history] * 2, [times] * 2, [NOW, NOW + 10**7])
    query = signatures["embed_query"](**rows)["embedding"].numpy()
    assert np.abs(query[0] - query[1]).max() > 1e-3
    wanted = timed_model.query_tower(
        tf.constant([[4, 15]]),
        timestamps=tf.constant([[times[0], times[2]]], tf.int64),
        request_time=tf.constant([NOW], tf.int64),
    ).numpy()[0]
    np.testing.assert_allclose(query[0], wanted, rtol=1e-4, atol=1e-5)
    direct = signatures["serving_default"](**rows)
    examples = [
        example(history, timestamps=times, request_time=[now])
        for now in (NOW, NOW + 10**7)
    ]
    packed = signatures["tf_example"](examples=tf.constant(examples))
    for name in ("ids", "scores"):
        np.testing.assert_array_equal(direct[name], packed[name])


def test_times_that_make_no_sense_are_answered(timed):
    signatures = load(timed)
    history = [["item 3", "item 14", "item 9"]]
    extremes = [-(2**63), 2**63 - 1, -1, 0, NOW, 2**53 + 1]
    for first in extremes:
        for now in extremes:
            rows = timed_inputs(history, [[first, NOW, -first - 1]], [now])
            answer = signatures["serving_default"](**rows)
            scores = answer["scores"].numpy()
            assert np.isfinite(scores).all() and (scores > LOWEST).all()
    # Negative is 0, and what lies beyond the year 9999 is its end.
    for odd, same in ((-5, 0), (2**62, 253_402_300_799)):
        answers = [
            signatures["embed_query"](**timed_inputs(history, [[moment] * 3], [NOW]))
            for moment in (odd, same)
        ]
        np.testing.assert_array_equal(*(a["embedding"] for a in answers))


@pytest.mark.parametrize("width", [0, 2, 5])
def test_times_of_another_width_are_cut_or_zero(timed, width):
    signatures = load(timed)
    history = [["item 3", "item 14", "item 9"]]
    times = [NOW - 50, NOW - 40, NOW - 30, 7, 8][:width]
    full = (times + [0] * 3)[:3]
    odd = signatures["embed_query"](**timed_inputs(history, [times], [NOW]))
    wanted = signatures["embed_query"](**timed_inputs(history, [full], [NOW]))
    np.testing.assert_array_equal(odd["embedding"], wanted["embedding"])


def test_missing_times_of_examples(timed):
    examples = [
        example(["a", "b"], timestamps=[5, 9]),
        example(["a", "b"], timestamps=[5], request_time=[20, 21]),
        example(["a"]),
        example([], request_time=[-3]),
        b"\xff",
        example(["a"], exclude=[3]),
    ]
    decoded = decode_examples(tf.constant(examples), with_times=True)
    assert decoded.readable.numpy().tolist() == [True] * 4 + [False] * 2
    assert decoded.timestamps.numpy().tolist()[:4] == [[5, 9], [5, 0], [0, 0], [0, 0]]
    assert decoded.request_time.numpy().tolist()[:4] == [9, 20, 0, -3]


def test_a_time_aware_export_is_asked_with_times(timed):
    recommender = load_recommender(timed.path)
    with pytest.raises(InputError, match="`timestamps` must be given to a time-aware"):
        recommender.recommend([["item 3"]])
    times = {"timestamps": [[NOW - 60], []], "request_times": [NOW, NOW]}
    first, second = recommender.recommend([["item 3"], []], **times)
    assert len(first) == len(second) == K


def test_tower_and_index_apart_answer_as_one(parts, signatures, strings):
    history = strings([["item 3", "item 14"], [], ["nothing"], ["item 9"] * 12])
    queries = load(parts["query"])["embed_query"](history=history)["embedding"]
    index = load(parts["index"])
    found = index["search"](embedding=queries, exclude=history)
    wanted = signatures["serving_default"](history=history)
    np.testing.assert_array_equal(found["ids"], wanted["ids"])
    np.testing.assert_allclose(found["scores"], wanted["scores"], rtol=1e-5, atol=1e-5)
    item = tf.constant(["item 3", "nothing"])
    np.testing.assert_array_equal(
        index["embed_item"](item=item)["embedding"],
        signatures["embed_item"](item=item)["embedding"],
    )


def test_all_vectors_lie_in_parquet(parts, model):
    frame = pl.read_parquet(parts["index"].path / "assets.extra/embeddings.parquet")
    assert frame.schema == {"item_id": pl.String, "embedding": pl.List(pl.Float32)}
    assert frame["item_id"].to_list() == list(IDS)
    catalogue = model.candidate_tower.catalogue().numpy()
    np.testing.assert_array_equal(frame["embedding"].to_list(), catalogue)
    assert not (parts["query"].path / "assets.extra/embeddings.parquet").exists()


def test_a_query_tower_alone_holds_no_candidates(parts):
    path = str(parts["query"].path / "variables" / "variables")
    names = {name.split("/")[0] for name, _ in tf.train.list_variables(path)}
    assert {n for n in names if not n.startswith("_")} == {"names", "query_tower"}
    with pytest.raises(InputError, match="parts='query'"):
        load_recommender(parts["query"].path)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("name", ["query", "index"])
def test_parts_are_verified_too(model, tmp_path, name, monkeypatch):
    assert quick_export(tmp_path / "1", model=model, parts=name, verify=True).verified
    from tfrs_selfattn.export import ExportError, saved_model

    class Liar(saved_model.Live):
        def encode(self, samples):
            self.candidates = self.candidates[::-1]
            queries, scores = super().encode(samples)
            return queries + 1, scores

    monkeypatch.setattr(saved_model, "Live", Liar)
    with pytest.raises(ExportError, match=r"by '(embed_query|embed_item|search)'"):
        quick_export(tmp_path / "2", model=model, parts=name, verify=True)
    assert not (tmp_path / "2").exists()


def export_many(folder, **options):
    """As many items as leaves need; the same model every time."""
    ids = [f"{j}" for j in range(MANY)]
    return quick_export(
        folder,
        model=make_model(MANY),
        vocabulary=make_vocabulary(ids, np.arange(MANY)),
        **options,
    )


@pytest.mark.usefixtures("in_this_process")
def test_a_partitioned_index_overlooks_but_never_errs(tmp_path):
    from tfrs_selfattn.index import PartitionedTopK

    index = PartitionedTopK(num_leaves=20, num_leaves_to_search=3)
    export = export_many(tmp_path, index=index, verify=True)
    model, ids = make_model(MANY), [f"{j}" for j in range(MANY)]
    index = export.manifest["index"]
    assert index["kind"] == "partitioned"
    assert index["settings"]["num_leaves_to_search"] == 3
    assert 0.1 < index["recall"] < 1.0
    signatures = load(export)
    answer = signatures["recommend_excluding"](
        history=tf.constant([["3", "5"]]), exclude=tf.constant([ids[:390]])
    )
    assert set(answer["ids"].numpy()[0].tolist()) <= {i.encode() for i in ids[390:]}
    among = signatures["recommend_among"](
        history=tf.constant([["3", "5"]]), candidates=tf.constant([ids[:30]])
    )
    scores = model.score(tf.constant([[4, 6]])).numpy()[0][:30]
    scores[[3, 5]] = -np.inf
    best = np.argsort(-scores)[:K]
    assert among["ids"].numpy()[0].tolist() == [ids[j].encode() for j in best]


def test_an_xla_export_says_so_and_is_warmed_up_for_each_size(tmp_path):
    from tfrs_selfattn.index import PartitionedTopK

    index = PartitionedTopK(
        num_leaves=20, num_leaves_to_search=3, quantization="int8", xla=True
    )
    export = export_many(tmp_path, index=index)
    text = (export.path / "batching_params.pbtxt").read_text()
    sizes = [int(line.split()[1]) for line in text.splitlines() if "allowed" in line]
    assert sizes == [1, 4, 16, 64, 256]
    records = tf.data.TFRecordDataset(
        str(export.path / "assets.extra" / "tf_serving_warmup_requests")
    )
    warmed = {}
    for record in records.as_numpy_iterator():
        name, inputs = prediction_log.decode(record)
        warmed.setdefault(name, set()).add(next(iter(inputs.values())).shape[0])
    # The search pads to powers of 2, so a server that rounds nothing meets all of them.
    searches = {"serving_default", "recommend_excluding", "tf_example"}
    powers = {2**n for n in range(9)}
    assert warmed == {
        name: powers if name in searches else set(sizes)
        for name in export.manifest["signatures"]
    }
    assert b"_XlaMustCompile" in (export.path / "saved_model.pb").read_bytes()
    assert export.manifest["index"]["settings"]["xla"]


def test_indexes_that_cannot_be_exported(model, tmp_path):
    from tfrs_selfattn.index import PartitionedTopK

    for options, message in (
        ({"index": "scann"}, "`index` must be one of"),
        ({"index": 3}, "or a PartitionedTopK"),
        ({"xla": True}, "`xla` must be left out with an exact index"),
        ({"parts": "some"}, "`parts` must be one of"),
        ({"index": PartitionedTopK(distance_measure="cosine")}, "rank by dot product"),
    ):
        with pytest.raises(ValueError, match=message):
            quick_export(tmp_path / "base", model=model, **options)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(("dtype", "copies"), [("float32", 1), ("bfloat16", 2)])
def test_originals_that_an_index_keeps_are_not_held_twice(dtype, copies, tmp_path):
    from tfrs_selfattn.index import PartitionedTopK

    settings = {"quantization": "int8", "num_reordering_candidates": 20}
    index = PartitionedTopK(num_leaves=20, reordering_dtype=dtype, **settings)
    # Held here: signatures alone do not keep their variables alive.
    loaded = tf.saved_model.load(str(export_many(tmp_path, index=index).path))
    signatures = loaded.signatures
    variables = {v.ref() for each in signatures.values() for v in each.variables}
    shapes = [tuple(each.deref().shape) for each in variables]
    assert shapes.count((MANY, WIDTH)) == copies
    wanted = make_model(MANY).candidate_tower.catalogue().numpy()[[3, 390]]
    vectors = signatures["embed_item"](item=tf.constant(["3", "390"]))["embedding"]
    np.testing.assert_array_equal(vectors, wanted)
