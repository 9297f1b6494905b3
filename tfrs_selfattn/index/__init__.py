"""Retrieval indexes: TensorFlow Recommenders `TopK` layers in stock TensorFlow ops.

The classes here are Keras models of legacy Keras. What they compute is in
`tfrs_selfattn.ops`, in `top_k` and `leaf_search`, which work without TensorFlow
Recommenders too.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Drift": "updates",
    "ExactTopK": "exact",
    "PartitionedTopK": "partitioned",
    "Tuning": "tuning",
    "TuningPoint": "tuning",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
