"""Event logs in, training rows and evaluation sets out.

    read_events → build_sequences → leave_one_out → pack_rows → training_dataset
                                                  → EvaluationSet

Everything but `training_dataset` and `evaluation_dataset` works without TensorFlow.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "EvaluationSet": "splits",
    "EventSummary": "sequences",
    "Events": "events",
    "MarkovLog": "synthetic",
    "MovieLens": "movielens",
    "PackedRows": "packing",
    "Sequences": "sequences",
    "Split": "splits",
    "Vocabulary": "vocabulary",
    "Windows": "packing",
    "build_sequences": "sequences",
    "evaluation_dataset": "pipelines",
    "events_from_frame": "events",
    "find_titles": "items",
    "generate_events": "synthetic",
    "leave_one_out": "splits",
    "locate_movielens_100k": "movielens",
    "markov_events": "synthetic",
    "pack_rows": "packing",
    "read_events": "events",
    "read_titles": "items",
    "steps_per_epoch": "pipelines",
    "summarize": "sequences",
    "training_dataset": "pipelines",
    "training_windows": "packing",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
