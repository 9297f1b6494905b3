"""Packing loses no pair, mixes no users, and fills rows."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import split_of, training_parts
from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    build_sequences,
    events_from_frame,
    generate_events,
    leave_one_out,
    pack_rows,
    read_events,
    training_windows,
)


def all_pairs(split):
    return Counter(
        pair for part in training_parts(split) for pair in itertools.pairwise(part)
    )


def packed_pairs(rows):
    real = rows.targets > 0
    pairs = zip(rows.items[real].tolist(), rows.targets[real].tolist(), strict=True)
    return Counter(pairs)


many_lengths = st.lists(st.integers(1, 14), min_size=1, max_size=25)
row_lengths = st.integers(1, 11)


@given(lengths=many_lengths, row_length=row_lengths, pack=st.booleans())
def test_no_pair_is_lost_or_repeated(lengths, row_length, pack):
    split = split_of([*lengths, 5])
    rows = pack_rows(split, row_length=row_length, pack=pack)
    assert packed_pairs(rows) == all_pairs(split)
    assert rows.num_targets == sum(all_pairs(split).values())


@given(lengths=many_lengths, row_length=row_lengths, pack=st.booleans())
def test_a_segment_is_one_run_of_one_user(lengths, row_length, pack):
    split = split_of([*lengths, 5])
    owner = {i: u for u, part in enumerate(training_parts(split)) for i in part}
    rows = pack_rows(split, row_length=row_length, pack=pack)
    for items, targets, segments in zip(
        rows.items, rows.targets, rows.segment_ids, strict=True
    ):
        # Padding is padding in all three.
        assert ((items == 0) == (segments == 0)).all()
        assert ((targets == 0) == (segments == 0)).all()
        present = [segment for segment in np.unique(segments) if segment]
        assert present == list(range(1, len(present) + 1))
        for segment in present:
            slots = np.flatnonzero(segments == segment)
            assert (np.diff(slots) == 1).all()
            assert len({owner[item] for item in items[slots].tolist()}) == 1
            assert items[slots][1:].tolist() == targets[slots][:-1].tolist()


@given(lengths=many_lengths, row_length=row_lengths)
def test_newest_keeps_the_last_window_of_each_user(lengths, row_length):
    split = split_of([*lengths, 5])
    rows = pack_rows(split, row_length=row_length, windows="newest")
    expected = Counter(
        pair
        for part in training_parts(split)
        for pair in list(itertools.pairwise(part))[-row_length:]
    )
    assert packed_pairs(rows) == expected


@given(lengths=many_lengths, row_length=row_lengths)
def test_only_the_oldest_window_of_a_user_is_short(lengths, row_length):
    split = split_of(lengths)
    cut = training_windows(split, row_length=row_length)
    assert ((cut.lengths >= 1) & (cut.lengths <= row_length)).all()
    first_of_user = np.isin(cut.starts, split.sequences.offsets[:-1])
    assert (cut.lengths[~first_of_user] == row_length).all()


def test_unpacked_rows_hold_one_window_on_the_right():
    split = split_of([6, 9])  # 4 and 7 training items, so 3 and 6 pairs.
    rows = pack_rows(split, row_length=4, pack=False)
    assert sorted(rows.segment_ids.tolist()) == [
        [0, 0, 1, 1],
        [0, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_packed_rows_are_padded_on_the_right():
    rows = pack_rows(split_of([6, 6]), row_length=8)  # Two windows of 3 pairs.
    assert rows.segment_ids.tolist() == [[1, 1, 1, 2, 2, 2, 0, 0]]
    assert rows.fill == 6 / 8
    assert rows.row_length == 8
    assert rows.items.dtype == rows.targets.dtype == rows.segment_ids.dtype == np.int32


@pytest.mark.parametrize("pack", [True, False])
def test_times_are_those_of_the_items_and_of_their_targets(split, pack):
    options = {"row_length": 9, "pack": pack, "windows": "sliding", "stride": 4}
    rows = pack_rows(split, times=True, **options)
    assert rows.timestamps.dtype == rows.request_times.dtype == np.int64
    bare = pack_rows(split, **options)
    assert list(bare.features) == ["history", "targets", "segment_ids"]
    assert list(rows.features) == [*bare.features, "timestamps", "request_times"]
    for name, column in bare.features.items():
        np.testing.assert_array_equal(rows.features[name], column)
    log = split.sequences
    # A user's (item, time, next item, next time), however often it happened.
    happened = set()
    for user in range(log.num_users):
        items, times = log.user(user)
        events = list(zip(items.tolist(), times.tolist(), strict=True))
        happened |= set(itertools.pairwise(events))
    for row in range(len(rows)):
        for slot in range(rows.row_length):
            item, target, segment, time, request = (
                int(column[row, slot]) for column in rows.features.values()
            )
            if segment == 0:
                assert (time, request) == (0, 0)
            elif target:
                assert ((item, time), (target, request)) in happened
            else:  # Context: the next input is what was asked for.
                following = rows.items[row, slot + 1], rows.timestamps[row, slot + 1]
                assert request == following[1]
                assert ((item, time), following) in happened


def test_any_run_of_rows_is_a_fair_sample():
    # Shards are such runs; best fit would leave the long windows in the first ones.
    split = split_of(np.random.default_rng(0).integers(4, 30, 400))
    rows = pack_rows(split, row_length=40)
    segments = rows.segment_ids.max(axis=1)
    half = len(rows) // 2
    assert abs(segments[:half].mean() - segments[half:].mean()) < 0.5
    assert segments.std() > 0.5


def test_the_seed_alone_decides_which_users_share_rows(split):
    rows, same, other = (
        pack_rows(split, row_length=20, seed=seed) for seed in (1, 1, 2)
    )
    assert (rows.items == same.items).all()
    assert (rows.segment_ids == same.segment_ids).all()
    assert not np.array_equal(rows.items, other.items)
    assert packed_pairs(rows) == packed_pairs(other)


@given(lengths=many_lengths, row_length=st.integers(2, 11))
def test_rows_are_no_more_than_best_fit_decreasing_needs(lengths, row_length):
    split = split_of([*lengths, 5])
    rooms = []
    for length in sorted(training_windows(split, row_length=row_length).lengths)[::-1]:
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else row_length) - length)
    assert len(pack_rows(split, row_length=row_length)) == len(rooms)


def test_nothing_to_train_on_is_said():
    with pytest.raises(InputError, match=r"nothing to train on.*2 users with 4 events"):
        pack_rows(split_of([1, 3]), row_length=5)


def test_arguments_are_checked(split):
    with pytest.raises(ValueError, match="`row_length` must be a positive integer"):
        pack_rows(split, row_length=0)
    choices = "`windows` must be one of 'all', 'newest', 'sliding'"
    with pytest.raises(ValueError, match=choices):
        pack_rows(split, row_length=5, windows="oldest")


def test_many_windows_pack_in_seconds():
    # Seen: 0.3 s. A scan over open rows for every window would take minutes.
    frame = generate_events(300_000, 1000, 6.0, seed=0)
    split = leave_one_out(build_sequences(events_from_frame(frame)))
    start = time.perf_counter()
    rows = pack_rows(split, row_length=50)
    assert time.perf_counter() - start < 15
    assert rows.fill > 0.99


def test_movielens_100k_fills_its_rows(ml_100k):
    split = leave_one_out(build_sequences(read_events(ml_100k)))
    rows = pack_rows(split, row_length=200)
    assert rows.num_targets == 100_000 - 3 * 943
    assert rows.fill > 0.98  # Seen: 0.993; one window a row fills 0.44.
