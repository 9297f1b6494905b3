"""Features of users and events, asked of a server in every way that clients know."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.export.tiny import quick_export
from tests.export.told import EVENTS, FEATURES, HISTORIES, told_model
from tests.serving.conftest import needs_server
from tfrs_selfattn import InputError
from tfrs_selfattn.client import AsyncClient, Client, RestClient, ShardedClient
from tfrs_selfattn.export import load_recommender

TOLD = {"features": FEATURES, "event_features": EVENTS}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("told") / "base"
    quick_export(base, model=told_model())
    return base


@pytest.fixture(scope="module")
def served(base, start):
    server = start(
        {"told": base},
        enable_batching="true",
        enable_per_model_batching_parameters="true",
    )
    return server.wait("told")


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
        reasons = client.explain(HISTORIES, ["item 20"] * 3, **TOLD)
        wanted = recommender.explain(HISTORIES, ["item 20"] * 3, **TOLD)
        for one, other in zip(reasons, wanted, strict=True):
            expected = [each.contribution for each in other]
            np.testing.assert_allclose(one.contributions, expected, 1e-3, 1e-4)


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
