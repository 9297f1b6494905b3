"""The two towers and the retrieval model that joins them.

Needs TensorFlow Recommenders, hence legacy Keras.
"""

from __future__ import annotations

from tfrs_selfattn._keras import require_legacy_keras
from tfrs_selfattn._lazy import lazy_exports

require_legacy_keras("tfrs_selfattn.models")

_EXPORTS = {
    "CandidateTower": "candidate_tower",
    "ContentEmbedding": "content_embedding",
    "FeatureProjection": "feature_projection",
    "InBatchRetrieval": "in_batch_retrieval",
    "ItemContent": "content_embedding",
    "QueryTower": "query_tower",
    "SequenceRetrieval": "sequence_retrieval",
    "presets": "presets",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
