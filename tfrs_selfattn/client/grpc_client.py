"""A client over gRPC."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]

from tfrs_selfattn._checks import check_positive, check_positive_int
from tfrs_selfattn.client.answers import Prediction, Signature, VersionStatus
from tfrs_selfattn.client.grpc_wire import (
    DEFAULT_TIMEOUT,
    DEFAULT_WIDTH,
    METADATA,
    PREDICT,
    STATUS,
    Method,
    attempts,
    metadata_request,
    multicallable,
    open_channel,
    predict_request,
    read_prediction,
    read_signatures,
    read_status,
    status_request,
)
from tfrs_selfattn.client.methods import Methods
from tfrs_selfattn.client.retry import Retry
from tfrs_selfattn.client.tensors import Tensor


class Client(Methods):
    """Asks a model server over gRPC; may be used from several threads.

    Args:
        address: str. `HOST:PORT` of the server's gRPC port.
        model: str. The name that the server gives the model. Defaults to
            `"recommender"`.
        version: int, str or None. A version by number, or by its label (`"stable"`).
            None takes the newest. Defaults to `None`.
        timeout: float. Seconds for a call, with all its attempts. Defaults to `5.0`.
        retry: `Retry` or None. None takes `Retry()`. Defaults to `None`.
        credentials: `grpc.ChannelCredentials` or None. For a server with TLS. Defaults
            to `None`.
        examples: bool. Send histories and exclusions as tf.Examples, which a batching
            server always merges. False sends matrices, a little faster for a server
            that does not batch. Defaults to `True`.
        width: int. Matrices have a multiple of so many columns, because a batching
            server merges only equal widths. Defaults to `64`.

    Raises:
        ServerError: by each method, when there is no answer within `timeout`.

    Example:

        with Client("localhost:8500", model="films") as client:
            for answer in client.recommend([["50", "172", "181"]]):
                print(answer.version, answer.ids[:3])
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "recommender",
        version: int | str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry | None = None,
        credentials: Any = None,
        examples: bool = True,
        width: int = DEFAULT_WIDTH,
    ) -> None:
        width = check_positive_int("width", width)
        super().__init__(address, examples=examples, width=width)
        self.model = model
        self.version = version
        self.timeout = check_positive("timeout", timeout)
        self.retry = Retry() if retry is None else retry
        self._channel = open_channel(grpc, address, credentials)

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Tensor],
        *,
        version: int | None = None,
    ) -> Prediction:
        asked = self.version if version is None else version
        request = predict_request(self.model, asked, signature, inputs)
        return read_prediction(self._call(PREDICT, request))

    def status(self) -> list[VersionStatus]:
        request = status_request(self.model, self.version)
        return read_status(self._call(STATUS, request))

    def signatures(self) -> dict[str, Signature]:
        request = metadata_request(self.model, self.version)
        return read_signatures(self._call(METADATA, request))

    def close(self) -> None:
        self._channel.close()

    def _call(self, method: Method, request: Any) -> Any:
        ask = multicallable(self._channel, method)
        for attempt in attempts(self.address, self.timeout, self.retry):
            try:
                return ask(request, timeout=attempt.seconds_left())
            except grpc.RpcError as error:
                attempt.fail(error)
            time.sleep(attempt.pause)
        raise AssertionError  # the last attempt has raised
