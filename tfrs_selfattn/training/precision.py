"""The numbers that a model is trained with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfrs_selfattn._keras import keras, require_legacy_keras

require_legacy_keras("tfrs_selfattn.training")


@contextlib.contextmanager
def precision_of_layers(name: str) -> Iterator[None]:
    """Layers that are made in here compute so; their weights are float32 always.

    Args:
        name: str. "float32", "mixed_bfloat16" or "mixed_float16".
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
