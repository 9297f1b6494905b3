"""Tensors as plain lists, and how they are written in gRPC messages and in JSON."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfrs_selfattn.client.messages import message

# Numbers of tensorflow/core/framework/types.proto, and where TensorProto keeps values.
DTYPES = {1: "float32", 3: "int32", 7: "string", 9: "int64"}
_NUMBERS = {name: number for number, name in DTYPES.items()}
_FIELDS = {
    "float32": "float_val",
    "int32": "int_val",
    "string": "string_val",
    "int64": "int64_val",
}
_CODES = {"float32": "f", "int32": "i", "int64": "q"}


@dataclass(frozen=True)
class Tensor:
    """A dense tensor.

    Args:
        dtype: str. `"string"`, `"int32"`, `"int64"` or `"float32"`.
        shape: tuple of int.
        values: list of bytes, int or float, in row-major order.
    """

    dtype: str
    shape: tuple[int, ...]
    values: list[Any]

    def rows(self) -> list[list[Any]]:
        """The values, one list for each index of the first axis."""
        count = self.shape[0]
        width = len(self.values) // count if count else 0
        return [self.values[row * width : (row + 1) * width] for row in range(count)]


def to_proto(tensor: Tensor, proto: Any) -> None:
    """Writes a tensor into a `TensorProto`."""
    proto.dtype = _NUMBERS[tensor.dtype]
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _FIELDS[tensor.dtype]).extend(tensor.values)


def from_proto(proto: Any) -> Tensor:
    """Reads a `TensorProto`, in each of the forms that TensorFlow writes."""
    dtype = DTYPES.get(proto.dtype)
    if dtype is None:
        raise ValueError(
            f"Tensors must be one of {', '.join(_NUMBERS)}. Received: type number "
            f"{proto.dtype}. Read this model with TensorFlow's own classes."
        )
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_content:
        packed = array(_CODES[dtype], proto.tensor_content)
        if sys.byteorder == "big":
            packed.byteswap()
        return Tensor(dtype, shape, packed.tolist())
    values = list(getattr(proto, _FIELDS[dtype]))
    missing = math.prod(shape) - len(values)
    if missing:  # Equal values at the end are written once.
        values += [values[-1] if values else _zero(dtype)] * missing
    return Tensor(dtype, shape, values)


def _zero(dtype: str) -> Any:
    return b"" if dtype == "string" else 0.0 if dtype == "float32" else 0


def to_json(tensor: Tensor) -> Any:
    """A tensor as nested lists, as the REST interface takes it."""
    values: list[Any] = tensor.values
    if tensor.dtype == "string":
        values = [_to_text(value) for value in values]
    if not tensor.shape:
        return values[0]
    for size in reversed(tensor.shape[1:]):
        count = math.prod(tensor.shape) // size if size else tensor.shape[0]
        values = [values[place * size : (place + 1) * size] for place in range(count)]
    return values


def _to_text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def from_json(value: Any) -> Tensor:
    """Nested lists as the REST interface answers them; the type is read off them."""
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    values = [_from_text(leaf) for leaf in _leaves(value)]
    kinds = {type(leaf) for leaf in values}
    dtype = "string" if kinds == {bytes} else "int64" if kinds == {int} else "float32"
    return Tensor(dtype, tuple(shape), values)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _from_text(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if isinstance(value, str) else value


def example(
    ids: Mapping[str, Sequence[bytes]],
    times: Mapping[str, Sequence[int]],
    numbers: Mapping[str, Sequence[float]] | None = None,
) -> bytes:
    """A serialized tf.Example with lists of bytes, of integers and of floats."""
    proto = message("Example")()
    for name, items in ids.items():
        proto.features.feature[name].bytes_list.value.extend(items)
    for name, moments in times.items():
        proto.features.feature[name].int64_list.value.extend(moments)
    for name, values in (numbers or {}).items():
        proto.features.feature[name].float_list.value.extend(values)
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
