"""Full-ranking evaluation of anything that scores the catalogue.

Shape alphabet: B users, T positions, N candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn.evaluation.ranking import ranking_metrics, target_ranks

if TYPE_CHECKING:
    from tfrs_selfattn.data.splits import EvaluationSet


@dataclass(frozen=True)
class RankingResult:
    """What an evaluation found.

    Attributes:
        ranks: int32 `[C]`, one a case, in the order of the cases; best = 1.
        metrics: `{"hr@10": ..., "ndcg@10": ..., "mrr": ...}`.
        seconds: float. Wall time of the whole evaluation.
        score_seconds: float. The part of it spent in the scoring function.
    """

    ranks: np.ndarray[Any, Any]
    metrics: dict[str, float]
    seconds: float
    score_seconds: float


def evaluate_ranking(
    score: Callable[[np.ndarray[Any, Any]], Any],
    cases: EvaluationSet,
    *,
    ks: Sequence[int] = (10,),
    filter_seen: bool = True,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> RankingResult:
    """Ranks every case's target among the whole catalogue.

    Ties, NaN scores and targets outside the catalogue count against the scoring
    function; see `target_ranks`.

    Args:
        score: function from histories, int32 `[B, T]`, oldest first, left-padded with
            0, untruncated, to scores `[B, N]` whose column j belongs to item index
            j + 1. A NumPy array or a tensor.
        cases: the `EvaluationSet` of a split.
        ks: ints. Cut-offs of HR and NDCG. Defaults to `(10,)`.
        filter_seen: bool. Leave the items of a user's history out of the ranking,
            except the target. Defaults to `True`.
        batch_size: int. Users scored at a time. Defaults to `256`.
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
    ranks = []
    for start in range(0, num_cases, batch_size):
        stop = min(start + batch_size, num_cases)
        histories = cases.padded_histories(start, stop)
        score_started = time.perf_counter()
        scores = score(histories)
        score_seconds += time.perf_counter() - score_started
        if tuple(scores.shape) != (stop - start, num_items):
            raise ValueError(
                f"`score` must return [{stop - start}, {num_items}]: a row for each "
                "history, a column for each item of the vocabulary. Received: shape "
                f"{tuple(scores.shape)}. Leave out the column of the padding item."
            )
        seen = histories if filter_seen else None
        ranks.append(target_ranks(scores, cases.targets[start:stop], seen).numpy())
        if progress is not None:
            progress(stop, num_cases)
    all_ranks = np.concatenate(ranks)
    return RankingResult(
        ranks=all_ranks,
        metrics=ranking_metrics(all_ranks, ks),
        seconds=time.perf_counter() - started,
        score_seconds=score_seconds,
    )
