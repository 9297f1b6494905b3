"""Requests no client of ours would send: refused or answered, never felt by others."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings

from tests.export.tiny import WIDTH, answers_of
from tests.serving import generators
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import Client, ServerError

pytestmark = needs_server

# `TFRS_SELFATTN_FUZZ=10000 pytest tests/serving/test_malformed.py` takes minutes.
EXAMPLES = int(os.environ.get("TFRS_SELFATTN_FUZZ", "480")) // 4


@pytest.fixture(scope="module")
def expected(exports):
    return answers_of(exports.model)


def post(server, body, model="films"):
    """The status and the document that a raw REST body is answered with."""
    request = urllib.request.Request(
        f"{server.rest_address}/v1/models/{model}:predict",
        body if isinstance(body, bytes) else json.dumps(body).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            # Python would read NaN and Infinity, which are no JSON.
            text = response.read()
            return response.status, json.loads(text, parse_constant=pytest.fail)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_rows_and_columns_of_json(server, expected):
    wanted = expected(["item 3"])[0]
    rows = {"instances": [{"history": ["item 3"]}, {"history": [""]}]}
    status, answer = post(server, rows)
    assert status == 200
    assert [i.encode() for i in answer["predictions"][0]["ids"]] == wanted
    for bare in ({"instances": [["item 3"]]}, {"inputs": [["item 3"]]}):
        status, answer = post(server, bare)
        assert status == 200
        document = answer.get("outputs") or {"ids": [answer["predictions"][0]["ids"]]}
        assert [i.encode() for i in document["ids"][0]] == wanted
    encoded = {"inputs": {"history": [["item 3", {"b64": "/w=="}]]}}
    assert post(server, encoded)[1]["outputs"]["ids"][0] == [i.decode() for i in wanted]
    single = {"signature_name": "embed_item", "instances": ["item 3", "x"]}
    status, answer = post(server, single)
    assert (status, len(answer["predictions"]), len(answer["predictions"][0])) == (
        200,
        2,
        WIDTH,
    )
    moment = 2**53 + 1  # no float holds it
    timed = {
        "history": [["item 3"]],
        "timestamps": [[moment]],
        "request_time": [moment],
    }
    assert post(server, {"inputs": timed}, "timed")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        {},
        {"instances": []},
        {"instances": [{"history": [3]}]},
        {"instances": [{"history": ["a"]}, {"history": ["a", "b"]}]},
        {"instances": [{"history": ["a"], "x": 1}]},
        {"inputs": {"history": [["a"], "b"]}},
        {"inputs": {"history": [[None]]}},
        {"inputs": {"x": [["a"]]}},
        {"instances": [["a"]], "inputs": [["a"]]},
        {"inputs": [[["a"]]]},
    ],
    ids=repr,
)
def test_json_that_is_refused(server, body):
    status, answer = post(server, body)
    assert status == 400
    assert "error" in answer


def test_floats_for_integers_are_refused(server):
    timed = {"history": [["item 3"]], "timestamps": [[1.5]], "request_time": [1]}
    assert post(server, {"inputs": timed}, "timed")[0] == 400


FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass
class Neighbours:
    """Who asks good questions all the while, and what went wrong with those."""

    wrong: list = field(default_factory=list)
    asked: list = field(default_factory=list)  # how often, of each thread
    others: int = 0  # requests beside theirs


@contextlib.contextmanager
def neighbours_of(server, expected, timed, *ways):
    """Starts one for each way to ask (by tf.Examples or not), of each of two models."""
    neighbours, done = Neighbours(), threading.Event()
    histories = [["item 3", "item 14"], [], ["item 9"]]
    wanted = [[i.decode() for i in expected(history)[0]] for history in histories]
    times = {"timestamps": [[5, 6], [], [7]], "request_times": [8, 8, 8]}

    def ask(model, examples):
        told, right = ({}, wanted) if model == "films" else (times, timed)
        options = {"model": model, "examples": examples, "timeout": 60.0}
        with Client(server.address, **options) as client:
            asked = 0
            while not (asked and done.wait(0.01)):
                asked += 1
                try:
                    answers = client.recommend(histories, **told)
                    if [answer.ids for answer in answers] != right:
                        neighbours.wrong.append(answers)
                except ServerError as error:
                    neighbours.wrong.append(error)
        neighbours.asked.append(asked)

    threads = [
        threading.Thread(target=ask, args=pair)
        for pair in itertools.product(("films", "timed"), ways)
    ]
    for thread in threads:
        thread.start()
    try:
        yield neighbours
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert min(neighbours.asked) > 10


@pytest.fixture(scope="module")
def timed(plain_server):
    """What nobody disturbs is answered to the neighbours who tell times."""
    with Client(plain_server.address, model="timed", timeout=60.0) as client:
        answers = client.recommend(
            [["item 3", "item 14"], [], ["item 9"]],
            timestamps=[[5, 6], [], [7]],
            request_times=[8, 8, 8],
        )
    return [answer.ids for answer in answers]


@pytest.fixture(scope="module")
def neighbours(plain_server, expected, timed):
    with neighbours_of(plain_server, expected, timed, True) as neighbours:
        yield neighbours


@pytest.fixture(scope="module")
def batched_neighbours(merging_server, expected, timed):
    before = merging_server.batches()
    ways = (True, True, False, False)
    with neighbours_of(merging_server, expected, timed, *ways) as neighbours:
        yield neighbours
    run = merging_server.batches() - before
    assert run < 0.9 * (sum(neighbours.asked) + neighbours.others), "few were merged"


def predict(server, model, signature, inputs):
    """The code of the answer, whose rows are as many and whose numbers are finite."""
    with Client(server.address, model=model, timeout=60.0) as client:
        try:
            outputs = client.predict(signature, inputs).outputs
        except ServerError as error:
            return error.code
    rows = {tensor.shape[:1] for tensor in inputs.values()}
    for output in outputs.values():
        # A lone value is taken for a row; unequal numbers of rows may be, too.
        assert len(rows) > 1 or () in rows or output.shape[:1] in rows
        assert_finite(output.values)
    return "OK"


def assert_finite(value):
    """Every number within lists and dictionaries is finite."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            assert_finite(item)
    else:
        assert isinstance(value, str | bytes) or math.isfinite(value)


@FUZZ
@given(asked=generators.right_requests())
def test_any_contents_by_grpc(plain_server, neighbours, asked):
    assert predict(plain_server, *asked) == "OK"
    assert not neighbours.wrong


@FUZZ
@given(asked=generators.wrong_requests())
def test_any_tensors_by_grpc(plain_server, neighbours, asked):
    code = predict(plain_server, *asked)
    assert code in {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION"}
    assert not neighbours.wrong


@FUZZ
@given(asked=generators.bodies())
def test_any_json_by_rest(plain_server, neighbours, asked):
    model, body = asked
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = post(plain_server, content, model)
    assert status in {200, 400, 404}, answer
    if status == 200:
        assert_finite(answer)
    assert not neighbours.wrong


@FUZZ
@given(asked=generators.right_requests(width=64, models=("films", "timed")))
def test_any_contents_in_the_batches_of_others(
    merging_server, batched_neighbours, asked
):
    """What has the right shape spoils no batch, whatever it holds."""
    batched_neighbours.others += 1
    assert predict(merging_server, *asked) == "OK"
    assert not batched_neighbours.wrong
