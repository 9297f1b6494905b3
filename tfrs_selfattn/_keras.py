"""Follows the Keras of this process: `tf.keras`, whichever version that is.

TensorFlow decides between Keras 3 and legacy Keras (`tf_keras`) when `tf.keras` is
first touched, from the environment variable `TF_USE_LEGACY_KERAS`. This module reads
that decision once. It never sets the variable and never imports the other Keras,
because layers of one cannot live in models of the other.
"""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

import tensorflow as tf

# Legacy Keras, as `tf.keras`, has neither `version` nor `__version__`.
_version_function = getattr(tf.keras, "version", None)
KERAS_3: bool = _version_function is not None and str(_version_function()).startswith(
    "3."
)


def _keras_module() -> Any:
    if not KERAS_3:
        return tf.keras
    # `tf.keras` holds the same classes but lacks some modules, `keras.saving` for one.
    return importlib.import_module("keras")


keras: Any = _keras_module()

PACKAGE = "tfrs_selfattn"

_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Registers a class for Keras serialization as `tfrs_selfattn>ClassName`."""
    decorate = keras.saving.register_keras_serializable(package=PACKAGE)
    registered: _Class = decorate(cls)
    return registered


def require_legacy_keras(feature: str) -> None:
    """Raises `ImportError` when this process runs Keras 3.

    TensorFlow Recommenders works with legacy Keras only, and so does what builds on it.

    Args:
        feature: str. The module or class that needs legacy Keras, for the message.
    """
    if KERAS_3:
        raise ImportError(
            f"`{feature}` builds on TensorFlow Recommenders, which needs legacy Keras "
            f"(tf_keras). Received: tf.keras is Keras {tf.keras.version()}. Set the "
            "environment variable TF_USE_LEGACY_KERAS=1 before TensorFlow is imported "
            "and restart the process (in a notebook: restart the runtime). The layers, "
            "losses, data and evaluation packages work with Keras 3 as they are."
        )
