"""TensorFlow Serving's `PredictionLog` message, without its Python package.

A server replays these records, found in `assets.extra/tf_serving_warmup_requests`,
before it announces a model. The classes ship in `tensorflow-serving-api`, whose
releases follow TensorFlow's and which brings gRPC along; an export needs four small
messages of it. They are declared here from the field numbers of the public protos
(apis/prediction_log.proto, apis/predict.proto, apis/model.proto), which the wire
format fixes for good, around TensorFlow's own `TensorProto`. What is left out, a
reader skips. The pool is private, so the real package can be loaded beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import tensorflow as tf
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

_PACKAGE = "tensorflow.serving"
_TENSOR_PROTO: Any = type(tf.make_tensor_proto(0))


def encode(model_name: str, signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """One warm-up record: a serialized `PredictionLog` of a predict request.

    Args:
        model_name: str. Servers ignore it in warm-up records.
        signature: str. Name of the signature.
        inputs: mapping from the name of an input of the signature to its tensor.
    """
    record = message("PredictionLog")()
    request = record.predict_log.request
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        proto = tf.make_tensor_proto(tensor)
        # A private pool has a class of its own for the same message.
        request.inputs[name].ParseFromString(proto.SerializeToString())
    # A map has no order of its own, and equal exports should have equal files.
    encoded: bytes = record.SerializeToString(deterministic=True)
    return encoded


def decode(record: bytes) -> tuple[str, dict[str, tf.Tensor]]:
    """The signature and the inputs of a warm-up record."""
    request = message("PredictionLog").FromString(record).predict_log.request
    inputs = {
        name: tf.constant(
            tf.make_ndarray(_TENSOR_PROTO.FromString(tensor.SerializeToString()))
        )
        for name, tensor in request.inputs.items()
    }
    return request.model_spec.signature_name, inputs


@cache
def message(name: str) -> Any:
    """The class of a message of `tensorflow.serving`, such as `PredictionLog`."""
    pool = descriptor_pool.DescriptorPool()
    _add(pool, _TENSOR_PROTO.DESCRIPTOR.file, set())
    pool.Add(_declaration())
    descriptor = pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


def _add(pool: Any, file: Any, added: set[str]) -> None:
    """Adds a file and, before it, all it imports."""
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, added)
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb))


def _declaration() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfrs_selfattn/export/prediction_log.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[_TENSOR_PROTO.DESCRIPTOR.file.name],
    )
    model_spec = file.message_type.add(name="ModelSpec")
    _field(model_spec, "name", 1)
    _field(model_spec, "signature_name", 3)

    predict_request = file.message_type.add(name="PredictRequest")
    _field(predict_request, "model_spec", 1, f".{_PACKAGE}.ModelSpec")
    entry = predict_request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    _field(entry, "key", 1)
    _field(entry, "value", 2, f".{_TENSOR_PROTO.DESCRIPTOR.full_name}")
    inputs = _field(
        predict_request, "inputs", 2, f".{_PACKAGE}.PredictRequest.InputsEntry"
    )
    inputs.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED

    predict_log = file.message_type.add(name="PredictLog")
    _field(predict_log, "request", 1, f".{_PACKAGE}.PredictRequest")

    prediction_log = file.message_type.add(name="PredictionLog")
    prediction_log.oneof_decl.add(name="log_type")
    _field(prediction_log, "predict_log", 6, f".{_PACKAGE}.PredictLog").oneof_index = 0
    return file


def _field(
    owner: descriptor_pb2.DescriptorProto, name: str, number: int, type_name: str = ""
) -> descriptor_pb2.FieldDescriptorProto:
    """Adds a field: a message of the type named, or else a string."""
    kinds = descriptor_pb2.FieldDescriptorProto
    return owner.field.add(
        name=name,
        number=number,
        label=kinds.LABEL_OPTIONAL,
        type=kinds.TYPE_MESSAGE if type_name else kinds.TYPE_STRING,
        type_name=type_name or None,
    )
