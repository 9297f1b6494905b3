"""Asks a SavedModel questions in a process of its own that imports only TensorFlow.

Run as text (`python -c`), so that nothing of this package is on its path: what answers
here, answers on a server. Reads one JSON file, writes another. A string carries one
byte a character (latin-1), because ids and tf.Examples are bytes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf


def _to_tensor(values: dict[str, Any]) -> tf.Tensor:
    flat = values["flat"]
    if values["dtype"] == "string":
        flat = [text.encode("latin-1") for text in flat]
    return tf.constant(flat, values["dtype"], shape=values["shape"])


def _from_tensor(tensor: tf.Tensor) -> dict[str, Any]:
    array: Any = tensor.numpy()
    flat = [
        value.decode("latin-1") if isinstance(value, bytes) else float(value)
        for value in array.reshape(-1)
    ]
    return {"shape": list(np.shape(array)), "flat": flat}


def _main(folder: str, requests_path: str, answers_path: str) -> None:
    with open(requests_path) as file:
        requests = json.load(file)
    signatures = tf.saved_model.load(folder).signatures
    answers = []
    for signature, inputs in requests:
        tensors = {name: _to_tensor(values) for name, values in inputs.items()}
        outputs = signatures[signature](**tensors)
        answers.append({name: _from_tensor(value) for name, value in outputs.items()})
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    with open(answers_path, "w") as file:
        json.dump({"answers": answers, "modules": modules}, file)


if __name__ == "__main__":
    _main(*sys.argv[1:])
