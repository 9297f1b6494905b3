"""How much an index has to look at to reach a recall: measured, not guessed.

Recall is counted against a search of everything, on the caller's queries. The cost that
settings are compared by is a count of elements, so that the same data gives the same
choice on any machine; `benchmarks/index.py` measures times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.index import recall

_REORDERED = (1, 2, 4, 8)  # times k


class TuningPoint(NamedTuple):
    """One setting and what it gives.

    Attributes:
        num_leaves: int.
        num_leaves_to_search: int.
        num_reordering_candidates: int or None.
        recall: float. Share of the true best k that were found.
        cost: int. Vector elements that a query is multiplied with.
    """

    num_leaves: int
    num_leaves_to_search: int
    num_reordering_candidates: int | None
    recall: float
    cost: int


class Tuning(NamedTuple):
    """What `PartitionedTopK.tune` tried, by rising cost, and what it set.

    Attributes:
        curve: list of `TuningPoint`.
        chosen: `TuningPoint`.
    """

    curve: list[TuningPoint]
    chosen: TuningPoint


def tune(
    index: Any,
    queries: Any,
    target_recall: float,
    k: int | None,
    num_leaves: Sequence[int],
) -> Tuning:
    """See `PartitionedTopK.tune`."""
    recall.check_filled(index, "tuned")
    if not 0 < target_recall <= 1:
        raise ValueError(
            "`target_recall` must be above 0 and at most 1. Received: "
            f"target_recall={target_recall!r}. Use .95, say."
        )
    k = index._k if k is None else check_positive_int("k", k)
    queries = index._checked_queries(np.asarray(queries, np.float32))
    if queries.shape.rank != 2 or not queries.shape[0]:
        raise ValueError(
            "`queries` must be embeddings [queries, width], at least one. Received: "
            f"shape {tuple(queries.shape)}. Pass each interest as a query of its own."
        )
    curve = []
    counts = list(num_leaves) or [int(index._members.shape[0])]
    for count in counts:
        if num_leaves:
            index._rebuild(count)
        curve += _curve(index, queries, target_recall, k)
    curve.sort(key=lambda point: (point.cost, -point.recall))
    reached = [point for point in curve if point.recall >= target_recall]
    chosen = reached[0] if reached else max(curve, key=lambda point: point.recall)
    if index._members.shape[0] != chosen.num_leaves:
        index._rebuild(chosen.num_leaves)
    index._set(chosen.num_leaves_to_search, chosen.num_reordering_candidates)
    return Tuning(curve, chosen)


def _curve(
    index: Any, queries: tf.Tensor, target_recall: float, k: int
) -> list[TuningPoint]:
    """Points of rising cost, up to the first that reaches the target."""
    num_leaves, capacity = (int(size) for size in index._members.shape)
    best = recall.answers(index, queries, k, num_leaves)
    points = []
    for reordered in _reorder_counts(index, k):
        for probes in _probe_counts(num_leaves):
            found = recall.answers(index, queries, k, probes, reordered)
            slots = num_leaves + probes * capacity + (reordered or 0)
            reached = recall.overlap(found, best)
            points.append(
                TuningPoint(
                    num_leaves, probes, reordered, reached, slots * int(index._width)
                )
            )
            if reached >= target_recall:
                break
    return points


def _reorder_counts(index: Any, k: int) -> list[int | None]:
    if index._originals is None:
        return [index.num_reordering_candidates]
    return [k * times for times in _REORDERED]


def _probe_counts(num_leaves: int) -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 11, … and all."""
    probes = 1.0
    while round(probes) < num_leaves:
        yield round(probes)
        probes = max(probes + 1, probes * 2**0.5) if probes < 3 else probes * 2**0.5
    yield num_leaves
