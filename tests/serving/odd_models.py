"""SavedModels that are no export of ours, to see what a server makes of them."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def save(folder):
    """Base folders: `encoded` has an output of bytes, `unknown` a foreign op."""
    return {
        "encoded": _save(folder / "encoded"),
        "unknown": _with_an_unknown_op(_save(folder / "unknown")),
    }


def _save(base):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serve(text):
        return {"copy_bytes": tf.strings.join([text, "!"]), "copy": tf.identity(text)}

    tf.saved_model.save(module, str(base / "1"), signatures={"serving_default": serve})
    return base


def _with_an_unknown_op(base):
    path = base / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    renamed = 0
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "StringJoin":
                node.op, renamed = "NoSuchOp", renamed + 1
    assert renamed
    path.write_bytes(saved.SerializeToString())
    return base
