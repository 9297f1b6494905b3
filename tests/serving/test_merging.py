"""Requests of several clients in one batch: what spoils them, and what does not."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.export import told
from tests.export.tiny import IDS, answers_of
from tests.serving.conftest import needs_server
from tests.serving.test_server import (
    HISTORIES,
    NOW,
    OTHERS,
    TIMES,
    assert_answers,
    timed_expected,
)
from tfrs_selfattn.client import Client, RestClient, ServerError, Tensor
from tfrs_selfattn.export import load_recommender

pytestmark = needs_server


@pytest.fixture(scope="module")
def expected(exports):
    return answers_of(exports.model)


def at_once(*asks):
    """Calls the functions at the same moment, each in a thread; their results."""
    barrier = threading.Barrier(len(asks))

    def start(ask):
        barrier.wait()
        return ask()

    with ThreadPoolExecutor(len(asks)) as pool:
        return list(pool.map(start, asks))


@pytest.mark.parametrize("kind", [Client, RestClient])
def test_raw_matrices_of_two_widths_fail_together(merging_server, kind):
    """Why the clients send tf.Examples, or matrices of one common width."""
    address = merging_server.address
    if kind is RestClient:
        address = merging_server.rest_address
    failures = []
    with kind(address, model="films", timeout=60) as client:

        def ask(width):
            values = [b"item 3", *[b""] * (width - 1)]
            try:
                inputs = {"history": Tensor("string", (1, width), values)}
                return client.predict("serving_default", inputs).outputs
            except ServerError as error:
                return error

        for _ in range(20):  # until both came within the same 20 ms
            answers = at_once(lambda: ask(2), lambda: ask(3))
            failures = [each for each in answers if isinstance(each, ServerError)]
            assert len(failures) in (0, 2), "one request failed alone"
            if failures:
                break
    assert len(failures) == 2, "they never met"
    for failure in failures:
        assert failure.code == "FAILED_PRECONDITION"
        assert "different shapes" in failure.details
        assert "of one common width" in str(failure)


@pytest.mark.parametrize("examples", [True, False])
def test_the_clients_requests_merge_and_are_answered_as_alone(
    merging_server, expected, examples
):
    before = merging_server.batches()
    rounds = 3
    with Client(
        merging_server.address, model="films", examples=examples, timeout=60
    ) as client:
        asks = [
            lambda h=h, o=o: client.recommend([h], exclude=[o])
            for h, o in zip(HISTORIES, OTHERS, strict=True)
        ]
        for _ in range(rounds):
            answers = [answer for (answer,) in at_once(*asks)]
            pairs = zip(HISTORIES, OTHERS, strict=True)
            assert_answers(answers, [expected(h, exclude=o) for h, o in pairs])
    run = merging_server.batches() - before
    assert 0 < run < rounds * len(asks), "nothing was merged"


def test_padding_changes_no_answer_of_any_signature(padding_server, exports, expected):
    """Exclusions, vectors and explanations, in batches of mixed lengths."""
    catalogue = exports.model.candidate_tower.catalogue().numpy()
    for examples, model in itertools.product((True, False), ("films", "timed")):
        options = {"model": model, "examples": examples, "timeout": 60, "width": 1}
        with Client(padding_server.address, **options) as client:

            def ask(row, client=client, model=model):
                told = {"timestamps": [TIMES[row]], "request_times": [NOW[row]]}
                told = told if model == "timed" else {}
                history = [HISTORIES[row]]
                return (
                    client.recommend(history, exclude=[OTHERS[row]], **told)[0],
                    client.embed_query(history, **told)[0].vector,
                    client.explain(history, [IDS[9]], **told)[0].contributions,
                )

            rows = range(len(HISTORIES))
            together = at_once(*(lambda row=row: ask(row) for row in rows))
            for row, (answer, vector, reasons) in enumerate(together):
                alone, own_vector, own_reasons = ask(row)
                assert answer.ids == alone.ids
                np.testing.assert_allclose(vector, own_vector, 1e-4, 1e-5)
                np.testing.assert_allclose(reasons, own_reasons, 1e-3, 1e-4)
            wanted = [
                expected(h, exclude=o) for h, o in zip(HISTORIES, OTHERS, strict=True)
            ]
            if model == "timed":
                wanted = [
                    timed_expected(exports.timed, h, t, now, exclude=o)
                    or expected(h, exclude=o)
                    for h, t, now, o in zip(HISTORIES, TIMES, NOW, OTHERS, strict=True)
                ]
            assert_answers([answer for answer, _, _ in together], wanted)
            if model == "films":
                answer, vector, _ = together[0]
                hidden = {*HISTORIES[0], *OTHERS[0]}
                scores = catalogue @ np.array(vector)
                left = [j for j in np.argsort(-scores) if IDS[j] not in hidden]
                assert [IDS[j] for j in left[: len(answer.ids)]] == answer.ids


@pytest.mark.parametrize("examples", [True, False])
def test_padding_leaves_features_of_events_alone(padding_server, exports, examples):
    """Their padding is 0 or "" where that of the history is too."""
    recommender = load_recommender(exports.bases["told"])
    with Client(
        padding_server.address, model="told", examples=examples, timeout=60, width=1
    ) as client:

        def ask(row):
            given = {
                "features": {n: [v[row]] for n, v in told.FEATURES.items()},
                "event_features": {n: [v[row]] for n, v in told.EVENTS.items()},
            }
            return client.recommend([told.HISTORIES[row]], **given)[0].ids

        wanted = recommender.recommend(
            told.HISTORIES, features=told.FEATURES, event_features=told.EVENTS
        )
        for _ in range(3):
            found = at_once(*(lambda row=row: ask(row) for row in range(3)))
            assert found == [[item.id for item in row] for row in wanted]
