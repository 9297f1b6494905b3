"""From a trained model to the folder that TensorFlow Serving watches, and back.

`export_recommender` needs TensorFlow Recommenders, hence legacy Keras.
`load_recommender` needs TensorFlow only, whatever its Keras.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Export": "saved_model",
    "ExportError": "reload",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "export_recommender": "saved_model",
    "load_recommender": "recommender",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
