"""A client over HTTP, with nothing but Python's own library."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from tfrs_selfattn._checks import InputError, check_positive, check_positive_int
from tfrs_selfattn.client.answers import (
    Prediction,
    Signature,
    TensorSpec,
    VersionStatus,
)
from tfrs_selfattn.client.errors import ServerError
from tfrs_selfattn.client.methods import Methods
from tfrs_selfattn.client.retry import Retry, is_transient
from tfrs_selfattn.client.tensors import Tensor, from_json, to_json

_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# A server leaves out the name of an output that is the only one of its signature.
_SINGLE_OUTPUTS = {"explain": "contribution"}


class RestClient(Methods):
    """Asks a model server over HTTP; may be used from several threads.

    Strings travel as JSON strings, those that are no UTF-8 as `{"b64": …}`, requests
    and answers in columns. An answer does not say which version it comes from.

    Args:
        address: str. `http://HOST:PORT` of the server's REST port, or `https://…`.
        model: str. The name that the server gives the model. Defaults to
            `"recommender"`.
        version: int, str or None. As in `Client`. Defaults to `None`.
        timeout: float. Seconds for a call, with all its attempts. Defaults to `5.0`.
        retry: `Retry` or None. None takes `Retry()`. Defaults to `None`.
        examples: bool. As in `Client`. Defaults to `True`.
        width: int. As in `Client`. Defaults to `64`.

    Raises:
        ServerError: by each method, when there is no answer within `timeout`.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "recommender",
        version: int | str | None = None,
        timeout: float = 5.0,
        retry: Retry | None = None,
        examples: bool = True,
        width: int = 64,
    ) -> None:
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise InputError(
                "`address` must be http://HOST:PORT or https://HOST:PORT. Received: "
                f"{address!r}. Name the server's REST port, 8501 by default."
            )
        width = check_positive_int("width", width)
        super().__init__(address, examples=examples, width=width)
        self.model = model
        self.version = version
        self.timeout = check_positive("timeout", timeout)
        self.retry = Retry() if retry is None else retry
        self._secure = url.scheme == "https"
        self._host = url.netloc
        self._model_path = f"{url.path.rstrip('/')}/v1/models/{quote(model, safe='')}"
        self._path = self._model_path
        if isinstance(version, str):
            self._path += f"/labels/{quote(version, safe='')}"
        elif version is not None:
            self._path += f"/versions/{version}"
        self._idle: list[Any] = []  # open connections that nobody uses just now
        self._lock = threading.Lock()

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Tensor],
        *,
        version: int | None = None,
    ) -> Prediction:
        body = {
            "signature_name": signature,
            "inputs": {name: to_json(tensor) for name, tensor in inputs.items()},
        }
        path = self._path
        if version is not None:
            path = f"{self._model_path}/versions/{version}"
        sent = json.dumps(body).encode()
        outputs = self._call("POST", f"{path}:predict", sent)["outputs"]
        if not isinstance(outputs, dict):
            outputs = {_SINGLE_OUTPUTS.get(signature, "embedding"): outputs}
        return Prediction({n: from_json(value) for n, value in outputs.items()}, None)

    def status(self) -> list[VersionStatus]:
        return [
            VersionStatus(
                int(status["version"]),
                status["state"],
                status.get("status", {}).get("error_message", ""),
            )
            for status in self._call("GET", self._path, None)["model_version_status"]
        ]

    def signatures(self) -> dict[str, Signature]:
        metadata = self._call("GET", f"{self._path}/metadata", None)["metadata"]
        definitions = metadata["signature_def"]["signature_def"]
        return {
            name: Signature(_read_specs(value["inputs"]), _read_specs(value["outputs"]))
            for name, value in definitions.items()
            if not name.startswith("__")
        }

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(self, verb: str, path: str, body: bytes | None) -> Any:
        deadline = time.monotonic() + self.timeout
        for attempt, pause in enumerate((*self.retry.pauses(), None), start=1):
            left = deadline - time.monotonic()
            try:
                return self._send(verb, path, body, max(left, 0.001))
            except ServerError as error:
                out_of_time = deadline - time.monotonic() <= (pause or 0.0)
                if pause is None or out_of_time or not is_transient(error):
                    raise ServerError(
                        error.code, error.details, self.address, attempt
                    ) from None
                time.sleep(pause)
        raise AssertionError  # the last attempt has raised

    def _send(self, verb: str, path: str, body: bytes | None, timeout: float) -> Any:
        connection, kept = self._take(timeout)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            connection.request(verb, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if isinstance(error, TimeoutError):
                raise self._error("DEADLINE_EXCEEDED", "no answer in time") from None
            if kept:  # The server had closed a connection that was kept open.
                return self._send(verb, path, body, timeout)
            raise self._error("UNAVAILABLE", str(error) or repr(error)) from None
        self._give_back(connection)
        return self._read(response.status, content)

    def _read(self, status: int, content: bytes) -> Any:
        try:
            document = json.loads(content)
        except ValueError:
            document = None
        if status == 200 and isinstance(document, dict):
            return document
        details = content.decode("utf-8", "replace")
        if isinstance(document, dict):
            details = str(document.get("error", document))
        code = "UNKNOWN" if status == 200 else _CODES.get(status, f"HTTP {status}")
        raise self._error(code, details)

    def _take(self, timeout: float) -> tuple[Any, bool]:
        """A connection for one request, and whether it was used before."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(timeout)
            return connection, True
        if self._secure:
            return http.client.HTTPSConnection(self._host, timeout=timeout), False
        return http.client.HTTPConnection(self._host, timeout=timeout), False

    def _give_back(self, connection: Any) -> None:
        if connection.sock is None:  # the server asked to close it
            return
        with self._lock:
            self._idle.append(connection)

    def _error(self, code: str, details: str) -> ServerError:
        return ServerError(code, details, self.address)


def _read_specs(infos: Any) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            info["dtype"].removeprefix("DT_").lower().replace("float", "float32"),
            tuple(
                size if (size := int(dim["size"])) >= 0 else None
                for dim in info["tensor_shape"].get("dim", ())
            ),
        )
        for name, info in infos.items()
    }
