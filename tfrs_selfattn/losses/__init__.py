"""Next-item objectives, for our model and for a user's own `tfrs.Model`."""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "BinaryCrossEntropy": "binary_cross_entropy",
    "CandidateLookup": "context",
    "FullSoftmax": "full_softmax",
    "GBCE": "gbce",
    "InBatchNegatives": "in_batch_negatives",
    "LossContext": "context",
    "MaskedItems": "masked_items",
    "NamedLoss": "named",
    "PopularityNegatives": "popularity_negatives",
    "SampledSoftmax": "sampled_softmax",
    "UniformNegatives": "uniform_negatives",
    "batch_context": "context",
    "takes_context": "context",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
