"""How well a recommender ranks: full-ranking metrics and the baselines beside them.

Every item of the catalogue is a candidate; nothing is sampled. Knows no model: what is
evaluated is any function from histories to scores. Works with Keras 3 and legacy Keras,
without TensorFlow Recommenders.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "HitRate": "metrics",
    "ItemToItem": "baselines",
    "MeanReciprocalRank": "metrics",
    "MostPopular": "baselines",
    "NDCG": "metrics",
    "RankingResult": "evaluate",
    "evaluate_ranking": "evaluate",
    "ranking_metrics": "ranking",
    "target_ranks": "ranking",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
