"""Intervals and tests against what theory says, and against drawing case by case."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tfrs_selfattn.evaluation import bootstrap_intervals, compare, ranking_metrics


def ranks_of(seed, size, highest=40):
    return np.random.default_rng(seed).integers(1, highest + 1, size)


def test_intervals_are_those_of_the_normal_limit():
    ranks = ranks_of(0, 2000)
    intervals = bootstrap_intervals(ranks, ks=(10,), resamples=4000)
    metrics = ranking_metrics(ranks, ks=(10,))
    assert intervals.keys() == metrics.keys()
    gains = {"hr@10": ranks <= 10, "mrr": 1 / ranks, "map@10": (ranks <= 10) / ranks}
    for name, gain in gains.items():
        half = 1.96 * gain.std() / math.sqrt(len(ranks))
        assert intervals[name].value == pytest.approx(metrics[name])
        assert intervals[name].low == pytest.approx(metrics[name] - half, abs=half / 10)
        assert intervals[name].high == pytest.approx(
            metrics[name] + half, abs=half / 10
        )


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = 10 / 40
    held = [
        interval.low <= truth <= interval.high
        for seed in range(300)
        for interval in [
            bootstrap_intervals(ranks_of(seed, 400), resamples=400, confidence=0.8)[
                "hr@10"
            ]
        ]
    ]
    # 300 draws at .8: standard deviation .023.
    assert 0.73 < np.mean(held) < 0.87


def test_seeds_make_them_repeatable():
    ranks, others = ranks_of(1, 50), ranks_of(2, 50)
    assert bootstrap_intervals(ranks) == bootstrap_intervals(ranks)
    assert bootstrap_intervals(ranks) != bootstrap_intervals(ranks, seed=1)
    assert compare(ranks, others) == compare(ranks, others)


def test_a_sure_thing_has_no_interval():
    interval = bootstrap_intervals(np.ones(30, np.int32))["mrr"]
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def exact_p_value(differences):
    """All 2^C ways to assign the signs."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product([1, -1], repeat=len(differences))
    ]
    return np.mean([total >= observed - 1e-9 for total in sums])


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_assignments(seed):
    a, b = ranks_of(seed, 11, highest=15), ranks_of(seed + 50, 11, highest=9)
    comparisons = compare(a, b, ks=(5,), resamples=20_000)
    for name, gain in {
        "hr@5": lambda ranks: (ranks <= 5).astype(float),
        "mrr": lambda ranks: (1 / ranks).round(4),
    }.items():
        expected = exact_p_value(gain(b) - gain(a))
        assert comparisons[name].p_value == pytest.approx(expected, abs=0.015)


def test_the_same_run_twice_differs_in_nothing():
    comparison = compare(ranks_of(3, 100), ranks_of(3, 100))["ndcg@10"]
    assert comparison.difference == comparison.low == comparison.high == 0
    assert comparison.p_value == 1


def test_a_real_difference_is_found_and_its_direction():
    worse = ranks_of(4, 500)
    better = np.maximum(1, worse - 6)
    found = compare(worse, better)["ndcg@10"]
    assert found.difference == pytest.approx(found.b - found.a)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value == 1 / 10_001
    back = compare(better, worse)["ndcg@10"]
    assert back.difference == -found.difference
    assert back.high < 0


def test_chance_is_called_chance():
    values = [
        compare(ranks_of(seed, 60), ranks_of(seed + 999, 60), resamples=500)[
            "mrr"
        ].p_value
        for seed in range(200)
    ]
    # P-values of equal runs are uniform: a share of .1 below .1, deviation .021.
    assert 0.03 < np.mean(np.array(values) < 0.1) < 0.17


def test_pairing_matters():
    """The same two sets of ranks, paired or not: only paired is the difference sure."""
    easy_and_hard = np.tile([1, 30], 200)
    a, b = easy_and_hard + 1, easy_and_hard
    paired = compare(a, b)["mrr"]
    shuffled = compare(a, np.random.default_rng(0).permutation(b))["mrr"]
    assert paired.high - paired.low < 0.7 * (shuffled.high - shuffled.low)


def test_draws_are_made_in_portions(monkeypatch):
    from tfrs_selfattn.evaluation import uncertainty

    monkeypatch.setattr(uncertainty, "_DRAWS_AT_A_TIME", 64)
    ranks, others = ranks_of(5, 100), ranks_of(6, 100)
    interval = bootstrap_intervals(ranks, resamples=301)["mrr"]
    assert interval.low < interval.value < interval.high
    assert 0 < compare(ranks, others, resamples=301)["mrr"].p_value <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confidence": 1.0}, r"`confidence` must be a number in \[0, 1\)"),
        ({"resamples": 0}, "`resamples` must be a positive integer"),
    ],
)
def test_arguments_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(ranks_of(0, 5), **wrong)
    with pytest.raises(ValueError, match=message):
        compare(ranks_of(0, 5), ranks_of(1, 5), **wrong)


def test_runs_on_other_cases_cannot_be_compared():
    with pytest.raises(ValueError, match=r"same cases\. Received: shapes \(4,\) and"):
        compare(ranks_of(0, 4), ranks_of(0, 5))
