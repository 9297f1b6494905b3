"""The messages of TensorFlow Serving and TensorFlow that cross the wire, without both.

The classes of the package `tensorflow-serving-api` import `tensorflow.core`, and with
it all of TensorFlow: 3 seconds and 400 MB for a client that sends a list of ids. The
wire format is fixed for good by the field numbers of the public protos
(tensorflow_serving/apis/{predict,model,get_model_status,get_model_metadata,
prediction_log}.proto, tensorflow/core/framework/{tensor,tensor_shape}.proto,
tensorflow/core/protobuf/meta_graph.proto, tensorflow/core/example/{example,feature}
.proto), so the fields that are used here are declared from those numbers. What is left
out, a reader skips; an enum is an int32 on the wire. The pool is private: the real
classes may be loaded beside these.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

_PACKAGE = "tfrs_selfattn.wire"

# A line a message: fields as "name number type", "*" for a repeated one, "{}" for a map
# from strings, "|" for a member of the message's one oneof.
_DECLARATIONS = {
    "Dim": "size 1 int64",
    "Shape": "dim 2 Dim*, unknown_rank 3 bool",
    "TensorProto": "dtype 1 int32, tensor_shape 2 Shape, tensor_content 4 bytes, "
    "float_val 5 float*, int_val 7 int32*, string_val 8 bytes*, int64_val 10 int64*",
    "Int64Value": "value 1 int64",
    "ModelSpec": "name 1 string, version 2 Int64Value|, signature_name 3 string, "
    "version_label 4 string|",
    "PredictRequest": "model_spec 1 ModelSpec, inputs 2 TensorProto{}",
    "PredictResponse": "outputs 1 TensorProto{}, model_spec 2 ModelSpec",
    "GetModelStatusRequest": "model_spec 1 ModelSpec",
    "Status": "error_code 1 int32, error_message 2 string",
    "ModelVersionStatus": "version 1 int64, state 2 int32, status 3 Status",
    "GetModelStatusResponse": "model_version_status 1 ModelVersionStatus*",
    "GetModelMetadataRequest": "model_spec 1 ModelSpec, metadata_field 2 string*",
    "Any": "type_url 1 string, value 2 bytes",
    "GetModelMetadataResponse": "model_spec 1 ModelSpec, metadata 2 Any{}",
    "TensorInfo": "name 1 string, dtype 2 int32, tensor_shape 3 Shape",
    "SignatureDef": "inputs 1 TensorInfo{}, outputs 2 TensorInfo{}",
    "SignatureDefMap": "signature_def 1 SignatureDef{}",
    "PredictLog": "request 1 PredictRequest",
    "PredictionLog": "predict_log 6 PredictLog|",
    "BytesList": "value 1 bytes*",
    "Int64List": "value 1 int64*",
    "FloatList": "value 1 float*",
    "Feature": "bytes_list 1 BytesList|, float_list 2 FloatList|, "
    "int64_list 3 Int64List|",
    "Features": "feature 1 Feature{}",
    "Example": "features 1 Features",
}

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}


@cache
def message(name: str) -> Any:
    """The class of a message, such as `PredictRequest`."""
    return message_factory.GetMessageClass(
        _pool().FindMessageTypeByName(f"{_PACKAGE}.{name}")
    )


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfrs_selfattn/client/messages.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _DECLARATIONS.items():
        declared = file.message_type.add(name=name)
        for field in fields.split(", "):
            _declare(declared, *field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _declare(owner: Any, name: str, number: str, kind: str) -> None:
    field = owner.field.add(
        name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL, type=None
    )
    if kind.endswith("{}"):
        entry_name = "".join(word.capitalize() for word in name.split("_")) + "Entry"
        entry = owner.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _declare(entry, "key", "1", "string")
        _declare(entry, "value", "2", kind.removesuffix("{}"))
        kind = f"{owner.name}.{entry_name}*"
    if kind.endswith("*"):
        field.label = _FIELD.LABEL_REPEATED
    elif kind.endswith("|"):
        if not owner.oneof_decl:
            owner.oneof_decl.add(name="choice")
        field.oneof_index = 0
    kind = kind.rstrip("*|")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
