"""Sequences against a plain-Python oracle, and the invariants behind them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    build_sequences,
    events_from_frame,
    read_events,
    summarize,
)


def build(log, **kwargs):
    """Builds from a list of (user, item, time)."""
    frame = pl.DataFrame(
        log, schema=["user_id", "item_id", "timestamp"], orient="row"
    ).cast({"timestamp": pl.Int64})
    return build_sequences(events_from_frame(frame), **kwargs)


def by_user(sequences):
    """Returns {user: [(item, time), …]} in the order of the users."""
    table = {}
    for row in range(sequences.num_users):
        items, times = sequences.user(row)
        names = sequences.vocabulary.decode(items)
        table[sequences.user_ids[row]] = list(zip(names, times.tolist(), strict=True))
    return table


logs = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


@given(log=logs)
def test_sequences_equal_a_stable_sort_of_each_user(log):
    expected = {}
    for user, item, time in log:
        expected.setdefault(user, []).append((item, time))
    for history in expected.values():
        history.sort(key=lambda event: event[1])  # Python's sort is stable.
    built = build(log)
    assert by_user(built) == expected
    assert list(by_user(built)) == list(expected)  # Order of first appearance.
    assert built.lengths.tolist() == [len(part) for part in expected.values()]


@given(log=logs)
def test_vocabulary_is_by_frequency_then_id(log):
    counts = Counter(item for _, item, _ in log)
    expected = sorted(counts, key=lambda item: (-counts[item], item))
    vocabulary = build(log).vocabulary
    assert list(vocabulary.ids) == expected
    assert vocabulary.counts.tolist() == [counts[item] for item in expected]


@given(log=logs)
def test_summary_counts_what_is_there(log):
    summary = summarize(build(log))
    users = Counter(user for user, _, _ in log)
    assert summary.users == len(users)
    assert summary.items == len({item for _, item, _ in log})
    assert summary.events == len(log)
    assert summary.duplicate_events == len(log) - len(set(log))
    assert summary.one_event_users == sum(count == 1 for count in users.values())
    assert summary.first_time == min(time for _, _, time in log)
    assert summary.last_time == max(time for _, _, time in log)


@given(log=logs, min_item=st.integers(1, 3), min_user=st.integers(1, 3))
def test_rare_items_and_users_are_dropped_until_none_is_left(log, min_item, min_user):
    kept = list(log)
    while True:
        items = Counter(item for _, item, _ in kept)
        users = Counter(user for user, _, _ in kept)
        enough = [
            event
            for event in kept
            if items[event[1]] >= min_item and users[event[0]] >= min_user
        ]
        if len(enough) == len(kept):
            break
        kept = enough
    limits = {"min_item_events": min_item, "min_user_events": min_user}
    if kept:
        built, expected = build(log, **limits), build(kept)
        assert by_user(built) == by_user(expected)
        assert built.vocabulary.ids == expected.vocabulary.ids
    else:
        with pytest.raises(InputError, match=f"min_item_events={min_item}"):
            build(log, **limits)


def test_ids_are_ordered_as_strings_not_numbers():
    ids = build([("u", item, 0) for item in ("9", "10", "é", "z", "Z")]).vocabulary.ids
    assert ids == ("10", "9", "Z", "z", "é")


def test_a_user_is_found_by_id():
    built = build([("x", "a", 0), ("y", "b", 1)])
    assert built.index_of("y") == 1
    with pytest.raises(InputError, match=r"Received: 'z'\. .*2 users.*'x'"):
        built.index_of("z")


def test_types_are_the_documented_ones():
    built = build([("x", "a", 0)])
    assert built.offsets.dtype == built.timestamps.dtype == np.int64
    assert built.items.dtype == np.int32
    assert built.vocabulary.counts.dtype == np.int64


def test_other_logs_of_the_process_leave_no_trace():
    first = build([("x", "b", 0), ("x", "b", 1), ("x", "a", 2)])
    build([(f"other{i}", f"other{i}", 0) for i in range(50)])
    again = build([("x", "b", 0), ("x", "b", 1), ("x", "a", 2)])
    assert again.vocabulary.ids == first.vocabulary.ids == ("b", "a")


@pytest.mark.parametrize("name", ["min_item_events", "min_user_events"])
def test_limits_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        build([("x", "a", 0)], **{name: 0})


def test_movielens_100k(ml_100k):
    sequences = build_sequences(read_events(ml_100k))
    summary = summarize(sequences)
    assert (summary.users, summary.items, summary.events) == (943, 1682, 100_000)
    assert summary.duplicate_events == summary.one_event_users == 0
    assert sequences.vocabulary.ids[0] == "50"  # Star Wars, rated 583 times.
    assert sequences.vocabulary.counts[0] == 583
    assert sequences.user_ids[0] == "196"
