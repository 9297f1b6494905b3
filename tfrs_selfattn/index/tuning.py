"""How much an index has to look at to reach a recall: measured, not guessed.

Recall is counted against a search of everything, on the caller's queries: over the
candidates if they are given, else over the best vectors that the index holds. The cost
that settings are compared by is a count of elements, so that the same data gives the
same choice on any machine; `benchmarks/index.py` measures times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive_int
from tfrs_selfattn.index import building, recall, sources
from tfrs_selfattn.ops.top_k import PADDING_ROW, exact_search

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
    num_leaves: Sequence[int] | str,
    candidates: Any,
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
    counts = _leaf_counts(index, num_leaves)
    source = None if candidates is None else _source_of(index, candidates)
    best = None if source is None else _exact(index, source, queries, k)
    curve = []
    for count in counts or [int(index._members.shape[0])]:
        if counts:
            index._rebuild(count, source)
        curve += _curve(index, queries, target_recall, k, best)
    curve.sort(key=lambda point: (point.cost, -point.recall))
    reached = [point for point in curve if point.recall >= target_recall]
    chosen = reached[0] if reached else max(curve, key=lambda point: point.recall)
    if index._members.shape[0] != chosen.num_leaves:
        index._rebuild(chosen.num_leaves, source)
    index._set(chosen.num_leaves_to_search, chosen.num_reordering_candidates)
    return Tuning(curve, chosen)


def _leaf_counts(index: Any, num_leaves: Sequence[int] | str) -> list[int]:
    """The numbers of leaves to build and compare; none to keep what there is."""
    if not isinstance(num_leaves, str):
        return [check_positive_int("num_leaves", count) for count in num_leaves]
    check_choice("num_leaves", num_leaves, ("auto",), "Or pass numbers of leaves.")
    size = len(recall.used_rows(index))
    usual = building.default_num_leaves(size)
    return sorted({min(max(1, n), size) for n in (usual // 2, usual, 2 * usual)})


def _source_of(index: Any, candidates: Any) -> sources.Source:
    """The candidates of an index, row by row, as they were before it rounded them."""
    source = sources.as_source(candidates, None)
    held = len(recall.used_rows(index)), index._slots.shape[0]
    if (source.size, source.width) != (held[0], index._width) or held[0] != held[1]:
        raise ValueError(
            "`candidates` must be those that the index was built from, in their order: "
            f"{held[0]} of width {index._width}. Received: shape "
            f"{(source.size, source.width)}. Leave them out where candidates were "
            "added or removed since, or build the index anew."
        )
    return source


def _exact(index: Any, source: sources.Source, queries: tf.Tensor, k: int) -> Any:
    """The rows `[B, k]` of the highest products, -1 where there are fewer."""
    scores = tf.fill([len(queries), k], float("-inf"))
    rows = tf.fill([len(queries), k], PADDING_ROW)
    start = 0
    for block in source.blocks():
        block = building.prepared(block, index.distance_measure == "cosine")
        found = exact_search(queries, tf.constant(block), min(k, len(block)))
        scores = tf.concat([scores, found[0]], axis=1)
        real = tf.where(found[1] < 0, PADDING_ROW, found[1] + start)
        rows = tf.concat([rows, real], axis=1)
        scores, place = tf.math.top_k(scores, k)
        rows = tf.gather(rows, place, batch_dims=1)
        start += len(block)
    return rows.numpy()


def _curve(
    index: Any, queries: tf.Tensor, target_recall: float, k: int, best: Any
) -> list[TuningPoint]:
    """Points of rising cost, up to the first that reaches the target."""
    num_leaves, capacity = (int(size) for size in index._members.shape)
    if best is None:
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
