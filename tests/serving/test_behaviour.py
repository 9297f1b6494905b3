"""What a server is known to do, helpful or not: the stand-in must do it too."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from tests.serving import model_server
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import Client, RestClient, ServerError, Tensor

pytestmark = needs_server


def post(server, model, body):
    """The text of an answer by REST."""
    url = f"{server.rest_address}/v1/models/{model}:predict"
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read().decode()


@pytest.mark.parametrize("kind", ["server", "plain_server"])
def test_a_wrong_inner_dimension_reaches_the_matrix_product(request, kind):
    """It is compared with no signature: what the graph says of it is the answer."""
    server = request.getfixturevalue(kind)
    inputs = {
        "embedding": Tensor("float32", (2, 4), [0.0] * 8),
        "exclude": Tensor("string", (2, 1), [b""] * 2),
    }
    for client in (
        Client(server.address, model="index", timeout=60),
        RestClient(server.rest_address, model="index", timeout=60),
    ):
        with client, pytest.raises(ServerError, match=r"INVALID.*4\b.*\b8\b") as raised:
            client.predict("search", inputs)
        assert "atri" in raised.value.details  # Matrix size-incompatible


def test_without_batching_any_number_of_rows_is_answered(plain_server):
    rows = 1100  # over the max_batch_size of a server that batches
    with Client(plain_server.address, model="films", timeout=60) as client:
        history = {"history": Tensor("string", (rows, 1), [b"item 3"] * rows)}
        outputs = client.predict("serving_default", history).outputs
    assert outputs["ids"].shape[0] == rows


def test_a_key_that_no_input_has_is_passed_over_in_columns(plain_server):
    inputs = {"history": [["item 3"]], "x": 7}
    assert json.loads(post(plain_server, "films", {"inputs": inputs}))["outputs"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(plain_server, "films", {"instances": [{"history": ["item 3"], "x": 7}]})


def test_columns_of_json_come_in_no_order_to_rely_on(plain_server):
    if model_server.STOCK:
        pytest.skip("a stock server may keep to one for long")
    orders = set()
    for _ in range(50):
        answer = json.loads(post(plain_server, "films", {"inputs": [["item 3"]]}))
        orders.add(tuple(answer["outputs"]))
    assert orders == {("ids", "scores"), ("scores", "ids")}


def test_outputs_named_bytes_are_encoded(plain_server):
    """So an output of ids must not be named so."""
    answer = json.loads(post(plain_server, "encoded", {"instances": ["a"]}))
    assert answer["predictions"] == [{"copy": "a", "copy_bytes": {"b64": "YSE="}}]
    with RestClient(plain_server.rest_address, model="encoded", timeout=60) as client:
        text = {"text": Tensor("string", (1,), ["ü".encode()])}
        outputs = client.predict("serving_default", text).outputs
    assert outputs["copy_bytes"].values == ["ü!".encode()]


def test_a_model_with_an_unknown_op_is_available_until_it_is_asked(plain_server):
    """Why every export has warm-up records: with one it would not have loaded."""
    with Client(plain_server.address, model="unknown", timeout=60) as client:
        assert client.status()[0].state == "AVAILABLE"
        text = {"text": Tensor("string", (1,), [b"a"])}
        with pytest.raises(ServerError, match="Op type not registered 'NoSuchOp'"):
            client.predict("serving_default", text)
