"""The gRPC side of the stand-in, in the messages of `tensorflow-serving-api`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from errors import Refusal
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def start_grpc(manager, port, max_threads):
    # More threads than the limit, to tell those beyond it that it is reached.
    server = grpc.server(
        ThreadPoolExecutor(4 * max_threads + 16),
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    places = threading.Semaphore(max_threads)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Predictions(manager, places), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(manager), server)
    if not server.add_insecure_port(f"127.0.0.1:{port}"):
        raise SystemExit(f"stand-in: port {port} is taken")
    server.start()
    return server


def choice(spec):
    kind = spec.WhichOneof("version_choice")
    return (
        spec.version.value if kind == "version" else None,
        spec.version_label if kind == "version_label" else None,
    )


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, manager, places):
        self._manager = manager
        self._places = places

    def Predict(self, request, context):
        if not self._places.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"
            )
        try:
            return self._predict(request)
        except Refusal as refusal:
            context.abort(getattr(grpc.StatusCode, refusal.code), refusal.details)
        finally:
            self._places.release()

    def _predict(self, request):
        spec = request.model_spec
        try:
            inputs = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
        except (TypeError, ValueError) as error:
            raise Refusal(
                "INVALID_ARGUMENT", f"tensor parsing error: {error}"
            ) from None
        number, outputs = self._manager.predict(
            spec.name, *choice(spec), spec.signature_name, inputs
        )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.signature_name = spec.signature_name or "serving_default"
        response.model_spec.version.value = number
        for key, value in outputs.items():
            dtype = tf.string if value.dtype == object else None
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value, dtype))
        return response

    def GetModelMetadata(self, request, context):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        spec = request.model_spec
        try:
            with self._manager.model(spec.name).choose(*choice(spec)) as version:
                definitions = get_model_metadata_pb2.SignatureDefMap()
                for name, signature in version.signatures.items():
                    definitions.signature_def[name].CopyFrom(signature)
                response.model_spec.name = spec.name
                response.model_spec.version.value = version.number
        except Refusal as refusal:
            context.abort(getattr(grpc.StatusCode, refusal.code), refusal.details)
        response.metadata["signature_def"].Pack(definitions)
        return response


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, manager):
        self._manager = manager

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        spec = request.model_spec
        try:
            versions = self._manager.status(spec.name, choice(spec)[0])
        except Refusal as refusal:
            context.abort(getattr(grpc.StatusCode, refusal.code), refusal.details)
        for version in versions:
            status = response.model_version_status.add(
                version=version.number, state=version.state
            )
            status.status.error_message = version.error
            status.status.error_code = 2 if version.error else 0
        return response
