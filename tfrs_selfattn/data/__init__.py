"""Event logs in, training rows and evaluation sets out.

    read_events → build_sequences → leave_one_out  → pack_rows    → training_dataset
                                    temporal_split   bucket_rows
                                                     write_shards
                                                   → EvaluationSet → evaluation_dataset
                → prepare_events → read_prepared → both, of a log larger than memory

`cut_histories` shows training batches as users of few events would ask. Everything but
it and the datasets works without TensorFlow.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "BucketedRows": "bucketing",
    "EvaluationSet": "splits",
    "EventSummary": "sequences",
    "Events": "events",
    "MarkovLog": "synthetic",
    "MovieLens": "movielens",
    "PackedRows": "packing",
    "PreparedLog": "prepared",
    "Sequences": "sequences",
    "ShardedRows": "shards",
    "SideTable": "side",
    "Split": "splits",
    "Vocabulary": "vocabulary",
    "Windows": "windows",
    "bucket_rows": "bucketing",
    "build_sequences": "sequences",
    "cut_histories": "cutting",
    "evaluation_dataset": "pipelines",
    "events_from_frame": "events",
    "find_titles": "items",
    "generate_events": "synthetic",
    "leave_one_out": "splits",
    "locate_movielens_100k": "movielens",
    "markov_events": "synthetic",
    "pack_rows": "packing",
    "prepare_events": "prepare",
    "read_events": "events",
    "read_prepared": "prepared",
    "read_shards": "shards",
    "read_titles": "items",
    "steps_per_epoch": "pipelines",
    "summarize": "sequences",
    "temporal_split": "splits",
    "training_dataset": "pipelines",
    "training_windows": "windows",
    "with_sides": "side",
    "write_shards": "shards",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
