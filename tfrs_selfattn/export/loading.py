"""Loads a SavedModel of ours without a warning that frightens and means nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tensorflow as tf

# Attention brings a gradient of its own. An export leaves it out, for no server takes
# gradients, and TensorFlow says so at each load.
_EXPECTED = "unsaved custom gradients"


def load(folder: Path) -> Any:
    """What `tf.saved_model.load` gives."""
    logger = logging.getLogger("absl")
    logger.addFilter(_unexpected)
    try:
        return tf.saved_model.load(str(folder))
    finally:
        logger.removeFilter(_unexpected)


def _unexpected(record: logging.LogRecord) -> bool:
    return _EXPECTED not in record.getMessage()
