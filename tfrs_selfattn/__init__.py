"""Masked multi-head self-attention for TensorFlow Recommenders.

Subpackages load on first use, so that a process pays only for what it touches:

- `layers`, `losses`, `ops`: Keras layers and functions, Keras 3 or legacy Keras;
- `data`, `evaluation`: event logs, splits, packing, full-ranking metrics, baselines;
- `features`: what is known of items and users beside their ids;
- `models`, `index`, `training`, `export`: the TensorFlow Recommenders side (legacy
  Keras, `TF_USE_LEGACY_KERAS=1`);
- `explain`: how much each item of a history moved a score;
- `client`: asks a TensorFlow Serving; needs no TensorFlow.
"""

from __future__ import annotations

from tfrs_selfattn._checks import InputError as InputError
from tfrs_selfattn._lazy import lazy_exports
from tfrs_selfattn._version import __version__ as __version__

_SUBPACKAGES = (
    "client",
    "data",
    "evaluation",
    "explain",
    "export",
    "features",
    "index",
    "layers",
    "losses",
    "models",
    "ops",
    "training",
)

__all__ = ["InputError", "__version__", *_SUBPACKAGES]

__getattr__, __dir__ = lazy_exports(__name__, {name: name for name in _SUBPACKAGES})
