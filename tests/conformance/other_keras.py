"""Runs the catalogue under the Keras of this process, with weights from a file.

python -m tests.conformance.other_keras WEIGHTS.npz OUTPUTS.npz
"""

from __future__ import annotations

import sys

import numpy as np

from tests.conformance.catalogue import ARGUMENTS, INPUTS, SPECS
from tests.weights import rewind
from tfrs_selfattn._keras import KERAS_3


def outputs_of(spec, layer):
    """Inference, then training with dropout drawn from the start."""
    rewind(layer)
    return [
        np.array(spec.call(layer, INPUTS, **ARGUMENTS, training=training))
        for training in (False, True)
    ]


def main(weights_path, outputs_path):
    weights = np.load(weights_path)
    outputs = {"keras_3": np.array(KERAS_3)}
    for spec in SPECS:
        layer = spec.build()
        for i, variable in enumerate(layer.trainable_weights):
            variable.assign(weights[f"{spec.name}/{i}"])
        outputs[spec.name] = np.stack(outputs_of(spec, layer))
    np.savez(outputs_path, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
