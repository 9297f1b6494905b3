"""How sure a metric is, and whether two runs differ by more than chance.

Both resample whole cases. A metric of one case takes few distinct values, so a
resample is drawn as how often each value occurs, which has the same distribution as
drawing case by case and costs the same for a thousand users and for a million.

Cases count as independent: one a user. With several cases a user (a temporal split)
the intervals come out too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrs_selfattn._checks import check_fraction, check_positive_int
from tfrs_selfattn.evaluation.ranking import case_metrics

# Reciprocal ranks are resampled in steps of a ten-thousandth, which bounds the number
# of distinct values; the metrics themselves are exact.
_DECIMALS = 4
_DRAWS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A metric and the interval that its true value lies in with some confidence.

    Attributes:
        value: float. Over the cases at hand.
        low: float.
        high: float.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One metric of two runs on the same cases.

    Attributes:
        a: float. Of the first run.
        b: float. Of the second.
        difference: float. `b - a`.
        low: float. Lower end of the interval of the difference.
        high: float. Its upper end.
        p_value: float. How often a difference at least this large, in either
            direction, arises when it is left to chance which run a case's two values
            belong to.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    ranks: np.ndarray[Any, Any],
    *,
    ks: Sequence[int] = (10,),
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of the metrics of `ranking_metrics`.

    Says how far the metric would move with other users; not how far it would move
    with another seed of training.

    Args:
        ranks: int `[C]`, best = 1.
        ks: ints. Cut-offs. Defaults to `(10,)`.
        confidence: float in [0, 1). Defaults to `0.95`.
        resamples: int. Defaults to `2000`.
        seed: int. Defaults to `0`.

    Returns:
        An `Interval` for each key of `ranking_metrics`.

    References:
        - [Efron, 1979](https://doi.org/10.1214/aos/1176344552).
    """
    confidence = check_fraction("confidence", confidence)
    resamples = check_positive_int("resamples", resamples)
    random = np.random.default_rng(seed)
    intervals = {}
    for name, values in case_metrics(ranks, ks).items():
        low, high = _bootstrap(values, confidence, resamples, random)
        intervals[name] = Interval(float(values.mean()), low, high)
    return intervals


def compare(
    ranks_a: np.ndarray[Any, Any],
    ranks_b: np.ndarray[Any, Any],
    *,
    ks: Sequence[int] = (10,),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Tests whether one run ranks the same cases better than another.

    A paired randomization test: the difference of every case keeps or changes its
    sign by the toss of a coin. The interval of the difference is a paired bootstrap.

    Args:
        ranks_a: int `[C]`, best = 1, of the first run.
        ranks_b: int `[C]`, of the second, in the same order of cases.
        ks: ints. Cut-offs. Defaults to `(10,)`.
        confidence: float in [0, 1). Of the intervals. Defaults to `0.95`.
        resamples: int. The smallest p-value is 1 / (resamples + 1). Defaults to
            `10_000`.
        seed: int. Defaults to `0`.

    Returns:
        A `Comparison` for each key of `ranking_metrics`.

    References:
        - [Smucker, Allan and Carterette, 2007](https://doi.org/10.1145/1321440.1321528).
    """
    confidence = check_fraction("confidence", confidence)
    resamples = check_positive_int("resamples", resamples)
    if np.shape(ranks_a) != np.shape(ranks_b):
        raise ValueError(
            "`ranks_a` and `ranks_b` must be of the same cases. Received: shapes "
            f"{np.shape(ranks_a)} and {np.shape(ranks_b)}. Evaluate both runs on one "
            "`EvaluationSet`."
        )
    random = np.random.default_rng(seed)
    comparisons = {}
    metrics_a, metrics_b = case_metrics(ranks_a, ks), case_metrics(ranks_b, ks)
    for name, a in metrics_a.items():
        b = metrics_b[name]
        low, high = _bootstrap(b - a, confidence, resamples, random)
        comparisons[name] = Comparison(
            a=float(a.mean()),
            b=float(b.mean()),
            difference=float((b - a).mean()),
            low=low,
            high=high,
            p_value=_sign_flip_test(b - a, resamples, random),
        )
    return comparisons


def _bootstrap(
    values: np.ndarray[Any, Any],
    confidence: float,
    resamples: int,
    random: np.random.Generator,
) -> tuple[float, float]:
    """The percentile interval of the mean of `values` `[C]`."""
    distinct, counts = np.unique(values.round(_DECIMALS), return_counts=True)
    share = counts / len(values)
    means = np.concatenate(
        [
            random.multinomial(len(values), share, size=size) @ distinct
            for size in _portions(resamples, len(distinct))
        ]
    ) / len(values)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _sign_flip_test(
    differences: np.ndarray[Any, Any], resamples: int, random: np.random.Generator
) -> float:
    """The two-sided p-value of the mean of paired `differences` `[C]`."""
    rounded = differences.round(_DECIMALS)
    sizes, counts = np.unique(np.abs(rounded), return_counts=True)
    as_extreme = 0
    observed = abs(rounded.sum())
    for size in _portions(resamples, len(sizes)):
        positive = random.binomial(counts, 0.5, size=(size, len(sizes)))
        sums = np.abs((2 * positive - counts) @ sizes)
        # Sums of the same terms in another order may differ in their last digits.
        as_extreme += int(np.count_nonzero(sums >= observed * (1 - 1e-9)))
    # The observed assignment is one of the possible ones: never a p-value of 0.
    return (1 + as_extreme) / (1 + resamples)


def _portions(resamples: int, num_values: int) -> Iterator[int]:
    """Splits the resamples so that the draws of a portion fit in little memory."""
    portion = max(1, _DRAWS_AT_A_TIME // num_values)
    for start in range(0, resamples, portion):
        yield min(portion, resamples - start)
