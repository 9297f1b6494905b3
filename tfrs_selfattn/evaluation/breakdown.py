"""Where a recommender is good and where not: metrics of groups of cases.

Shape alphabet: N candidates, C cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn.evaluation.ranking import ranking_metrics

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import EvaluationSet


@dataclass(frozen=True)
class Group:
    """Cases that have something in common, and their metrics.

    Attributes:
        label: str. What they have in common.
        cases: int. How many there are.
        metrics: as of `ranking_metrics`.
    """

    label: str
    cases: int
    metrics: dict[str, float]


def by_history_length(
    ranks: np.ndarray[Any, Any],
    cases: EvaluationSet,
    *,
    edges: Sequence[int] = (10, 20, 50, 100, 200),
    ks: Sequence[int] = (10,),
) -> tuple[Group, ...]:
    """Metrics by the number of items in the history, short ones first.

    Args:
        ranks: int `[C]`, of `evaluate_ranking`.
        cases: what was evaluated.
        edges: ints, ascending. Lengths at which the next group begins. Defaults to
            `(10, 20, 50, 100, 200)`.
        ks: ints. Cut-offs. Defaults to `(10,)`.

    Returns:
        The groups that have cases.
    """
    _check_ranks(ranks, cases)
    edges = _check_ascending("edges", edges)
    lengths = cases.history_stop - cases.sequences.offsets[cases.users]
    first = [0, *edges]
    last = [edge - 1 for edge in edges]
    labels = [f"{low}–{high}" for low, high in zip(first, last, strict=False)]
    labels.append(f"{first[-1]} or more")
    return _grouped(ranks, np.searchsorted(edges, lengths, side="right"), labels, ks)


def by_item_popularity(
    ranks: np.ndarray[Any, Any],
    cases: EvaluationSet,
    item_counts: np.ndarray[Any, Any],
    *,
    percentages: Sequence[float] = (1, 10, 50),
    ks: Sequence[int] = (10,),
) -> tuple[Group, ...]:
    """Metrics by the popularity of the target, most popular first.

    Items are ranked by their training events; targets without any are a group of
    their own.

    Args:
        ranks: int `[C]`, of `evaluate_ranking`.
        cases: what was evaluated.
        item_counts: int `[N]`. Training events of each item:
            `split.train_counts()[1:]`.
        percentages: numbers, ascending, below 100. Of the items with training events;
            where the next group begins. Defaults to `(1, 10, 50)`.
        ks: ints. Cut-offs. Defaults to `(10,)`.

    Returns:
        The groups that have cases.
    """
    _check_ranks(ranks, cases)
    percentages = _check_ascending("percentages", percentages)
    counts = np.asarray(item_counts)
    if counts.shape != (len(cases.sequences.vocabulary),):
        raise ValueError(
            "`item_counts` must be the training events of each of the "
            f"{len(cases.sequences.vocabulary)} items. Received: shape "
            f"{counts.shape}. Pass `split.train_counts()[1:]`; its first entry stands "
            "for padding."
        )
    place = np.empty(len(counts), np.int64)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    # Items 0 .. ends[g] - 1 in this order belong to group g or one before it.
    trained = np.count_nonzero(counts)
    ends = np.ceil(np.array([*percentages, 100]) / 100 * trained)
    group = np.searchsorted(ends, place[cases.targets - 1], side="right")
    marks = [0, *percentages, 100]
    labels = [
        f"top {high:g} %" if not low else f"{low:g}–{high:g} %"
        for low, high in pairwise(marks)
    ]
    return _grouped(ranks, group, [*labels, "not in training"], ks)


def _grouped(
    ranks: np.ndarray[Any, Any],
    group: np.ndarray[Any, Any],
    labels: Sequence[str],
    ks: Sequence[int],
) -> tuple[Group, ...]:
    return tuple(
        Group(label, int(mine.sum()), ranking_metrics(ranks[mine], ks))
        for number, label in enumerate(labels)
        if (mine := group == number).any()
    )


def _check_ranks(ranks: np.ndarray[Any, Any], cases: EvaluationSet) -> None:
    if np.shape(ranks) != (len(cases),):
        raise ValueError(
            f"`ranks` must hold one rank for each of the {len(cases)} cases. Received: "
            f"shape {np.shape(ranks)}. Pass `RankingResult.ranks` of the same cases."
        )


def _check_ascending(name: str, values: Sequence[Any]) -> list[Any]:
    ascending = sorted(set(values))
    if list(values) != ascending or not values or values[0] <= 0:
        raise ValueError(
            f"`{name}` must be positive numbers in ascending order. Received: "
            f"{tuple(values)}. Sort them and drop repetitions."
        )
    return ascending
