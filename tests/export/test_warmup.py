"""Warm-up records: readable by TensorFlow Serving, answered by the export."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.export import prediction_log

# With the real messages in a process of their own, so that the two declarations of
# the same names cannot help each other.
READ_WITH_THE_REAL_PROTOS = """
import sys
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

for record in tf.data.TFRecordDataset(sys.argv[1]).as_numpy_iterator():
    log = prediction_log_pb2.PredictionLog.FromString(record)
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert request.model_spec.name == "recommender"
    # No field that the real messages do not know.
    log.DiscardUnknownFields()
    assert log.SerializeToString(deterministic=True) == record
    for name, value in sorted(request.inputs.items()):
        array = tf.make_ndarray(value)
        print(request.model_spec.signature_name, name, array.shape, array.dtype)
"""


@pytest.fixture(scope="module")
def records(export):
    path = export.path / "assets.extra" / "tf_serving_warmup_requests"
    return [*tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


def test_every_signature_is_warmed_up_alone_and_in_a_batch(records, export):
    sizes = {}
    for record in records:
        signature, inputs = prediction_log.decode(record)
        assert (
            inputs.keys() == export.manifest["signatures"][signature]["inputs"].keys()
        )
        for tensor in inputs.values():
            sizes.setdefault(signature, set()).add(tensor.shape[0])
    assert sizes == {name: {1, 32} for name in export.manifest["signatures"]}
    assert len(records) <= 1000  # of which a server replays no more


def test_the_export_answers_every_record(records, signatures):
    for record in records:
        signature, inputs = prediction_log.decode(record)
        for output in signatures[signature](**inputs).values():
            assert output.shape[0] == next(iter(inputs.values())).shape[0]


def test_what_is_encoded_is_decoded():
    inputs = {
        "a": np.array([[b"x", b"\xff", b""]], object),
        "b": np.zeros([0, 3], object),
        "c": np.array([[1, -(2**62)]]),
        "d": np.array([0.5, -1.25], np.float32),
    }
    signature, decoded = prediction_log.decode(prediction_log.encode("m", "s", inputs))
    assert signature == "s"
    for name, tensor in inputs.items():
        np.testing.assert_array_equal(decoded[name], tensor)
        assert decoded[name].dtype == tf.as_dtype(tensor.dtype)


def test_records_are_the_bytes_that_the_public_protos_prescribe():
    record = prediction_log.encode("m", "s", {"x": np.array([b"y"], object)})
    tensor = tf.make_tensor_proto(tf.constant(["y"])).SerializeToString()

    def field(number, payload):  # a length-delimited field of less than 128 bytes
        return bytes([number << 3 | 2, len(payload)]) + payload

    model_spec = field(1, b"m") + field(3, b"s")
    entry = field(1, b"x") + field(2, tensor)
    request = field(1, model_spec) + field(2, entry)
    assert record == field(6, field(1, request))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_serving") is None,
    reason="needs tensorflow-serving-api, which the package does not",
)
def test_the_real_protos_read_the_records(export, run_python):
    path = export.path / "assets.extra" / "tf_serving_warmup_requests"
    done = run_python("-c", READ_WITH_THE_REAL_PROTOS, str(path))
    assert done.returncode == 0, done.stdout
    assert "recommend_excluding exclude (32, 31) object" in done.stdout
    assert "embed_item item (1,) object" in done.stdout
