"""`evaluate_ranking` over real splits."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.evaluation import RankingResult, evaluate_ranking, ranking_metrics

evaluate_module = importlib.import_module("tfrs_selfattn.evaluation.evaluate")

HISTORIES = ("abcde", "bca", "cadbe", "ab", "eeba", "dcbab")


@pytest.fixture
def split(split_of):
    return split_of(*HISTORIES)


def by_index(histories):
    """Item index j scores j."""
    return np.tile(np.arange(1, 6, dtype=np.float32), (len(histories), 1))


def expected_ranks(cases, filter_seen):
    """With `by_index`, the rank is the number of eligible items from the target on."""
    ranks = []
    for case in range(len(cases)):
        target = int(cases.targets[case])
        seen = set(cases.history(case).tolist()) if filter_seen else set()
        ranks.append(1 + len([j for j in range(target + 1, 6) if j not in seen]))
    return ranks


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_ranks_in_the_order_of_the_cases(split, part, filter_seen, batch_size):
    cases = getattr(split, part)
    assert len(cases) == 5
    result = evaluate_ranking(
        by_index, cases, ks=(1, 2), filter_seen=filter_seen, batch_size=batch_size
    )
    assert isinstance(result, RankingResult)
    np.testing.assert_array_equal(result.ranks, expected_ranks(cases, filter_seen))
    expected = ranking_metrics(result.ranks, ks=(1, 2))
    assert {name: result.metrics[name] for name in expected} == expected
    assert result.metrics.keys() - expected.keys() == {"coverage@1", "coverage@2"}
    assert 0 <= result.score_seconds <= result.seconds


def test_seen_items_are_filtered_unless_asked_otherwise(split):
    filtered = evaluate_ranking(by_index, split.test)
    everything = evaluate_ranking(by_index, split.test, filter_seen=False)
    assert (filtered.ranks <= everything.ranks).all()
    assert (filtered.ranks < everything.ranks).any()


def test_the_scoring_function_sees_whole_left_padded_histories(split):
    batches = []

    def score(histories):
        batches.append(histories)
        return tf.zeros([len(histories), 5])

    result = evaluate_ranking(score, split.test, batch_size=2)
    assert result.metrics["hr@10"] == 1  # Five items: whoever is last is within ten.
    assert batches[0].dtype == np.int32
    vocabulary = split.sequences.vocabulary
    # The shortest first: less padding.
    decoded = [[vocabulary.decode(row) for row in batch] for batch in batches]
    assert decoded == [
        [["", *"bc"], [*"eeb"]],
        [[*"abcd"], [*"cadb"]],
        [[*"dcba"]],
    ]


def test_progress_is_told_after_each_batch(split):
    calls = []
    evaluate_ranking(
        by_index,
        split.test,
        batch_size=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]


def test_a_wrong_width_is_an_error(split):
    with pytest.raises(ValueError, match=r"`score` must return \[5, 5\].*\(5, 6\)"):
        evaluate_ranking(lambda histories: np.zeros([5, 6], np.float32), split.test)


def test_an_empty_set_is_an_error(split_of):
    with pytest.raises(InputError, match="at least one user to evaluate"):
        evaluate_ranking(by_index, split_of("ab", "ba").test)


class TimeAware:
    """Scores by what it is given; notes it."""

    time_aware = True

    def __init__(self):
        self.calls = []

    def __call__(self, histories, timestamps, request_times):
        self.calls.append((histories, timestamps, request_times))
        return by_index(histories)


def test_a_time_aware_function_also_gets_the_times(split):
    score = TimeAware()
    result = evaluate_ranking(score, split.test, batch_size=3)
    plain = evaluate_ranking(by_index, split.test)
    np.testing.assert_array_equal(result.ranks, plain.ranks)
    for histories, timestamps, request_times in score.calls:
        assert timestamps.dtype == request_times.dtype == np.int64
        # `split_of` stamps a user's events 0, 1, 2, …
        expected = np.arange(histories.shape[1]) - (histories == 0).sum(1)[:, None]
        np.testing.assert_array_equal(timestamps, np.maximum(expected, 0))
        np.testing.assert_array_equal(request_times, (histories != 0).sum(1))


def test_large_catalogues_are_scored_in_smaller_batches(split, monkeypatch):
    plain = evaluate_ranking(by_index, split.test)
    monkeypatch.setattr(evaluate_module, "_MAX_SCORES", 2 * 5)
    sizes = []

    def score(histories):
        sizes.append(len(histories))
        return by_index(histories)

    result = evaluate_ranking(score, split.test)
    assert sizes == [2, 2, 1]
    np.testing.assert_array_equal(result.ranks, plain.ranks)
    monkeypatch.setattr(evaluate_module, "_MAX_SCORES", 1)
    assert evaluate_ranking(by_index, split.test).metrics == plain.metrics


def test_coverage_and_novelty_of_what_is_recommended(split):
    counts = split.train_counts()[1:]
    result = evaluate_ranking(by_index, split.test, ks=(1, 2), item_counts=counts)
    shown = []
    for case in range(len(split.test)):
        seen = set(split.test.history(case).tolist())
        shown.append([j for j in (5, 4, 3, 2, 1) if j not in seen][:2])
    for k in (1, 2):
        items = [item for row in shown for item in row[:k]]
        bits = [-math.log2(max(1, counts[j - 1]) / counts.sum()) for j in items]
        assert result.metrics[f"coverage@{k}"] == len(set(items)) / 5
        assert result.metrics[f"novelty@{k}"] == pytest.approx(np.mean(bits))


def test_batch_size_must_be_positive(split):
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        evaluate_ranking(by_index, split.test, batch_size=0)
