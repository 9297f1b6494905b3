"""Features of users and events, asked of a server in every way that clients know."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.export.content import content_model
from tests.export.tiny import IDS, K, make_vocabulary, quick_export
from tests.export.told import EVENTS, FEATURES, HISTORIES, told_model
from tests.serving.conftest import needs_server
from tfrs_selfattn import InputError
from tfrs_selfattn.client import AsyncClient, Client, RestClient, ShardedClient
from tfrs_selfattn.export import export_shards, load_recommender
from tfrs_selfattn.features import FeatureEncoder

TOLD = {"features": FEATURES, "event_features": EVENTS}


@pytest.fixture(scope="module")
def base(exports):
    return exports.bases["told"]


@pytest.fixture(scope="module")
def served(base, start, tmp_path_factory):
    """Two models: one of users and events, and `content` of items by features."""
    items = tmp_path_factory.mktemp("content") / "base"
    content = content_model()
    quick_export(items, model=content)
    server = start(
        {"told": base, "content": items},
        enable_batching="true",
        enable_per_model_batching_parameters="true",
    ).wait("told", "content")
    server.content = content
    return server


@needs_server
@pytest.mark.parametrize("examples", [True, False])
@pytest.mark.parametrize("kind", [Client, RestClient])
def test_clients_tell_the_features(served, base, kind, examples):
    recommender = load_recommender(base)
    address = served.address if kind is Client else served.rest_address
    among = [["item 1", "item 2", "item 5"]] * 3
    with kind(address, model="told", examples=examples) as client:
        for options in ({}, {"exclude": [["item 5"], [], []]}, {"among": among}):
            found = client.recommend(HISTORIES, **options, **TOLD)
            wanted = recommender.recommend(HISTORIES, **options, **TOLD)
            for one, other in zip(found, wanted, strict=True):
                assert one.ids == [item.id for item in other]
        # Without a history, by the country alone; the others have their defaults.
        alone = {"features": {"country": ["fr"]}}
        (found,) = client.recommend([[]], **alone)
        (wanted,) = recommender.recommend([[]], **alone)
        assert found.ids == [item.id for item in wanted]

        with pytest.raises(InputError, match="must be among country, taste"):
            client.recommend([[]], features={"age": [3]})
        with pytest.raises(InputError, match="'country' must be told as text"):
            client.recommend([[]], features={"country": [3]})

        vectors = client.embed_query(HISTORIES, **TOLD)
        scores = client.recommend(HISTORIES, **TOLD)
        for vector, answer in zip(vectors, scores, strict=True):
            (item,) = client.embed_items([answer.ids[0]])
            score = np.dot(vector.vector, item.vector)
            np.testing.assert_allclose(score, answer.items[0].score, rtol=1e-4)
        # Nothing told is everything missing, in matrices too.
        nothing = {name: [None] * 3 for name in FEATURES}
        for ask in (
            client.embed_query,
            client.recommend,
            lambda histories, **told: client.recommend(histories, among=among, **told),
            lambda histories, **told: client.explain(
                histories, ["item 20"] * 3, **told
            ),
        ):
            assert ask(HISTORIES) == ask(HISTORIES, features=nothing)
        reasons = client.explain(HISTORIES, ["item 20"] * 3, **TOLD)
        wanted = recommender.explain(HISTORIES, ["item 20"] * 3, **TOLD)
        for one, other in zip(reasons, wanted, strict=True):
            expected = [each.contribution for each in other]
            np.testing.assert_allclose(one.contributions, expected, 1e-3, 1e-4)


@needs_server
@pytest.mark.parametrize("kind", [Client, RestClient, AsyncClient])
@pytest.mark.parametrize(
    "method", ["embed_query", "recommend", "explain", "embed_items"]
)
def test_the_first_question_may_tell_nothing(served, kind, method):
    """Before the client has seen what the model takes."""
    address = served.rest_address if kind is RestClient else served.address
    arguments = {
        "explain": (HISTORIES, ["item 20"] * 3),
        "embed_items": (["item 1", "new"],),
    }.get(method, (HISTORIES,))
    model = "content" if method == "embed_items" else "told"

    def ask(**told):
        if kind is not AsyncClient:
            with kind(address, model=model, examples=False) as client:
                return getattr(client, method)(*arguments, **told)

        async def answer():
            async with kind(address, model=model, examples=False) as client:
                return await getattr(client, method)(*arguments, **told)

        return asyncio.run(answer())

    name = "tastes" if method == "embed_items" else "country"
    assert ask() == ask(features={name: [None] * len(arguments[0])})
    with pytest.raises(InputError, match=r"must be among .*, which the model takes"):
        ask(features={"age": [3] * len(arguments[0])})


@needs_server
@pytest.mark.parametrize("kind", [Client, RestClient])
def test_new_items_are_embedded_by_what_is_told_of_them(served, kind):
    address = served.rest_address if kind is RestClient else served.address
    with kind(address, model="content") as client:
        told = {"tastes": ["sweet", "sweet", None], "price": [2.0, 2.0, None]}
        ids = ["new", IDS[4], "also new"]
        new, known, nothing = client.embed_items(ids, features=told)
        raw = {name: values[:1] for name, values in told.items()}
        raw["tastes"] = [b"sweet"]
        embedding = served.content.query_tower.item_embedding
        wanted = embedding.of_content(
            FeatureEncoder(embedding.features)(
                {name: tf.constant(values) for name, values in raw.items()}
            ),
            tf.constant(["new"]),
        )[0]
        np.testing.assert_allclose(new.vector, wanted, atol=1e-5)
        assert known == client.embed_items([IDS[4]])[0]
        assert known.vector != new.vector != nothing.vector
        with pytest.raises(InputError, match=r"each item\. Received: 1 for 3"):
            client.embed_items(ids, features={"tastes": ["sweet"]})


@needs_server
def test_the_asynchronous_client_tells_them_too(served, base):
    async def ask():
        async with AsyncClient(served.address, model="told") as client:
            return (
                await client.recommend(HISTORIES, **TOLD),
                await client.embed_query(HISTORIES, **TOLD),
            )

    found, vectors = asyncio.run(ask())
    wanted = load_recommender(base).recommend(HISTORIES, **TOLD)
    for one, other in zip(found, wanted, strict=True):
        assert one.ids == [item.id for item in other]
    with Client(served.address, model="told") as client:
        for one, other in zip(
            vectors, client.embed_query(HISTORIES, **TOLD), strict=True
        ):
            np.testing.assert_allclose(one.vector, other.vector, rtol=1e-5)


@needs_server
def test_shards_answer_as_the_whole_does(base, start, tmp_path, cli_status):
    options = {"vocabulary": make_vocabulary(), "k": K, "verify": False}
    export_shards(told_model(), tmp_path, num_shards=2, **options)
    names = ["query", "shard-0-of-2", "shard-1-of-2"]
    server = start({name: tmp_path / name for name in names}).wait(*names)
    query, *shards = (f"{server.address}/{name}" for name in names)
    whole = load_recommender(base)
    with ShardedClient.connect(query, shards, timeout=30) as client:
        assert {"country", "taste", "kind", "price"} < set(client.inputs())
        for histories, told in (
            (HISTORIES, TOLD),
            (HISTORIES, {}),
            ([[], []], {"features": {"country": ["fr", None]}}),
        ):
            found = client.recommend(histories, **told)
            wanted = whole.recommend(histories, **told)
            for one, other in zip(found, wanted, strict=True):
                assert one.ids == [item.id for item in other]
                assert one.missing == ()
        for told, message in (
            ({"features": {"age": [3]}}, "must be among country, taste, .*'age'"),
            ({"features": {"country": [3]}}, "'country' must be told as text"),
            ({"event_features": {"kind": [["buy"]]}}, "each item.* values for"),
        ):
            with pytest.raises(InputError, match=message):
                client.recommend([[]], **told)
    words = ["recommend", "--server", server.address, "--model", "query", "--json"]
    words += [word for shard in shards for word in ("--shard", shard)]
    told = ("--history", "item 3", "--feature", "country=it")
    status, out, err = cli_status(*words, *told, "--event-feature", "price=2")
    assert status == 0, err
    (wanted,) = whole.recommend(
        [["item 3"]], features={"country": ["it"]}, event_features={"price": [[2]]}
    )
    found = json.loads(out)["recommendations"]
    assert [item["id"] for item in found] == [item.id for item in wanted]
    status, _, err = cli_status(*words, *told[:2], "--feature", "age=3")
    assert status == 2
    assert "of a name that the model takes: country, taste. Received" in err


def test_the_client_of_shards_hands_them_on():
    class Query:
        width = 64

        def embed_query(self, histories, **told):
            self.told = told
            return []

        def close(self):
            pass

    query = Query()
    with ShardedClient(query, [query]) as client:
        assert client.recommend(HISTORIES, **TOLD) == []
    assert query.told == {"timestamps": None, "request_times": None, **TOLD}
