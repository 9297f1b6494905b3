"""`evaluate_ranking` over real splits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.evaluation import RankingResult, evaluate_ranking, ranking_metrics

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
    assert result.metrics == ranking_metrics(result.ranks, ks=(1, 2))
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
    first = batches[0]
    assert first.dtype == np.int32
    vocabulary = split.sequences.vocabulary
    assert vocabulary.decode(first[0]) == list("abcd")
    assert vocabulary.decode(first[1]) == ["", "", *"bc"]


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


def test_batch_size_must_be_positive(split):
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        evaluate_ranking(by_index, split.test, batch_size=0)
