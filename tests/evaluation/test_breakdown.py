"""Groups of cases, against going through the cases one by one."""

from __future__ import annotations

import numpy as np
import pytest

from tfrs_selfattn.evaluation import (
    by_history_length,
    by_item_popularity,
    ranking_metrics,
)


@pytest.fixture
def split(split_of):
    rng = np.random.default_rng(3)
    letters, weights = list("abcdefghijk"), np.arange(11, 0, -1) ** 2.0
    lengths = rng.integers(3, 30, 60)
    draws = [rng.choice(letters, n, p=weights / weights.sum()) for n in lengths]
    # Nobody but the last user has "z", as a test target only.
    return split_of(*("".join(draw) for draw in draws), "abz")


@pytest.fixture
def ranks(split):
    return np.random.default_rng(4).integers(1, 15, len(split.test))


def test_by_history_length(split, ranks):
    groups = by_history_length(ranks, split.test, edges=(5, 10, 25), ks=(3,))
    lengths = [len(split.test.history(case)) for case in range(len(split.test))]
    ranges = {"0–4": (0, 5), "5–9": (5, 10), "10–24": (10, 25), "25 or more": (25, 99)}
    assert [group.label for group in groups] == list(ranges)
    for group, (low, high) in zip(groups, ranges.values(), strict=True):
        mine = ranks[[low <= length < high for length in lengths]]
        assert group.cases == len(mine)
        assert group.metrics == ranking_metrics(mine, ks=(3,))
    assert sum(group.cases for group in groups) == len(ranks)


def test_groups_without_cases_are_left_out(split, ranks):
    groups = by_history_length(ranks, split.test, edges=(1, 50))
    assert [group.label for group in groups] == ["1–49"]


def test_by_item_popularity(split, ranks):
    counts = split.train_counts()[1:]
    groups = by_item_popularity(
        ranks, split.test, counts, percentages=(10, 50), ks=(3,)
    )
    trained = [j for j in np.argsort(-counts, kind="stable") + 1 if counts[j - 1]]
    assert len(trained) == 11
    # 10 % of 11 items is 2 of them, rounded up; half is 6.
    members = {
        "top 10 %": trained[:2],
        "10–50 %": trained[2:6],
        "50–100 %": trained[6:],
        "not in training": split.sequences.vocabulary.encode(["z"]).tolist(),
    }
    assert [group.label for group in groups] == list(members)
    for group, items in zip(groups, members.values(), strict=True):
        mine = ranks[np.isin(split.test.targets, items)]
        assert group.cases == len(mine)
        assert group.metrics == ranking_metrics(mine, ks=(3,))


def test_wrong_arguments(split, ranks):
    with pytest.raises(ValueError, match=r"`ranks` must hold one rank for each of the"):
        by_history_length(ranks[1:], split.test)
    for edges in ((20, 10), (), (0, 5), (5, 5)):
        with pytest.raises(ValueError, match="`edges` must be positive numbers in asc"):
            by_history_length(ranks, split.test, edges=edges)
    counts = split.train_counts()
    with pytest.raises(ValueError, match=r"`item_counts` must be the training events"):
        by_item_popularity(ranks, split.test, counts)
    with pytest.raises(ValueError, match="`percentages` must be"):
        by_item_popularity(ranks, split.test, counts[1:], percentages=(50, 10))
