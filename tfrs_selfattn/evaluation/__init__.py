"""How well a recommender ranks: full-ranking metrics and the baselines beside them.

Every item of the catalogue is a candidate; nothing is sampled. Knows no model: what is
evaluated is any function from histories to scores. Works with Keras 3 and legacy Keras,
without TensorFlow Recommenders.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Comparison": "uncertainty",
    "CorpusTopK": "corpus_top_k",
    "CorpusTopKCallback": "corpus_top_k",
    "EASE": "ease",
    "Group": "breakdown",
    "HitRate": "metrics",
    "Interval": "uncertainty",
    "ItemKNN": "item_knn",
    "ItemToItem": "baselines",
    "LeakError": "leaks",
    "MeanReciprocalRank": "metrics",
    "MostPopular": "baselines",
    "NDCG": "metrics",
    "RankingResult": "evaluate",
    "bootstrap_intervals": "uncertainty",
    "by_history_length": "breakdown",
    "by_item_popularity": "breakdown",
    "check_no_leak": "leaks",
    "check_no_training_leak": "leaks",
    "compare": "uncertainty",
    "evaluate_ranking": "evaluate",
    "ranking_metrics": "ranking",
    "recommended_items": "recommended",
    "target_ranks": "ranking",
}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
