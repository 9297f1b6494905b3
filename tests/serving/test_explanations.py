"""What a model server answers when it is asked why."""

from __future__ import annotations

import asyncio

import pytest
import tensorflow as tf

from tests.export.tiny import IDS
from tests.serving.conftest import needs_server
from tests.serving.test_server import HISTORIES, NOW, TIMES
from tfrs_selfattn import InputError
from tfrs_selfattn.client import AsyncClient, Client

pytestmark = needs_server


def lost_without_each(score, history):
    """What a score loses without each item of a history, one at a time."""
    known = [IDS.index(item) + 1 for item in history if item in IDS]
    whole, found, place = score(known), [], 0
    for item in history:
        without = known
        if item in IDS:
            without = known[:place] + known[place + 1 :]
            place += 1
        found.append(whole - score(without))
    return found


def test_explanations_are_what_the_live_model_loses(ask, exports):
    client = ask("films")
    # One that is read whole: MAX_LENGTH is 10, and the last history is longer.
    histories, items = [*HISTORIES[:5], HISTORIES[5][-10:]], [IDS[9]] * 6
    answers = client.explain(histories, items)
    model = exports.model
    vector = model.candidate_tower.catalogue().numpy()[9]

    def score(known):
        return model.query_tower(tf.constant([known or [0]])).numpy()[0] @ vector

    for history, answer in zip(histories, answers, strict=True):
        assert len(answer.contributions) == len(history)
        wanted = lost_without_each(score, history)
        assert answer.contributions == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert min(map(abs, answers[0].contributions)) > 0.01
    # Only what the model reads counts; batch and order of users change nothing.
    longer = client.explain([HISTORIES[5], *histories[:1]], items[:2])
    assert longer[0].contributions[:10] == pytest.approx([0.0] * 10, abs=1e-5)
    # Without one of those, an older item moves up: not as in the history cut short.
    assert min(map(abs, longer[0].contributions[10:])) > 0.001
    assert longer[1].contributions == pytest.approx(
        answers[0].contributions, rel=1e-3, abs=1e-5
    )
    (nobody,) = client.explain(histories[:1], ["nothing"])
    assert nobody.contributions == (0.0, 0.0, 0.0)
    assert client.explain([], []) == []
    with pytest.raises(InputError, match="Received: 1 for 2 histories"):
        client.explain(histories[:2], items[:1])


def test_times_reach_explanations(ask):
    client, item = ask("timed"), [IDS[9]]
    given = {"timestamps": [TIMES[0]], "request_times": [NOW[0]]}
    (soon,) = client.explain(HISTORIES[:1], item, **given)
    (later,) = client.explain(
        HISTORIES[:1], item, timestamps=[TIMES[0]], request_times=[2 * 10**9]
    )
    assert soon.contributions != later.contributions
    shifted = {
        "timestamps": [[time + 50 for time in TIMES[0]]],
        "request_times": [NOW[0] + 50],
    }
    (moved,) = client.explain(HISTORIES[:1], item, **shifted)
    assert moved.contributions == pytest.approx(soon.contributions, rel=1e-3, abs=1e-5)


def test_asyncio_explains_as_the_others(server):
    async def explain():
        async with AsyncClient(server.address, model="films") as client:
            return await client.explain(HISTORIES, [IDS[9]] * 6)

    with Client(server.address, model="films") as client:
        assert asyncio.run(explain()) == client.explain(HISTORIES, [IDS[9]] * 6)
