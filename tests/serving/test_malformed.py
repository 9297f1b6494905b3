"""Requests no client of ours would send: refused or answered, never felt by others."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import urllib.error
import urllib.request

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.export.tiny import WIDTH, answers_of
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import Client, ServerError, Tensor, tensors

pytestmark = needs_server

# `TFRS_SELFATTN_FUZZ=10000 pytest tests/serving/test_malformed.py` takes minutes.
EXAMPLES = int(os.environ.get("TFRS_SELFATTN_FUZZ", "450")) // 3


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
            return response.status, json.loads(response.read())
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


SIGNATURES = (
    "serving_default",
    "recommend_excluding",
    "recommend_among",
    "tf_example",
    "embed_query",
    "embed_item",
    "nothing",
)
NAMES = st.sampled_from(
    ["history", "exclude", "candidates", "examples", "item", "timestamps", "x"]
)
ID = st.one_of(
    st.sampled_from([b"item 3", b"item 14", b"", b"nothing", b"\xff\xfe", b"\x00"]),
    st.binary(max_size=40),
)


MOMENT = st.integers(-(2**63), 2**63 - 1)
# Good ones, ones with features of the wrong type, and any of them cut short.
EXAMPLE = st.builds(
    lambda ids, times, cut: tensors.example(ids, times)[: cut or None],
    st.dictionaries(
        st.sampled_from(["history", "exclude", "x", "timestamps"]),
        st.lists(ID, max_size=4),
    ),
    st.dictionaries(
        st.sampled_from(["timestamps", "request_time", "history"]),
        st.lists(MOMENT, max_size=4),
    ),
    st.sampled_from([0, 0, -1, -3, 5]),
)


@st.composite
def any_tensors(draw):
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = 1
    for length in shape:
        size *= length
    kind = draw(st.sampled_from(["string", "string", "string", "int64", "float32"]))
    element = {
        "string": ID,
        "int64": MOMENT,
        "float32": st.floats(width=32),
    }[kind]
    values = draw(st.lists(element, min_size=size, max_size=size))
    return Tensor(kind, shape, values)


INPUTS = st.dictionaries(NAMES, any_tensors(), max_size=3)
LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.just({"b64": "/w=="}),
    st.just({"b64": "?"}),
)
NESTED = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=9)
BODIES = st.one_of(
    st.binary(max_size=60),
    NESTED,
    st.fixed_dictionaries(
        {},
        optional={
            "signature_name": st.one_of(st.sampled_from(SIGNATURES), LEAF),
            "inputs": st.one_of(NESTED, st.dictionaries(NAMES, NESTED, max_size=3)),
            "instances": st.one_of(
                NESTED, st.lists(st.dictionaries(NAMES, NESTED, max_size=3), max_size=3)
            ),
        },
    ),
)

FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def plain_server(exports, start):
    """Does not batch: a batch of tensors of different shapes fails as a whole there."""
    models = {name: exports.bases[name] for name in ("films", "timed", "index")}
    return start(models).wait(*models)


@contextlib.contextmanager
def neighbours_of(server, expected):
    """Asks good questions all the while; yields what went wrong with them."""
    wrong, asked, done = [], [], threading.Event()
    histories = [["item 3", "item 14"], [], ["item 9"]]
    wanted = [[i.decode() for i in expected(history)[0]] for history in histories]

    def ask():
        with Client(server.address, model="films", timeout=60.0) as client:
            while not done.is_set():
                try:
                    answers = client.recommend(histories)
                    if [answer.ids for answer in answers] != wanted:
                        wrong.append(answers)
                except ServerError as error:
                    wrong.append(error)
                asked.append(1)
                done.wait(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield wrong
    finally:
        done.set()
        thread.join()
    assert len(asked) > 10


@pytest.fixture(scope="module")
def neighbours(plain_server, expected):
    with neighbours_of(plain_server, expected) as wrong:
        yield wrong


@pytest.fixture(scope="module")
def batched_neighbours(server, expected):
    with neighbours_of(server, expected) as wrong:
        yield wrong


def predict(server, model, signature, inputs):
    """The code of the answer, whose numbers must be finite."""
    with Client(server.address, model=model, timeout=60.0) as client:
        try:
            outputs = client.predict(signature, inputs).outputs
        except ServerError as error:
            return error.code
    assert_finite(outputs)
    return "OK"


@FUZZ
@given(
    model=st.sampled_from(["films", "films", "timed", "index"]),
    signature=st.sampled_from(SIGNATURES),
    inputs=INPUTS,
)
def test_any_tensors_by_grpc(plain_server, neighbours, model, signature, inputs):
    code = predict(plain_server, model, signature, inputs)
    assert code in {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION"}
    assert not neighbours


@FUZZ
@given(body=BODIES)
def test_any_json_by_rest(plain_server, neighbours, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = post(plain_server, content)
    assert status in {200, 400, 404}, answer
    assert not neighbours


@FUZZ
@given(rows=st.lists(st.one_of(ID, EXAMPLE), min_size=1, max_size=4))
def test_any_examples_in_the_same_batches(server, batched_neighbours, rows):
    """What has the right shape spoils no batch, whatever it holds."""
    examples = Tensor("string", (len(rows),), rows)
    for model in ("films", "timed"):
        assert predict(server, model, "tf_example", {"examples": examples}) == "OK"
    assert predict(server, "films", "embed_item", {"item": examples}) == "OK"
    assert not batched_neighbours


def assert_finite(outputs):
    for output in outputs.values():
        for value in output.values:
            assert isinstance(value, bytes) or abs(value) < float("inf")
