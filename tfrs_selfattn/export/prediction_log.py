"""TensorFlow Serving's `PredictionLog` message, without its Python package.

A server replays these records, found in `assets.extra/tf_serving_warmup_requests`,
before it announces a model. The message is declared in `tfrs_selfattn.client.messages`,
from the field numbers of the public protos.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.client.messages import message
from tfrs_selfattn.client.tensors import Tensor, from_proto, to_proto


def encode(
    model_name: str, signature: str, inputs: Mapping[str, npt.ArrayLike]
) -> bytes:
    """One warm-up record: a serialized `PredictionLog` of a predict request.

    Args:
        model_name: str. Servers ignore it in warm-up records.
        signature: str. Name of the signature.
        inputs: mapping from the name of an input of the signature to its array, of
            bytes, int64 or float32.
    """
    record = message("PredictionLog")()
    request = record.predict_log.request
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        to_proto(_tensor(np.asarray(values)), request.inputs[name])
    # A map has no order of its own, and equal exports should have equal files.
    encoded: bytes = record.SerializeToString(deterministic=True)
    return encoded


def decode(record: bytes) -> tuple[str, dict[str, tf.Tensor]]:
    """The signature and the inputs of a warm-up record."""
    request = message("PredictionLog").FromString(record).predict_log.request
    inputs = {}
    for name, proto in request.inputs.items():
        tensor = from_proto(proto)
        inputs[name] = tf.constant(tensor.values, tensor.dtype, shape=tensor.shape)
    return request.model_spec.signature_name, inputs


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    dtype = "string" if array.dtype == object else array.dtype.name
    return Tensor(dtype, array.shape, array.reshape(-1).tolist())
