"""Clustered candidates, queries for them, and partitioned indexes of every variant."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_selfattn.index import PartitionedTopK

N, D, K = 3_001, 11, 10
VARIANTS = {
    "float32": {},
    "bfloat16": {"quantization": "bfloat16", "num_reordering_candidates": 40},
    "bfloat16 only": {"quantization": "bfloat16"},
    "int8": {"quantization": "int8", "num_reordering_candidates": 40},
    "int8 only": {"quantization": "int8"},
    "bfloat16 originals": {
        "quantization": "int8",
        "num_reordering_candidates": 40,
        "reordering_dtype": "bfloat16",
    },
    "spill": {"spill": True},
    "cosine": {"distance_measure": "cosine"},
    "xla": {"quantization": "int8", "num_reordering_candidates": 40, "xla": True},
}


def clustered(rows, seed, lengths=True):
    """Vectors around 60 directions that all calls share, of spread lengths."""
    centers = np.random.default_rng(0).normal(size=(60, D))
    draw = np.random.default_rng(seed)
    vectors = centers[draw.integers(0, 60, rows)] + 0.5 * draw.normal(size=(rows, D))
    if lengths:
        vectors *= np.exp(draw.normal(0, 0.25, (rows, 1)))
    return vectors.astype(np.float32)


CANDIDATES = clustered(N, 1)
QUERIES = clustered(64, 2, lengths=False)
NAMES = np.array(
    [f"item {number}" for number in np.random.default_rng(3).permutation(N)]
)


def build(num_leaves_to_search=None, **variant):
    index = PartitionedTopK(
        k=K, num_leaves=61, num_leaves_to_search=num_leaves_to_search, **variant
    )
    return index.index(CANDIDATES, tf.constant(NAMES))
