"""Full-ranking evaluation of anything that scores the catalogue.

Shape alphabet: B users, T positions, N candidates, C cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn.data.side import of_cases
from tfrs_selfattn.evaluation.ranking import ranking_metrics, target_ranks
from tfrs_selfattn.evaluation.recommended import RecommendedLists, recommended_items

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import EvaluationSet

# Scores held at a time: 25 million, 100 MB in float32, whatever the catalogue's size.
_MAX_SCORES = 25_000_000


@dataclass(frozen=True)
class RankingResult:
    """What an evaluation found.

    Attributes:
        ranks: int32 `[C]`, one a case, in the order of the cases; best = 1.
        metrics: `{"hr@10": ..., "ndcg@10": ..., "map@10": ..., "mrr": ...,
            "coverage@10": ...}`, and `"novelty@10"` if the item counts were given.
        seconds: float. Wall time of the whole evaluation.
        score_seconds: float. The part of it spent in the scoring function.
    """

    ranks: np.ndarray[Any, Any]
    metrics: dict[str, float]
    seconds: float
    score_seconds: float


def evaluate_ranking(
    score: Callable[..., Any],
    cases: EvaluationSet,
    *,
    ks: Sequence[int] = (10,),
    filter_seen: bool = True,
    item_counts: np.ndarray[Any, Any] | None = None,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> RankingResult:
    """Ranks every case's target among the whole catalogue.

    Ties, NaN scores and targets outside the catalogue count against the scoring
    function; see `target_ranks`. Cases are scored shortest history first, so that
    batches pad little; memory does not grow with their number, but for one rank each.

    Args:
        score: function from histories, int32 `[B, T]`, oldest first, left-padded with
            0, untruncated, to scores `[B, N]` whose column j belongs to item index
            j + 1. A NumPy array or a tensor. With a true attribute `time_aware` it
            is called with the histories, their timestamps int64 `[B, T]` and the
            request times int64 `[B]`. An attribute `side_features` names what it takes
            behind that of `tfrs_selfattn.data.with_sides`. It never gets the targets.
        cases: the `EvaluationSet` of a split.
        ks: ints. Cut-offs. Defaults to `(10,)`.
        filter_seen: bool. Leave the items of a user's history out of the ranking,
            except the target. Defaults to `True`.
        item_counts: int `[N]` or None. Training events of each item, for novelty:
            `split.train_counts()[1:]`. Defaults to `None`.
        batch_size: int. Users scored at a time, fewer where the catalogue is large.
            Defaults to `256`.
        progress: function or None. Called after each batch with the number of cases
            done and their total. Defaults to `None`.

    Returns:
        A `RankingResult`.
    """
    batch_size = check_positive_int("batch_size", batch_size)
    num_cases, num_items = len(cases), len(cases.sequences.vocabulary)
    if num_cases == 0:
        raise InputError(
            "`cases` must hold at least one user to evaluate. Received: an empty "
            "evaluation set. A split evaluates users with at least 3 events; use a log "
            "with longer histories, or filter less."
        )
    started = time.perf_counter()
    score_seconds = 0.0
    lists = RecommendedLists(num_items, ks, item_counts)
    ranks = np.empty(num_cases, np.int32)
    order = shortest_first(cases)
    cases = take(cases, order)
    batch_size = max(1, min(batch_size, _MAX_SCORES // num_items))
    for part in batches(num_cases, batch_size):
        inputs = score_inputs(score, cases, part)
        score_started = time.perf_counter()
        scores = tf.convert_to_tensor(score(*inputs))
        score_seconds += time.perf_counter() - score_started
        _check_shape(scores, part.stop - part.start, num_items)
        seen = inputs[0] if filter_seen else None
        ranks[order[part]] = target_ranks(scores, cases.targets[part], seen).numpy()
        if lists.ks:
            lists.update(recommended_items(scores, max(lists.ks), seen).numpy())
        if progress is not None:
            progress(part.stop, num_cases)
    return RankingResult(
        ranks=ranks,
        metrics=ranking_metrics(ranks, ks) | lists.metrics(),
        seconds=time.perf_counter() - started,
        score_seconds=score_seconds,
    )


def batches(num_cases: int, batch_size: int) -> Iterator[slice]:
    """The slices of successive batches; the last may be shorter."""
    for start in range(0, num_cases, batch_size):
        yield slice(start, min(start + batch_size, num_cases))


def score_inputs(
    score: Callable[..., Any], cases: EvaluationSet, part: slice
) -> tuple[Any, ...]:
    """What a scoring function is called with for a slice of the cases."""
    inputs: list[Any] = [cases.padded_histories(part.start, part.stop)]
    if getattr(score, "time_aware", False):
        times = cases.padded_timestamps(part.start, part.stop)
        inputs += [times, cases.request_times[part]]
    names = getattr(score, "side_features", ())
    if names:
        known = of_cases(cases, part.start, part.stop)
        inputs += [known[name] for name in names]
    return tuple(inputs)


def shortest_first(cases: EvaluationSet) -> np.ndarray[Any, Any]:
    """The order of cases by the length of their histories, stable."""
    lengths = cases.history_stop - cases.sequences.offsets[cases.users]
    order: np.ndarray[Any, Any] = np.argsort(lengths, kind="stable")
    return order


def take(cases: EvaluationSet, order: np.ndarray[Any, Any]) -> EvaluationSet:
    """These cases, in this order."""
    arrays = [field.name for field in fields(cases) if field.name != "sequences"]
    return replace(cases, **{name: getattr(cases, name)[order] for name in arrays})


def _check_shape(scores: tf.Tensor, num_rows: int, num_items: int) -> None:
    if tuple(scores.shape) != (num_rows, num_items):
        raise ValueError(
            f"`score` must return [{num_rows}, {num_items}]: a row for each "
            "history, a column for each item of the vocabulary. Received: shape "
            f"{tuple(scores.shape)}. Leave out the column of the padding item."
        )
