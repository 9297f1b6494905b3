"""The REST side of the stand-in: rows and columns, and what JSON cannot say."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import tensorflow as tf
from errors import HTTP_STATUS, Refusal
from google.protobuf import json_format
from models import STATES, shuffled

PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<rest>|/metadata|:predict)"
)


def start_rest(manager, port):
    handler = type("Handler", (Handler,), {"manager": manager})
    server = ThreadingHTTPServer(("127.0.0.1", port or 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Handler(BaseHTTPRequestHandler):
    manager = None
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/monitoring/prometheus/metrics":
            lines = [
                f':tensorflow:serving:request_count{{model_name="{name}"}} {count}'
                for name, count in self.manager.requests.items()
            ]
            size = ":tensorflow:serving:batching_session:processed_batch_size"
            lines.append(f"{size}_sum{{}} {self.manager.tally.rows}")
            lines.append(f"{size}_count{{}} {self.manager.tally.batches}")
            self._send(200, "\n".join([*lines, ""]).encode(), "text/plain")
            return
        self._answer(self._get)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(lambda: self._predict(body))

    def _answer(self, work):
        try:
            status, document = 200, work()
        except Refusal as refusal:
            status = HTTP_STATUS.get(refusal.code, 500)
            document = {"error": refusal.details}
        except Exception as error:  # a bug here must not look like an answer
            status, document = 500, {"error": f"{type(error).__name__}: {error}"}
        text = json.dumps(document, ensure_ascii=False, indent=1)
        self._send(status, text.encode("utf-8", "surrogateescape"), "application/json")

    def _send(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _parts(self, verb):
        found = PATH.fullmatch(self.path)
        if not found or (found["rest"] == ":predict") != (verb == "POST"):
            raise Refusal("INVALID_ARGUMENT", f"Malformed request: {verb} {self.path}")
        number = None if found["version"] is None else int(found["version"])
        return found["name"], number, found["label"], found["rest"]

    def _get(self):
        name, number, label, rest = self._parts("GET")
        if rest == "/metadata":
            with self.manager.model(name).choose(number, label) as version:
                definitions = {
                    key: json_format.MessageToDict(
                        signature, preserving_proto_field_name=True
                    )
                    for key, signature in version.signatures.items()
                }
                return {
                    "model_spec": {"name": name, "version": str(version.number)},
                    "metadata": {"signature_def": {"signature_def": definitions}},
                }
        return {
            "model_version_status": [
                {
                    "version": str(version.number),
                    "state": STATES[version.state],
                    "status": {
                        "error_code": "UNKNOWN" if version.error else "OK",
                        "error_message": version.error,
                    },
                }
                for version in self.manager.status(name, number)
            ]
        }

    def _predict(self, body):
        name, number, label, _ = self._parts("POST")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {error}") from None
        if not isinstance(document, dict):
            raise Refusal("INVALID_ARGUMENT", "JSON Value: not an object")
        signature = document.get("signature_name", "serving_default")
        if not isinstance(signature, str):
            raise Refusal("INVALID_ARGUMENT", "'signature_name' must be a string")
        with self.manager.model(name).choose(number, label) as version:
            if signature not in version.signatures:
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f'Serving signature name: "{signature}" not found',
                )
            specs = version.signatures[signature].inputs
            if ("instances" in document) == ("inputs" in document):
                raise Refusal(
                    "INVALID_ARGUMENT", "Expected one of 'instances' and 'inputs'"
                )
            rows = "instances" in document
            columns = (
                from_rows(document["instances"], specs)
                if rows
                else from_columns(document["inputs"], specs)
            )
            arrays = {
                key: to_array(value, tf.as_dtype(specs[key].dtype), key)
                for key, value in columns.items()
            }
            _, outputs = self.manager.predict(
                name, version.number, None, signature, arrays
            )
        values = {key: to_json(key, value) for key, value in outputs.items()}
        if not rows:
            only = next(iter(values.values())) if len(values) == 1 else None
            return {"outputs": shuffled(values) if only is None else only}
        if len({len(value) for value in values.values()}) > 1:
            raise Refusal("INVALID_ARGUMENT", "outputs differ in their 0th dimension")
        if len(values) == 1:
            return {"predictions": next(iter(values.values()))}
        count = len(next(iter(values.values())))
        return {
            "predictions": [
                shuffled({key: value[row] for key, value in values.items()})
                for row in range(count)
            ]
        }


def from_columns(inputs, specs):
    if isinstance(inputs, dict) and "b64" not in inputs:
        for key in specs:
            if key not in inputs:
                raise Refusal("INVALID_ARGUMENT", f"Missing named input: {key}")
        return {key: inputs[key] for key in specs}  # what else there is, is passed over
    if len(specs) != 1:
        raise Refusal("INVALID_ARGUMENT", "inputs must be named")
    return {next(iter(specs)): inputs}


def from_rows(rows, specs):
    if not isinstance(rows, list) or not rows:
        raise Refusal("INVALID_ARGUMENT", "instances must be a list that is not empty")
    if all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
        for row in rows:
            if set(row) != set(specs):
                raise Refusal(
                    "INVALID_ARGUMENT", f"an instance must have {sorted(specs)}"
                )
        return {key: [row[key] for row in rows] for key in specs}
    if len(specs) != 1:
        raise Refusal("INVALID_ARGUMENT", "instances must be objects")
    return {next(iter(specs)): rows}


def to_array(value, dtype, key):
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    flat = []
    flatten(value, shape, 0, flat)
    array = np.empty(len(flat), dtype.as_numpy_dtype)
    for place, leaf in enumerate(flat):
        array[place] = to_scalar(leaf, dtype, key)
    return array.reshape(shape)


def flatten(value, shape, depth, flat):
    if isinstance(value, list):
        if depth == len(shape) or len(value) != shape[depth]:
            raise Refusal("INVALID_ARGUMENT", "Encountered list at unexpected size")
        for item in value:
            flatten(item, shape, depth + 1, flat)
    elif depth != len(shape):
        raise Refusal("INVALID_ARGUMENT", "Tensor must be dense")
    else:
        flat.append(value)


def to_scalar(leaf, dtype, key):
    refusal = Refusal(
        "INVALID_ARGUMENT",
        f"JSON Value: {leaf!r} not of expected type: {dtype.name} ({key})",
    )
    if dtype == tf.string:
        if isinstance(leaf, str):
            return leaf.encode("utf-8", "surrogatepass")
        if isinstance(leaf, dict) and set(leaf) == {"b64"}:
            try:
                return base64.b64decode(leaf["b64"], validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise refusal from None
        raise refusal
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        raise refusal
    if dtype.is_integer and (
        not isinstance(leaf, int) or not dtype.min <= leaf <= dtype.max
    ):
        raise refusal
    return leaf


def to_json(key, array):
    if array.dtype != object:
        return array.tolist()
    if key.endswith("_bytes"):
        return nested(array, lambda v: {"b64": base64.b64encode(v).decode()})
    return nested(array, lambda v: v.decode("utf-8", "surrogateescape"))


def nested(array, convert):
    if array.ndim == 0:
        return convert(array.item())
    return [nested(np.asarray(part, object), convert) for part in array]
