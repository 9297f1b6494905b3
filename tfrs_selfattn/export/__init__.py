"""From a trained model to the folder that TensorFlow Serving watches, and back.

`export_recommender` needs TensorFlow Recommenders, hence legacy Keras.
`load_recommender` and `refresh_recommender` need TensorFlow only, whatever its Keras.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "BatchResult": "batch_job",
    "Contribution": "recommender",
    "Export": "writing",
    "ExportError": "reload",
    "NewItems": "new_items",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "Refresh": "refresh",
    "export_recommender": "saved_model",
    "export_shards": "sharded",
    "load_recommender": "recommender",
    "read_new_items": "new_items",
    "recommend_all": "batch_job",
    "refresh_recommender": "refresh",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
