"""Leaking recommenders are found out; honest ones pass; nothing stays changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tfrs_selfattn.data import leave_one_out, temporal_split
from tfrs_selfattn.evaluation import (
    EASE,
    ItemKNN,
    ItemToItem,
    LeakError,
    MostPopular,
    check_no_leak,
    check_no_training_leak,
)

HISTORIES = ("abcde", "bcadeba", "cadbe", "ab", "eebacd", "dcbabaeec")
BASELINES = [MostPopular, ItemToItem, ItemKNN, EASE]


@pytest.fixture
def split(split_of):
    return split_of(*HISTORIES)


@pytest.fixture(autouse=True)
def assert_nothing_stays_changed(split):
    arrays = [
        split.sequences.items,
        split.sequences.timestamps,
        split.validation.targets,
        split.test.targets,
    ]
    before = [array.copy() for array in arrays]
    yield
    for array, known in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, known)
        assert array.flags.writeable


def one_hot(items, num_items=5):
    return np.eye(num_items + 1, dtype=np.float32)[items][:, 1:]


def users_of(cases, histories):
    """The case that each padded history belongs to, by its items."""
    texts = {tuple(cases.history(case)): case for case in range(len(cases))}
    return [texts[tuple(row[row != 0])] for row in histories]


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_honest_functions_pass(split, baseline, batch_size):
    check_no_leak(baseline(split), split.test, batch_size=batch_size)
    check_no_leak(baseline(split), split.validation, batch_size=batch_size)
    check_no_training_leak(baseline, split, batch_size=batch_size)


def test_reading_the_targets_is_found(split):
    cases = split.test

    def score(histories):
        return one_hot(cases.targets[users_of(cases, histories)])

    with pytest.raises(LeakError, match=r"must not depend on the target or on later"):
        check_no_leak(score, cases)


def test_reading_a_users_later_events_is_found(split):
    """Validation scored by the last item of all, which is the test item."""
    cases, sequences = split.validation, split.sequences
    last = sequences.offsets[cases.users + 1] - 1

    def score(histories):
        return one_hot(sequences.items[last[users_of(cases, histories)]])

    with pytest.raises(LeakError, match=r"case 0, user 'user 0', the score of item '"):
        check_no_leak(score, cases)


def test_reading_the_times_of_later_events_is_found(split):
    cases, sequences = split.validation, split.sequences
    last = sequences.offsets[cases.users + 1] - 1

    def score(histories):
        times = sequences.timestamps[last[users_of(cases, histories)]]
        return np.tile(times[:, None], (1, 5))

    with pytest.raises(LeakError, match=r"changed from 4 to 5"):
        check_no_leak(score, cases)


def test_a_time_aware_function_may_use_the_request_time(split):
    def score(histories, timestamps, request_times):
        ages = request_times[:, None] - timestamps
        return one_hot(histories[:, -1]) / ages[:, -1:]

    score.time_aware = True
    check_no_leak(score, split.test)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda cases: {"history_stop": cases.history_stop + 1},
        lambda cases: {"history_stop": cases.history_stop - 2},
        lambda cases: {"targets": np.roll(cases.targets, 1)},
        lambda cases: {"users": cases.users - 1},
        lambda cases: {"request_times": cases.request_times + 1},
    ],
)
def test_histories_that_reach_too_far_are_found(split, wrong):
    cases = replace(split.test, **wrong(split.test))
    with pytest.raises(LeakError, match=r"right before its target\. Received: the his"):
        check_no_leak(MostPopular(split), cases)


def test_scores_that_change_by_themselves_are_found(split):
    random = np.random.default_rng(0)
    with pytest.raises(LeakError, match=r"from call to call \(dropout\)"):
        check_no_leak(lambda histories: random.random([len(histories), 5]), split.test)


def test_nan_equals_nan(split):
    check_no_leak(lambda histories: np.full([len(histories), 5], np.nan), split.test)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("events", [1, 2])
def test_training_on_held_out_events_is_found(split, baseline, events):
    """Fitted to all events but the last, or to all of them."""

    def fit(split):
        stop = split.train_stop.copy()
        stop[split.test.users] += events
        return baseline(replace(split, train_stop=stop))

    with pytest.raises(LeakError, match=r"must not depend on the target or on later"):
        check_no_training_leak(fit, split)


@pytest.fixture
def by_the_clock(split):
    """Training ends before time 2, validation before time 4."""
    return temporal_split(split.sequences, validation_time=2, test_time=4)


@pytest.mark.parametrize("baseline", BASELINES)
def test_honest_functions_pass_by_the_clock(by_the_clock, baseline):
    for cases in (by_the_clock.validation, by_the_clock.test):
        assert len(cases) > 1
        check_no_leak(baseline(by_the_clock), cases)
    check_no_training_leak(baseline, by_the_clock)


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_model_of_another_split_is_found_by_the_clock(split, by_the_clock, baseline):
    """Leave-one-out trains on events that the clock holds out, of the same log."""

    def fit(clock):
        stop = np.maximum(clock.train_stop, split.train_stop)
        return baseline(replace(clock, train_stop=stop))

    with pytest.raises(LeakError, match=r"must not depend on the target or on later"):
        check_no_training_leak(fit, by_the_clock)


def test_reading_what_others_did_later_is_found_by_the_clock(by_the_clock):
    """The target of a case from what all users did from its time on."""
    cases, sequences = by_the_clock.test, by_the_clock.sequences

    def score(histories):
        later = sequences.items[sequences.timestamps >= 4]
        counts = np.bincount(later, minlength=6)[1:].astype(np.float32)
        return np.tile(counts, (len(histories), 1))

    with pytest.raises(LeakError):
        check_no_leak(score, cases)


def test_several_cases_of_a_user(split):
    """A later case may see the target of an earlier one, but not the reverse."""
    users = np.concatenate([split.test.users, split.validation.users])
    stops = np.concatenate([split.test.history_stop, split.validation.history_stop])
    cases = replace(
        split.test,
        users=users,
        history_stop=stops,
        targets=split.sequences.items[stops],
        request_times=split.sequences.timestamps[stops],
    )
    check_no_leak(ItemToItem(split), cases)

    def score(histories):
        return one_hot(cases.targets[users_of(cases, histories)])

    with pytest.raises(LeakError):
        check_no_leak(score, cases, batch_size=3)


def test_a_failing_function_leaves_nothing_changed(split):
    calls = []

    def score(histories):
        calls.append(histories)
        if len(calls) == 2:
            raise RuntimeError("stopped")
        return one_hot(histories[:, -1])

    with pytest.raises(RuntimeError, match="stopped"):
        check_no_leak(score, split.test)


def test_one_item_tells_nothing(split_of):
    split = leave_one_out(split_of("aaaa").sequences)
    with pytest.raises(ValueError, match=r"at least two items to tell apart"):
        check_no_leak(MostPopular(split), split.test)
