"""Sliding windows train every target once and give each one a long context."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import split_of, training_parts
from tfrs_selfattn.data import bucket_rows, pack_rows, training_windows

many_lengths = st.lists(st.integers(1, 19), min_size=1, max_size=9)


def expected_windows(parts, row_length, stride):
    """Plain loops: from the newest pair backwards, until nothing is left to train."""
    windows = []
    for part in parts:
        pairs = list(itertools.pairwise(part))
        stop = len(pairs)
        while stop > 0:
            start = max(0, stop - row_length)
            context = 0 if start == 0 else row_length - stride
            windows.append((pairs[start:stop], context))
            stop = stop - stride if start else 0
    return windows


def cut(split, windows):
    items = split.sequences.items
    return [
        (
            [(items[at], items[at + 1]) for at in range(start, start + length)],
            context,
        )
        for start, length, context in zip(
            windows.starts.tolist(),
            windows.lengths.tolist(),
            windows.contexts.tolist(),
            strict=True,
        )
    ]


@given(lengths=many_lengths, row_length=st.integers(1, 8), data=st.data())
def test_sliding_windows_equal_plain_loops(lengths, row_length, data):
    stride = data.draw(st.integers(1, row_length))
    split = split_of([*lengths, 5])
    found = training_windows(
        split, row_length=row_length, windows="sliding", stride=stride
    )
    expected = expected_windows(training_parts(split), row_length, stride)
    assert cut(split, found) == expected


@given(
    lengths=many_lengths,
    row_length=st.integers(1, 8),
    pack=st.booleans(),
    data=st.data(),
)
def test_every_target_is_trained_once_with_a_long_context(
    lengths, row_length, pack, data
):
    stride = data.draw(st.integers(1, row_length))
    split = split_of([*lengths, 5])
    rows = pack_rows(
        split, row_length=row_length, windows="sliding", stride=stride, pack=pack
    )
    place = {
        item: (part, index)
        for part in training_parts(split)
        for index, item in enumerate(part)
    }
    trained = Counter()
    for items, targets, segments in zip(
        rows.items, rows.targets, rows.segment_ids, strict=True
    ):
        for slot in np.flatnonzero(targets):
            part, index = place[int(targets[slot])]
            same = np.flatnonzero(segments[: slot + 1] == segments[slot])
            seen = items[same].tolist()
            # The newest items before the target, in order, and enough of them.
            assert seen == part[index - len(seen) : index]
            assert len(seen) >= min(index, row_length - stride + 1)
            trained[int(targets[slot])] += 1
    expected = Counter(item for part in training_parts(split) for item in part[1:])
    assert trained == expected
    assert rows.num_targets == expected.total()


def test_a_stride_of_the_row_length_lays_windows_end_to_end(split):
    rows, other = (
        pack_rows(split, row_length=7, **options)
        for options in ({}, {"windows": "sliding", "stride": 7})
    )
    for name, column in rows.features.items():
        np.testing.assert_array_equal(other.features[name], column)


def test_the_stride_is_half_a_row_by_default():
    split = split_of([23])
    found = training_windows(split, row_length=8, windows="sliding")
    assert found.lengths.tolist() == [8, 8, 8, 8]  # 20 pairs
    assert found.contexts.tolist() == [4, 4, 4, 0]
    assert np.diff(found.starts).tolist() == [-4, -4, -4]
    narrow = training_windows(split, row_length=1, windows="sliding")
    assert len(narrow) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0, "windows": "sliding"}, "`stride` must be a positive integer"),
        (
            {"stride": 6, "windows": "sliding"},
            r"must not exceed `row_length`.*stride=6, row_length=5.*smaller",
        ),
        ({"stride": 3}, r"belongs to windows='sliding'\. Received: stride=3.*'all'"),
    ],
)
def test_strides_that_make_no_sense(split, options, message):
    with pytest.raises(ValueError, match=message):
        pack_rows(split, row_length=5, **options)


@given(lengths=many_lengths, data=st.data())
def test_buckets_hold_the_windows_of_unpacked_rows(lengths, data):
    widths = data.draw(st.lists(st.integers(1, 10), max_size=3))
    split = split_of([*lengths, 5])
    options = {"row_length": 10, "windows": "sliding", "stride": 3, "times": True}
    found = bucket_rows(split, widths=widths, **options)
    plain = pack_rows(split, pack=False, **options)
    edges = sorted({*widths, 10})
    assert {bucket.row_length for bucket in found.buckets} <= set(edges)

    def windows(rows):
        columns = np.stack(list(rows.features.values()), axis=-1)
        real = rows.segment_ids > 0
        return [columns[row][real[row]].tolist() for row in range(len(rows))]

    everything = []
    for bucket in found.buckets:
        narrower = max([0, *(edge for edge in edges if edge < bucket.row_length)])
        length = (bucket.segment_ids > 0).sum(axis=1)
        assert ((length > narrower) & (length <= bucket.row_length)).all()
        assert (bucket.segment_ids[:, -1] == 1).all()  # padded on the left
        everything += windows(bucket)
    assert sorted(everything) == sorted(windows(plain))
    assert found.num_targets == plain.num_targets
    assert len(found) == len(plain)
    assert found.row_length == max(bucket.row_length for bucket in found.buckets)


def test_default_widths_halve_and_waste_little(split):
    rows = bucket_rows(split, row_length=50)
    assert [bucket.row_length for bucket in rows.buckets] == [12, 25, 50]
    plain = pack_rows(split, row_length=50, pack=False)
    real = np.count_nonzero(plain.items)
    slots = sum(bucket.items.size for bucket in rows.buckets)
    assert rows.fill == pytest.approx(real / slots)
    assert rows.fill > 1.5 * plain.fill


def test_widths_are_checked(split):
    with pytest.raises(ValueError, match=r"`widths` must not exceed.*row_length=9"):
        bucket_rows(split, row_length=9, widths=[4, 12])
    with pytest.raises(ValueError, match="`widths` must be a positive integer"):
        bucket_rows(split, row_length=9, widths=[0])
