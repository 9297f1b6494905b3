"""The client without a model server: messages, attempts, deadlines, errors."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest

from tests.ports import free_port
from tfrs_selfattn import InputError
from tfrs_selfattn.client import (
    AsyncClient,
    Client,
    RestClient,
    Retry,
    ServerError,
    Tensor,
    calls,
    connect,
    tensors,
)
from tfrs_selfattn.client.messages import message

FAST = Retry(attempts=4, first=0.01, seed=0)
STATUS = grpc.StatusCode

IMPORTS = """
import sys
from tfrs_selfattn import client
for name in client.__all__:
    getattr(client, name)
heavy = {"tensorflow", "numpy", "keras", "tf_keras", "polars"} & set(sys.modules)
assert not heavy, heavy
"""

WITH_THE_REAL_PROTOS = """
import sys
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorflow_serving.apis import predict_pb2
from tfrs_selfattn.client import Tensor, calls, tensors
from tfrs_selfattn.client.grpc_wire import predict_request
from tfrs_selfattn.client.messages import message

inputs = {
    "a": Tensor("string", (2, 2), [b"x", b"", b"\\xff", b"y"]),
    "b": Tensor("int64", (3,), [1, -(2**60), 0]),
    "c": Tensor("float32", (1, 2), [0.5, -2.0]),
    "d": Tensor("int32", (0, 4), []),
}
ours = predict_request("m", 3, "s", inputs).SerializeToString(deterministic=True)
real = predict_pb2.PredictRequest.FromString(ours)
assert (real.model_spec.name, real.model_spec.version.value) == ("m", 3)
assert real.model_spec.signature_name == "s"
for name, tensor in inputs.items():
    array = tf.make_ndarray(real.inputs[name])
    assert array.shape == tensor.shape and array.reshape(-1).tolist() == tensor.values
real.DiscardUnknownFields()
assert real.SerializeToString(deterministic=True) == ours
labelled = predict_request("m", "stable", "s", {}).SerializeToString()
real = predict_pb2.PredictRequest.FromString(labelled)
assert real.model_spec.version_label == "stable"

# Each form in which TensorFlow writes tensors.
for array in (
    np.arange(6, dtype=np.int64).reshape(2, 3), np.full([4], 7, np.int32),
    np.array([[1.5, 2.5]], np.float32), np.zeros([3, 2], np.float32),
    np.array([b"a", b"bc"], object), np.zeros([0, 3], np.int64),
):
    proto = tf.make_tensor_proto(array, tf.string if array.dtype == object else None)
    encoded = proto.SerializeToString()
    read = tensors.from_proto(message("TensorProto").FromString(encoded))
    assert read.shape == array.shape and read.values == array.reshape(-1).tolist()
    assert read.dtype == tf.as_dtype(array.dtype).name

example = tf.train.Example.FromString(
    tensors.example({"history": [b"a", b""]}, {"timestamps": [5], "request_time": []})
)
assert example.features.feature["history"].bytes_list.value[:] == [b"a", b""]
assert example.features.feature["timestamps"].int64_list.value[:] == [5]
assert example.features.feature["request_time"].WhichOneof("kind") == "int64_list"

status = get_model_status_pb2.GetModelStatusResponse()
version = status.model_version_status.add(version=4, state=50)
version.status.error_message = "no"
ours = message("GetModelStatusResponse").FromString(status.SerializeToString())
(read,) = ours.model_version_status
assert (read.version, read.state, read.status.error_message) == (4, 50, "no")
"""


def test_no_tensorflow_in_the_clients_process(run_python):
    done = run_python("-c", IMPORTS)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_serving") is None,
    reason="needs tensorflow-serving-api, which the package does not",
)
def test_the_messages_are_those_of_the_real_protos(run_python):
    done = run_python("-c", WITH_THE_REAL_PROTOS)
    assert done.returncode == 0, done.stdout


def answer(version=1):
    response = message("PredictResponse")()
    tensors.to_proto(
        Tensor("string", (1, 3), [b"a", b"b", b""]), response.outputs["ids"]
    )
    scores = Tensor("float32", (1, 3), [2.0, 1.0, -3e38])
    tensors.to_proto(scores, response.outputs["scores"])
    response.model_spec.version.value = version
    return response


class Scripted(grpc.GenericRpcHandler):
    """A server that does what the script says, call by call, then answers."""

    def __init__(self, script, pause=0.0):
        self.script, self.asked, self.pause = list(script), [], pause

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(
            self.respond,
            request_deserializer=message("PredictRequest").FromString,
            response_serializer=message("PredictResponse").SerializeToString,
        )

    def respond(self, request, context):
        self.asked.append(request)
        time.sleep(self.pause)
        if self.script:
            context.abort(*self.script.pop(0))
        return answer()


@pytest.fixture
def scripted():
    servers = []

    def scripted(*script, pause=0.0):
        handler = Scripted(script, pause)
        limits = [("grpc.max_receive_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(4), [handler], options=limits)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        handler.address = f"127.0.0.1:{port}"
        return handler

    yield scripted
    for server in servers:
        server.stop(None).wait()


BUSY = (STATUS.UNAVAILABLE, "busy")
NO_THREAD = (STATUS.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")


def ask(address, kind=Client, **options):
    options = {"retry": FAST, **options}
    if kind is AsyncClient:

        async def ask_it():
            async with AsyncClient(address, **options) as client:
                return await client.recommend([["x"]])

        return asyncio.run(ask_it())
    with kind(address, **options) as client:
        return client.recommend([["x"]])


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("trouble", [BUSY, NO_THREAD])
def test_what_may_pass_is_tried_again(scripted, kind, trouble):
    server = scripted(trouble, trouble)
    (recommended,) = ask(server.address, kind)
    assert recommended.ids == ["a", "b"]
    assert [item.score for item in recommended.items] == [2.0, 1.0]
    assert len(server.asked) == 3


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_attempts_come_to_an_end(scripted, kind):
    server = scripted(*[BUSY] * 9)
    with pytest.raises(
        ServerError, match=r"UNAVAILABLE from .* after 4 attempts: busy\. Start"
    ):
        ask(server.address, kind)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    "trouble",
    [
        (STATUS.INVALID_ARGUMENT, "no"),
        (STATUS.NOT_FOUND, "no"),
        (STATUS.INTERNAL, "no"),
        (STATUS.DEADLINE_EXCEEDED, "no"),
        (STATUS.RESOURCE_EXHAUSTED, "message larger than max"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(scripted, trouble):
    server = scripted(trouble)
    with pytest.raises(
        ServerError, match=f"Received: {trouble[0].name} from"
    ) as raised:
        ask(server.address)
    assert (raised.value.attempts, len(server.asked)) == (1, 1)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.code) == (str(raised.value), trouble[0].name)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_deadline_holds_for_all_attempts(scripted, kind):
    server = scripted(pause=2.0)
    started = time.monotonic()
    with pytest.raises(ServerError, match=r"DEADLINE_EXCEEDED.*Raise `timeout`"):
        ask(server.address, kind, timeout=0.2)
    assert time.monotonic() - started < 1.9
    server = scripted(*[BUSY] * 50)
    with pytest.raises(ServerError, match="UNAVAILABLE"):
        ask(server.address, kind, timeout=0.3, retry=Retry(attempts=50, first=0.1))
    assert 1 < len(server.asked) < 20


def test_a_server_that_is_not_there():
    for address, kind in (
        (f"127.0.0.1:{free_port()}", Client),
        (f"http://127.0.0.1:{free_port()}", RestClient),
    ):
        with pytest.raises(
            ServerError, match=r"UNAVAILABLE .* Start the server"
        ) as raised:
            ask(address, kind)
        assert raised.value.attempts == 4


def test_large_answers_pass(scripted, monkeypatch):
    """More than the 4 MiB that gRPC takes unless told otherwise."""
    server = scripted()
    large = answer()
    many = Tensor("string", (1, 100), [b"x" * 60_000] * 100)
    tensors.to_proto(many, large.outputs["more"])
    monkeypatch.setattr(server, "respond", lambda request, context: large)
    with Client(server.address) as client:
        inputs = {"history": Tensor("string", (1, 100), [b"y" * 60_000] * 100)}
        outputs = client.predict("serving_default", inputs).outputs
    assert outputs["more"].values[-1] == b"x" * 60_000


def test_pauses_grow_and_are_random():
    retry = Retry(attempts=6, first=0.1, longest=0.5)
    draws = [list(retry.pauses()) for _ in range(200)]
    largest = [max(column) for column in zip(*draws, strict=True)]
    for value, limit in zip(largest, [0.1, 0.2, 0.4, 0.5, 0.5], strict=True):
        assert 0.8 * limit < value <= limit
    assert list(Retry(seed=1).pauses()) == list(Retry(seed=1).pauses())
    assert list(Retry(attempts=1).pauses()) == []


class Rest(BaseHTTPRequestHandler):
    """Closes each connection after an answer, without saying so beforehand."""

    protocol_version = "HTTP/1.1"
    script, bodies = [], []

    def log_message(self, *_):
        pass

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.bodies.append(json.loads(self.rfile.read(length)))
        status, content = self.script.pop(0) if self.script else (200, GOOD)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


GOOD = b'{"outputs": {"scores": [[2.0, 1, -3e38]], "ids": [["a", "b", ""]]}}'


@pytest.fixture
def rest():
    handler = type("Handler", (Rest,), {"script": [], "bodies": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_rest_tries_again_and_finds_closed_connections(rest):
    rest.script += [
        (503, b'{"error": "busy"}'),
        (429, b'{"error": "Threadpool Exhausted"}'),
    ]
    with RestClient(rest.address, retry=FAST) as client:
        for _ in range(3):
            assert client.recommend([["x"]])[0].ids == ["a", "b"]
    assert len(rest.bodies) == 5


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (400, b'{"error": "bad shape"}', "INVALID_ARGUMENT .*: bad shape"),
        (404, b"no such page", "NOT_FOUND .*: no such page"),
        (418, b"{}", "HTTP 418"),
        (200, b"<html>", "UNKNOWN .*<html>"),
    ],
)
def test_what_rest_refuses_is_told(rest, status, content, message):
    rest.script.append((status, content))
    with pytest.raises(ServerError, match=message):
        ask(rest.address, RestClient)
    assert len(rest.bodies) == 1


def test_ids_of_any_bytes_travel_in_json(rest):
    with RestClient(rest.address, examples=False, width=1) as client:
        client.recommend([["ü", b"\xff", 'say "x"', "\udcff"], []])
    (body,) = rest.bodies
    encoded = {"b64": "/w=="}
    assert body == {
        "signature_name": "serving_default",
        "inputs": {"history": [["", "ü", encoded, 'say "x"', encoded], [""] * 5]},
    }


def test_every_matrix_begins_with_padding_and_has_a_coarse_width():
    """So that a server that pads with first elements pads with nothing."""
    rows = [["a"] * 70, [], ["b"]]
    among = [["c"], [], []]
    call = calls.recommend(rows, None, among, calls.About(), examples=True, width=64)
    assert call.signature == "recommend_among"
    history, among = call.inputs["history"], call.inputs["candidates"]
    assert (history.shape, among.shape) == ((3, 128), (3, 64))
    assert [row[0] for row in history.rows() + among.rows()] == [b""] * 6
    assert history.rows()[2] == [b"", b"b", *[b""] * 126]
    times = calls.times_of([["a"], []], [[5], []], [9, 9])
    call = calls.embed_query([["a"], []], calls.About(times), width=2)
    assert call.inputs["timestamps"] == Tensor("int64", (2, 2), [0, 5, 0, 0])
    nothing = calls.About(calls.times_of([[]], [[]], [9]))
    call = calls.embed_query([[]], nothing, width=1)
    assert call.inputs["timestamps"].dtype == "int64"


def test_nothing_is_asked_about_nobody():
    with Client(f"127.0.0.1:{free_port()}") as client:
        assert client.recommend([]) == client.embed_items([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histories": "item 3"}, "`histories` must hold lists of item ids"),
        ({"histories": ["item 3"]}, r"use \[\[\"id1\", \"id2\"\]\]"),
        ({"histories": [[3]]}, "item ids, which are strings. Received: 3"),
        ({"exclude": [[], []]}, "a list for each history. Received: 2 for 1"),
        ({"exclude": [[]], "among": [[]]}, "must not be given together"),
        ({"timestamps": [[1, 2]]}, "one time for each item"),
        ({"timestamps": [[1.5]]}, "Unix seconds, integers. Received: 1.5"),
        ({"timestamps": [[1]], "request_times": [1, 2]}, "Received: 2 for 1"),
        ({"request_times": [1]}, "`timestamps` must come with"),
    ],
)
def test_questions_that_make_no_sense(options, message):
    client = Client(f"127.0.0.1:{free_port()}")
    with client, pytest.raises(InputError, match=message):
        client.recommend(**{"histories": [["a"]], **options})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RestClient("localhost:8501"), "must be http://HOST:PORT"),
        (lambda: Client("x:1", timeout=0), "`timeout` must be a positive"),
        (lambda: Client("x:1", width=0), "`width` must be a positive integer"),
        (lambda: Retry(attempts=0), "`attempts` must be a positive integer"),
        (lambda: Retry(first=-1), "`first` must be a positive"),
    ],
)
def test_arguments_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_form_of_an_address_chooses_the_client():
    with connect("http://localhost:1") as rest, connect("localhost:1") as grpc_client:
        assert (type(rest), type(grpc_client)) == (RestClient, Client)
