"""What a model server answers through the clients, and what it does to bad requests."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from tests.export.tiny import IDS, WIDTH, K, answers_of, top_k_oracle
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import AsyncClient, Client, RestClient, ServerError, Tensor

pytestmark = needs_server

HISTORIES = [
    [IDS[3], IDS[14], IDS[15]],
    [],
    ["nothing"],
    ["", IDS[27], "", "nothing", IDS[28]],
    [IDS[5], IDS[5], IDS[5]],
    [IDS[j % len(IDS)] for j in range(3, 23)],
]
OTHERS = [IDS[j : j + 5] for j in range(0, 5 * len(HISTORIES), 5)]
TIMES = [[10**9 + 60 * j for j in range(len(row))] for row in HISTORIES]
NOW = [10**9 + 10**6] * len(HISTORIES)


def text(answer):
    """What an oracle says, as the clients say it."""
    ids, scores = answer
    items = [(i.decode(), s) for i, s in zip(ids, scores, strict=True) if i]
    return [i for i, _ in items], [s for _, s in items]


def assert_answers(answers, wanted):
    assert len(answers) == len(wanted)
    for answer, (ids, scores) in zip(answers, map(text, wanted), strict=True):
        assert answer.ids == ids
        given = [item.score for item in answer.items]
        assert given == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def expected(exports):
    return answers_of(exports.model)


def test_every_signature_of_a_whole_export(ask, expected, exports):
    client = ask("films")
    assert_answers(client.recommend(HISTORIES), [expected(h) for h in HISTORIES])
    pairs = list(zip(HISTORIES, OTHERS, strict=True))
    answers = client.recommend(HISTORIES, exclude=OTHERS)
    assert_answers(answers, [expected(h, exclude=o) for h, o in pairs])
    answers = client.recommend(HISTORIES, among=OTHERS)
    assert_answers(answers, [expected(h, among=o) for h, o in pairs])
    items = client.embed_items([IDS[7], "nothing", IDS[-1]])
    catalogue = exports.model.candidate_tower.catalogue().numpy()
    wanted = [catalogue[7], np.zeros(WIDTH), catalogue[-1]]
    np.testing.assert_allclose([item.vector for item in items], wanted, rtol=1e-6)
    queries = client.embed_query(HISTORIES)
    assert not any(queries[1].vector) and not any(queries[2].vector)
    scores = catalogue @ queries[0].vector
    unseen = [j for j in np.argsort(-scores) if IDS[j] not in HISTORIES[0]]
    assert [IDS[j] for j in unseen[:K]] == client.recommend(HISTORIES[:1])[0].ids


def test_the_version_that_answered_is_told_by_grpc(server):
    with Client(server.address, model="films") as client:
        assert {answer.version for answer in client.recommend(HISTORIES)} == {1}
        assert client.embed_items(["item 1"])[0].version == 1
    with RestClient(server.rest_address, model="films") as client:
        assert client.recommend([[]])[0].version is None


def timed_expected(model, history, times, now, exclude=()):
    known = [
        (IDS.index(i) + 1, t) for i, t in zip(history, times, strict=True) if i in IDS
    ]
    if not known:
        return None
    indices, moments = zip(*known, strict=True)
    scores = model.score(
        tf.constant([indices]),
        timestamps=tf.constant([moments], tf.int64),
        request_time=tf.constant([now], tf.int64),
    ).numpy()[0]
    hidden = {*history, *exclude}
    return top_k_oracle(scores, lambda j: IDS[j] not in hidden, K)


def test_times_reach_a_time_aware_model(ask, exports, expected):
    client = ask("timed")
    given = {"timestamps": TIMES, "request_times": NOW}
    answers = client.recommend(HISTORIES, **given)
    wanted = [
        timed_expected(exports.timed, *row) or expected([])
        for row in zip(HISTORIES, TIMES, NOW, strict=True)
    ]
    assert_answers(answers, wanted)
    pairs = list(zip(HISTORIES, TIMES, NOW, OTHERS, strict=True))
    answers = client.recommend(HISTORIES, exclude=OTHERS, **given)
    wanted = [
        timed_expected(exports.timed, h, t, now, exclude=o) or expected(h, exclude=o)
        for h, t, now, o in pairs
    ]
    assert_answers(answers, wanted)
    later = client.embed_query(
        HISTORIES, timestamps=TIMES, request_times=[2 * 10**9] * 6
    )
    assert later[0] != client.embed_query(HISTORIES, **given)[0]
    among = client.recommend(HISTORIES, among=OTHERS, **given)
    assert [set(a.ids) <= set(o) for a, o in zip(among, OTHERS, strict=True)] == [
        True
    ] * 6
    # A request is made now unless told, and moments beyond all sense are answered.
    strange = [[-5, 2**62, 0], *TIMES[1:]]
    for answer in client.recommend(HISTORIES, timestamps=strange):
        assert all(math.isfinite(item.score) for item in answer.items)
        assert len(answer.ids) == K


def test_tower_and_index_apart_answer_as_one(ask, server, expected):
    queries = ask("query").embed_query(HISTORIES)
    vectors = [value for query in queries for value in query.vector]
    width = max(map(len, HISTORIES))
    seen = [
        item.encode() for row in HISTORIES for item in row + [""] * (width - len(row))
    ]
    inputs = {
        "embedding": Tensor("float32", (len(HISTORIES), WIDTH), vectors),
        "exclude": Tensor("string", (len(HISTORIES), width), seen),
    }
    outputs = ask("index").predict("search", inputs).outputs
    rows = outputs["ids"].rows()
    assert [[i for i in row if i] for row in rows] == [
        expected(h)[0] for h in HISTORIES
    ]


def test_strange_vectors_and_ids_are_rows_of_their_own(server, expected):
    with Client(server.address, model="query") as client:
        (good,) = client.embed_query([["item 3", "x" * 100_000]])
    rows = [good.vector, [math.nan] * WIDTH, [math.inf] + [1.0] * (WIDTH - 1)]
    rows += [[0.0] * WIDTH]
    exclude = [b"item 3", b"y" * 100_000] * len(rows)
    inputs = {
        "embedding": Tensor(
            "float32", (len(rows), WIDTH), [v for r in rows for v in r]
        ),
        "exclude": Tensor("string", (len(rows), 2), exclude),
    }
    for kind, address in ((Client, server.address), (RestClient, server.rest_address)):
        with kind(address, model="index") as client:
            outputs = client.predict("search", inputs).outputs
            ids, scores = outputs["ids"].rows(), outputs["scores"].values
        assert ids[0] == expected(["item 3"])[0]
        assert ids[1] == ids[2] == [b""] * K
        assert ids[3] == expected([], exclude=["item 3"])[0]
        assert all(math.isfinite(score) for score in scores)


def test_what_a_server_says_of_a_model(server):
    with Client(server.address, model="timed") as client:
        signatures = client.signatures()
        (status,) = client.status()
    with RestClient(server.rest_address, model="timed") as client:
        assert client.signatures() == signatures
        assert client.status() == [status]
    assert (status.version, status.state, status.error) == (1, "AVAILABLE", "")
    assert set(signatures["serving_default"].inputs) == {
        "history",
        "timestamps",
        "request_time",
    }
    assert signatures["embed_item"].outputs["embedding"].shape == (None, WIDTH)


def test_asyncio_asks_many_at_once(server, expected):
    async def ask_all():
        async with AsyncClient(server.address, model="films") as client:
            answers = await asyncio.gather(
                *(
                    client.recommend([h], exclude=[o])
                    for h, o in zip(HISTORIES, OTHERS, strict=True)
                )
            )
            (status,) = await client.status()
            (vector,) = await client.embed_items(["item 1"])
            (query,) = await client.embed_query([[]])
            signatures = await client.signatures()
            assert await client.recommend([]) == []
            with pytest.raises(ServerError, match="NOT_FOUND"):
                await AsyncClient(server.address, model="nobody").recommend([[]])
        assert len(vector.vector) == len(query.vector) == WIDTH
        assert status.state == "AVAILABLE" and "tf_example" in signatures
        return [answer for (answer,) in answers]

    wanted = [expected(h, exclude=o) for h, o in zip(HISTORIES, OTHERS, strict=True)]
    assert_answers(asyncio.run(ask_all()), wanted)


def test_eight_threads_of_mixed_requests(server, exports, expected):
    """Requests that merge, requests of other widths, and broken ones among them."""
    kinds = ((Client, server.address), (RestClient, server.rest_address))
    clients = {
        model: [
            kind(address, model=model, examples=examples, timeout=60.0)
            for examples in (True, False)
            for kind, address in kinds
        ]
        for model in ("films", "timed")
    }
    catalogue = exports.model.candidate_tower.catalogue().numpy()
    lone = clients["films"][0]
    vectors = lone.embed_query(HISTORIES)
    reasons = lone.explain(HISTORIES, [IDS[9]] * len(HISTORIES))
    timed = [
        timed_expected(exports.timed, *row) or expected([])
        for row in zip(HISTORIES, TIMES, NOW, strict=True)
    ]

    def broken(number):
        bad = Tensor("string", (1,), [b"\xff" * number])
        return lone.predict("tf_example", {"examples": bad})

    def work(thread):
        for step in range(8):
            row = (thread + step) % len(HISTORIES)
            history, others = HISTORIES[row], OTHERS[row]
            client = clients["films"][(thread + step) % 4]
            assert_answers(client.recommend([history]), [expected(history)])
            answers = client.recommend([history], exclude=[others])
            assert_answers(answers, [expected(history, exclude=others)])
            answers = client.recommend([history], among=[others])
            assert_answers(answers, [expected(history, among=others)])
            near = functools.partial(pytest.approx, rel=1e-3, abs=1e-4)
            (query,) = client.embed_query([history])
            assert query.vector == near(vectors[row].vector)
            (item,) = client.embed_items([IDS[step]])
            assert item.vector == near(catalogue[step])
            (reason,) = client.explain([history], [IDS[9]])
            assert reason.contributions == near(reasons[row].contributions)
            told = {"timestamps": [TIMES[row]], "request_times": [NOW[row]]}
            answers = clients["timed"][(thread + step) % 4].recommend([history], **told)
            assert_answers(answers, timed[row : row + 1])
            assert set(broken(step + 1).outputs["ids"].values) == {b""}
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8
    for client in itertools.chain(*clients.values()):
        client.close()


def test_padding_with_first_elements_changes_no_answer(
    padding_server, expected, exports
):
    """Every history, in batches of mixed lengths that the server pads and rounds up."""
    for examples, model in itertools.product((True, False), ("films", "timed")):
        with (
            Client(
                padding_server.address,
                model=model,
                examples=examples,
                timeout=60,
                width=1,
            ) as client,
            ThreadPoolExecutor(len(HISTORIES)) as pool,
        ):

            def ask(row, client=client, model=model):
                times = {
                    "timestamps": [TIMES[row]],
                    "request_times": NOW[row : row + 1],
                }
                times = times if model == "timed" else {}
                among = client.recommend([HISTORIES[row]], among=[OTHERS[row]], **times)
                return client.recommend([HISTORIES[row]], **times) + among

            answers = list(pool.map(ask, range(len(HISTORIES))))
        wanted = [expected(h) for h in HISTORIES]
        if model == "timed":
            rows = zip(HISTORIES, TIMES, NOW, strict=True)
            wanted = [
                timed_expected(exports.timed, *row) or expected([]) for row in rows
            ]
        assert_answers([answer for answer, _ in answers], wanted)
        for (_, among), others in zip(answers, OTHERS, strict=True):
            assert set(among.ids) <= set(others)


def test_without_the_clients_care_such_a_server_answers_wrongly(
    padding_server, expected
):
    """Why the clients begin every row with padding: this is what it guards against."""
    client = Client(padding_server.address, model="films", timeout=60)

    def ask(history):
        values = [item.encode() for item in history]
        inputs = {"history": Tensor("string", (1, len(history)), values)}
        try:
            return client.predict("serving_default", inputs).outputs["ids"].values
        except ServerError as error:
            return error.details

    short, long = ["item 3", "item 14"], HISTORIES[5]
    spoiled, failed = set(), set()
    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            answers = list(pool.map(ask, [short, long]))
            spoiled.add(answers[0] == expected(short)[0])
            failed.add(any("empty tensor" in str(a) for a in pool.map(ask, [[], long])))
            if spoiled == failed == {True, False}:
                break
    client.close()
    assert False in spoiled, "a short history that was padded has the right answer"
    assert True in failed, "an empty history failed nothing"


def test_requests_that_are_refused(server):
    history = Tensor("string", (1, 1), [b"item 3"])
    many = Tensor("string", (300, 1), [b"item 3"] * 300)
    number = Tensor("int64", (1, 1), [3])
    narrow = {
        "embedding": Tensor("float32", (2, 4), [0.0] * 8),
        "exclude": Tensor("string", (2, 1), [b""] * 2),
    }
    scalar = Tensor("string", (), [b"x"])
    cases = [
        ("films", "serving_default", {"history": number}, "INVALID_ARGUMENT"),
        ("films", "serving_default", {"histories": history}, "INVALID_ARGUMENT"),
        ("films", "serving_default", {}, "INVALID_ARGUMENT"),
        ("films", "serving_default", {"history": many}, "INVALID_ARGUMENT"),
        ("films", "embed_item", {"item": scalar}, "INVALID_ARGUMENT"),
        (
            "films",
            "nothing",
            {"history": history},
            "INVALID_ARGUMENT FAILED_PRECONDITION",
        ),
        ("nobody", "serving_default", {"history": history}, "NOT_FOUND"),
        (
            "query",
            "serving_default",
            {"history": history},
            "INVALID_ARGUMENT FAILED_PRECONDITION",
        ),
        ("index", "search", narrow, "INVALID_ARGUMENT"),
    ]
    for model, signature, inputs, codes in cases:
        for client in (
            Client(server.address, model=model),
            RestClient(server.rest_address, model=model),
        ):
            with client, pytest.raises(ServerError) as raised:
                client.predict(signature, inputs)
            wanted = codes.split()
            if isinstance(client, RestClient) and "FAILED_PRECONDITION" in wanted:
                wanted.append("NOT_FOUND")
            assert raised.value.code in wanted, (model, signature, str(raised.value))
            assert raised.value.attempts == 1
    for version, code in ((7, "NOT_FOUND"), ("stable", "INVALID_ARGUMENT")):
        client = Client(server.address, model="films", version=version)
        with client, pytest.raises(ServerError, match=code):
            client.recommend([[]])


def test_more_calls_than_threads_are_tried_again(exports, start):
    """A small thread pool answers RESOURCE_EXHAUSTED at once; clients back off."""
    server = start({"index": exports.bases["index"]}, grpc_max_threads=4)
    server.wait("index")
    barrier = threading.Barrier(16)
    with Client(server.address, model="index", timeout=60.0) as client:

        def ask(_):
            barrier.wait()
            return [client.embed_items(["item 1"])[0].version for _ in range(10)]

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(ask, range(16))) == [[1] * 10] * 16
