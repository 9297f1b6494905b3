"""Shards on a server and the client that merges them: a single index's answers."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from tests.export.tiny import IDS, K, make_model, make_vocabulary, quick_export
from tests.serving.conftest import needs_server
from tfrs_selfattn import InputError
from tfrs_selfattn.client import Client, RestClient, ServerError, ShardedClient
from tfrs_selfattn.client.answers import Embedding, Prediction
from tfrs_selfattn.client.tensors import Tensor

SHARDS = 3
HISTORIES = [["item 3", "item 9"], [], ["unknown"], list(IDS[5:17]), ["0", "item 1"]]
# All but a few, those of equal scores among them.
FEW = {2, 4, 7, 8, 14, 22, 24, 25}
MOST = [item for place, item in enumerate(IDS) if place not in FEW]


@pytest.fixture(scope="module")
def model():
    """Items 4, 14 and 24, of three shards, score the same, and so do 2 and 22."""
    model = make_model()
    table = model.query_tower.item_embedding.embeddings
    rows = table.numpy()
    rows[[15, 25]] = rows[5]
    rows[23] = rows[3]
    table.assign(rows)
    return model


@pytest.fixture(scope="module")
def served(model, start, tmp_path_factory):
    """One server with the whole model and, under other names, its shards."""
    from tfrs_selfattn.export import export_shards

    base = tmp_path_factory.mktemp("sharded")
    quick_export(base / "whole", model=model)
    options = {"vocabulary": make_vocabulary(), "k": K, "verify": False}
    export_shards(model, base / "exact", num_shards=SHARDS, **options)
    names = [f"shard-{number}-of-{SHARDS}" for number in range(SHARDS)]
    models = {name: base / "exact" / name for name in ("query", *names)}
    server = start({"whole": base / "whole", **models})
    return server.wait("whole", *models)


def addresses(server, rest=False):
    address = server.rest_address if rest else server.address
    return f"{address}/query", [
        f"{address}/shard-{number}-of-{SHARDS}" for number in range(SHARDS)
    ]


@needs_server
@pytest.mark.parametrize("rest", [False, True], ids=["grpc", "rest"])
def test_the_answer_is_that_of_a_single_index(served, rest):
    kind, address = (
        (RestClient, served.rest_address) if rest else (Client, served.address)
    )
    exclude = [["item 5"], [], ["item 2", "no item"], [], list(IDS[10:20])]
    with (
        kind(address, model="whole") as whole,
        ShardedClient.connect(*addresses(served, rest), timeout=30) as sharded,
    ):
        for options in ({}, {"exclude": exclude}, {"exclude": [MOST] * 5}):
            wanted = whole.recommend(HISTORIES, **options)
            merged = sharded.recommend(HISTORIES, **options)
            for one, many in zip(wanted, merged, strict=True):
                assert many.ids == one.ids
                assert [item.score for item in many.items] == pytest.approx(
                    [item.score for item in one.items], rel=1e-6
                )
                assert (many.version, many.missing) == (one.version, ())
        # The last ones had to order items of equal scores.
        scores = [item.score for item in merged[0].items]
        assert len(scores) == K and len(set(scores)) < K - 1
        assert sharded.recommend([]) == []


@needs_server
def test_seen_items_may_be_kept(served):
    query, shards = addresses(served)
    with ShardedClient.connect(query, shards, timeout=30, keep_seen=True) as sharded:
        ids = [sharded.recommend([[item]])[0].ids for item in IDS]
    assert any(item in found for item, found in zip(IDS, ids, strict=True))


@needs_server
def test_the_command(served, cli_status):
    _, shards = addresses(served)
    words = ["recommend", "--server", served.address, "--model", "query", "--json"]
    for address in shards:
        words += ["--shard", address]
    status, out, err = cli_status(*words, "--history", "item 3,item 9")
    assert status == 0, err
    with Client(served.address, model="whole") as whole:
        (wanted,) = whole.recommend([["item 3", "item 9"]])
    answer = json.loads(out)
    assert [item["id"] for item in answer["recommendations"]] == wanted.ids
    assert answer["missing_shards"] == []

    words[-1] = f"{served.address}/no-such-shard"
    status, out, err = cli_status(*words, "--history", "item 3")
    assert (status, out) == (1, "") and "NOT_FOUND" in err
    status, out, err = cli_status(*words, "--history", "item 3", "--partial")
    assert status == 0
    assert json.loads(out)["missing_shards"] == [2]
    assert "without the items of shard" in err
    status, out, err = cli_status("recommend", "--shard", "h:1/m", "--history", "a")
    assert status == 2 and "--shard must come with --server" in err


class Query:
    """A query model whose vector is (1, 0)."""

    width, address = 64, "query"

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def embed_query(self, histories, **told):
        time.sleep(self.seconds)
        return [Embedding((1.0, 0.0), 7) for _ in histories]

    def close(self):
        pass


class Shard:
    """Answers with the items it was made with, late, or never."""

    def __init__(self, items, wait=None, error=None):
        self.items, self.wait, self.error = items, wait, error
        self.address, self.versions = "shard", []

    def predict(self, signature, inputs, *, version=None):
        assert signature == "search"
        self.versions.append(version)
        if self.wait is not None:
            self.wait.wait(10)
        if self.error is not None:
            raise self.error
        rows = inputs["embedding"].shape[0]
        ids = [item.encode() for item, _ in self.items] * rows
        scores = [score for _, score in self.items] * rows
        shape = (rows, len(self.items))
        outputs = {
            "ids": Tensor("string", shape, ids),
            "scores": Tensor("float32", shape, scores),
        }
        return Prediction(outputs, 7)

    def close(self):
        pass


FIRST = [("a", 3.0), ("b", 2.0), ("c", 2.0)]
SECOND = [("d", 2.5), ("e", 2.0), ("", -3e38)]


def test_equal_scores_go_by_shard_and_place():
    shards = [Shard(FIRST), Shard(SECOND)]
    with ShardedClient(Query(), shards) as client:
        (answer,) = client.recommend([["x"]])
    assert answer.ids == ["a", "d", "b"]
    # The shards are asked for the version that the vector is of.
    assert [shard.versions for shard in shards] == [[7], [7]]


@pytest.fixture
def hangs():
    event = threading.Event()
    yield event
    event.set()


def test_a_slow_shard_is_an_error_or_a_partial_answer(hangs):
    shards = [Shard(FIRST), Shard(SECOND, wait=hangs)]
    with ShardedClient(Query(), shards, timeout=0.3) as client:
        started = time.monotonic()
        with pytest.raises(
            ServerError, match=r"shard 1 of 2 did not answer within 0.3"
        ):
            client.recommend([["x"]])
        assert 0.25 < time.monotonic() - started < 3
        client.partial = True
        (answer,) = client.recommend([["x"]])
    assert answer.ids == ["a", "b", "c"]
    assert answer.missing == (1,)


def test_the_deadline_counts_from_the_start(hangs):
    shards = [Shard(FIRST, wait=hangs)]
    with ShardedClient(Query(0.2), shards, timeout=0.3) as client:
        started = time.monotonic()
        with pytest.raises(ServerError):
            client.recommend([["x"]])
        assert time.monotonic() - started < 0.45


def test_a_shard_that_fails(hangs):
    lost = ServerError("UNAVAILABLE", "gone", "shard")
    shards = [Shard(FIRST, error=lost), Shard(SECOND)]
    with ShardedClient(Query(), shards) as client:
        with pytest.raises(ServerError, match="gone"):
            client.recommend([["x"]])
        client.partial = True
        (answer,) = client.recommend([["x"]])
        assert (answer.ids, answer.missing) == (["d", "e"], (0,))
    # An answer of nobody is none.
    with (
        ShardedClient(Query(), shards[:1], partial=True) as client,
        pytest.raises(ServerError, match="gone"),
    ):
        client.recommend([["x"]])


def test_a_shard_that_hangs_takes_no_threads_of_others(hangs):
    shards = [Shard(FIRST), Shard(SECOND, wait=hangs)]
    with ShardedClient(Query(), shards, timeout=0.02, partial=True) as client:
        answers = [client.recommend([["x"]])[0] for _ in range(40)]
    assert {answer.missing for answer in answers} == {(1,)}


def test_wrong_use():
    with pytest.raises(InputError, match="must name at least one"):
        ShardedClient(Query(), [])
    for address in ("localhost:8500", "http://localhost:8501", "/model", "host:1/"):
        with pytest.raises(InputError, match="HOST:PORT/MODEL"):
            ShardedClient.connect(address, ["localhost:1/a"])


def test_partitioned_shards_find_no_less():
    """The same leaves searched in each shard: a larger part of the catalogue."""
    import tensorflow as tf

    from tfrs_selfattn.index import ExactTopK, PartitionedTopK

    draw = np.random.default_rng(0)
    items = draw.normal(size=[4000, 16]).astype("float32")
    queries = tf.constant(draw.normal(size=[40, 16]), tf.float32)

    def search(kind, rows, **settings):
        layer = kind(k=20, **settings)
        layer.index(tf.constant(items[rows]), tf.range(rows.start, rows.stop))
        return [each.numpy() for each in layer(queries)]

    def recall(found):
        hits = [len({*a} & {*b}) for a, b in zip(found, wanted, strict=True)]
        return np.mean(hits) / 20

    _, wanted = search(ExactTopK, slice(0, 4000))
    settings = {"num_leaves_to_search": 8, "seed": 1}
    _, whole = search(PartitionedTopK, slice(0, 4000), **settings)
    parts = [
        search(PartitionedTopK, slice(start, start + 2000), **settings)
        for start in (0, 2000)
    ]
    scores, ids = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    best = np.argsort(-scores, kind="stable")[:, :20]
    merged = np.take_along_axis(ids, best, axis=1)
    assert recall(whole) < 0.95
    assert recall(merged) >= recall(whole)
