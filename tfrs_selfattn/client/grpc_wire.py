"""What both gRPC clients say and read: methods, channel, attempts, messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tfrs_selfattn.client.answers import (
    Prediction,
    Signature,
    TensorSpec,
    VersionStatus,
)
from tfrs_selfattn.client.errors import ServerError
from tfrs_selfattn.client.messages import message
from tfrs_selfattn.client.retry import Retry, is_transient
from tfrs_selfattn.client.tensors import DTYPES, Tensor, from_proto, to_proto

DEFAULT_TIMEOUT = 5.0
# A client takes 4 MiB unless told otherwise, a server whatever comes.
DEFAULT_MESSAGE_BYTES = 64 * 2**20
DEFAULT_WIDTH = 64

_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


class Method(NamedTuple):
    path: str
    request: str
    response: str


PREDICT = Method(
    "/tensorflow.serving.PredictionService/Predict",
    "PredictRequest",
    "PredictResponse",
)
METADATA = Method(
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
)
STATUS = Method(
    "/tensorflow.serving.ModelService/GetModelStatus",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
)


class _Attempt:
    """One try at a call: how long it may take, and what its failure means."""

    def __init__(
        self, address: str, number: int, deadline: float, pause: float | None
    ) -> None:
        self._address = address
        self._number = number
        self._deadline = deadline
        self._pause = pause
        self.pause = pause or 0.0

    def seconds_left(self) -> float:
        return max(self._deadline - time.monotonic(), 0.0)

    def fail(self, error: Any) -> None:
        """Raises what the caller gets, unless it is worth another attempt."""
        failure = ServerError(
            error.code().name, error.details() or "", self._address, self._number
        )
        out_of_time = self.seconds_left() <= self.pause
        if self._pause is None or out_of_time or not is_transient(failure):
            raise failure from None


def attempts(address: str, timeout: float, retry: Retry) -> Iterator[_Attempt]:
    deadline = time.monotonic() + timeout
    for number, pause in enumerate((*retry.pauses(), None), start=1):
        yield _Attempt(address, number, deadline, pause)


def open_channel(module: Any, address: str, credentials: Any) -> Any:
    options = [
        ("grpc.max_receive_message_length", DEFAULT_MESSAGE_BYTES),
        ("grpc.max_send_message_length", DEFAULT_MESSAGE_BYTES),
        # A server that comes back is found within the timeout of a call.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_retries", 0),  # `Retry` decides
    ]
    if credentials is None:
        return module.insecure_channel(address, options=options)
    return module.secure_channel(address, credentials, options=options)


def multicallable(channel: Any, method: Method) -> Any:
    return channel.unary_unary(
        method.path,
        request_serializer=message(method.request).SerializeToString,
        response_deserializer=message(method.response).FromString,
    )


def _spec(spec: Any, model: str, version: int | str | None) -> None:
    spec.name = model
    if isinstance(version, str):
        spec.version_label = version
    elif version is not None:
        spec.version.value = version


def predict_request(
    model: str,
    version: int | str | None,
    signature: str,
    inputs: Mapping[str, Tensor],
) -> Any:
    request = message("PredictRequest")()
    _spec(request.model_spec, model, version)
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        to_proto(tensor, request.inputs[name])
    return request


def status_request(model: str, version: int | str | None) -> Any:
    request = message("GetModelStatusRequest")()
    _spec(request.model_spec, model, version)
    return request


def metadata_request(model: str, version: int | str | None) -> Any:
    request = message("GetModelMetadataRequest")()
    _spec(request.model_spec, model, version)
    request.metadata_field.append("signature_def")
    return request


def read_prediction(response: Any) -> Prediction:
    outputs = {name: from_proto(proto) for name, proto in response.outputs.items()}
    return Prediction(outputs, int(response.model_spec.version.value))


def read_status(response: Any) -> list[VersionStatus]:
    return [
        VersionStatus(
            status.version,
            _STATES.get(status.state, "UNKNOWN"),
            status.status.error_message,
        )
        for status in response.model_version_status
    ]


def read_signatures(response: Any) -> dict[str, Signature]:
    encoded = response.metadata["signature_def"].value
    definitions = message("SignatureDefMap").FromString(encoded).signature_def
    return {
        name: Signature(_read_specs(value.inputs), _read_specs(value.outputs))
        for name, value in definitions.items()
        if not name.startswith("__")  # what TensorFlow keeps for itself
    }


def _read_specs(infos: Any) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            DTYPES.get(info.dtype, f"type {info.dtype}"),
            tuple(d.size if d.size >= 0 else None for d in info.tensor_shape.dim),
        )
        for name, info in infos.items()
    }
