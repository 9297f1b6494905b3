"""What is known beside ids follows the events, into rows, shards and cases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.data.logs import split_of
from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    SideTable,
    bucket_rows,
    evaluation_dataset,
    pack_rows,
    read_shards,
    training_dataset,
    with_sides,
    write_shards,
)
from tfrs_selfattn.data.packing import plan_rows
from tfrs_selfattn.data.side import EVENT, PARTS, QUERY, of_cases

LENGTHS = [1, 9, 4, 14, 5, 2, 11]


def known_of(split, shift):
    """Of event e the number e + shift, and 1 to 3 tokens that say it again.

    0 is what padding has, and no event has it.
    """
    count = split.sequences.num_events
    numbers = np.arange(count) + shift
    lengths = 1 + numbers % 3
    return SideTable(
        splits=np.concatenate([[0], np.cumsum(lengths)]),
        tokens=np.repeat(numbers, lengths).astype(np.int32),
        weights=np.repeat(1 / lengths, lengths).astype(np.float32),
        dense=np.stack([numbers, -numbers], axis=1).astype(np.float32),
        thing_of=np.arange(count, dtype=np.int32),
    )


@pytest.fixture(scope="module")
def split():
    split = split_of(LENGTHS)
    sides = {QUERY: known_of(split, 1000), EVENT: known_of(split, 1)}
    return with_sides(split, sides)


def place_of(split):
    """The place in the log of each item, which stands there alone; 0 for padding."""
    places = np.zeros(len(split.sequences.vocabulary) + 1, int)
    places[split.sequences.items] = np.arange(split.sequences.num_events)
    return places


def check(tokens, weights, dense, number):
    """Whether the columns say this number, 0 for nothing."""
    assert dense.tolist() == [number, -number]
    length = 1 + number % 3 if number else 0
    assert tokens.tolist() == [number] * length + [0] * (3 - length)
    np.testing.assert_allclose(weights.sum(), 1 if number else 0, rtol=1e-6)


def check_rows(split, rows, starts):
    places, seen = place_of(split), 0
    sides = {
        name: [rows.sides[f"{name}/{part}"] for part in PARTS]
        for name in (QUERY, EVENT)
    }
    for at in np.ndindex(rows.items.shape):
        item, target, segment = rows.items[at], rows.targets[at], rows.segment_ids[at]
        event = [part[at] for part in sides[EVENT]]
        query = [part[at] for part in sides[QUERY]]
        if not segment:
            check(*event, 0)
            check(*query, 0)
            continue
        if item:
            check(*event, places[item] + 1)
        else:  # the start of a user, of whom no event is known
            assert starts
            check(*event, 0)
        if target:
            check(*query, places[target] + 1000)
            seen += 1
    return seen


@pytest.mark.parametrize("starts", [False, True])
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    "windows", [{}, {"windows": "sliding", "stride": 2}, {"windows": "newest"}]
)
def test_rows_say_of_each_slot_what_is_known_of_it(split, starts, pack, windows):
    rows = pack_rows(split, row_length=5, starts=starts, pack=pack, **windows)
    assert check_rows(split, rows, starts) == rows.num_targets


def test_starts_train_the_first_item_of_each_user(split):
    plain = pack_rows(split, row_length=5)
    rows = pack_rows(split, row_length=5, starts=True)
    firsts = split.sequences.items[split.sequences.offsets[:-1]]
    trained = split.train_stop > split.sequences.offsets[:-1]
    assert not set(firsts) & set(plain.targets.reshape(-1).tolist())
    blank = (rows.items == 0) & (rows.segment_ids > 0)
    assert sorted(rows.targets[blank].tolist()) == sorted(firsts[trained].tolist())
    assert rows.num_targets == plain.num_targets + trained.sum()


def test_the_users_of_rows_are_found_by_their_starts_too(split):
    plan = plan_rows(
        split,
        row_length=5,
        windows="all",
        stride=None,
        pack=True,
        times=False,
        starts=True,
        seed=0,
    )
    log, places = split.sequences, place_of(split)
    rows = plan.lay_out(0, plan.num_rows)
    for row, targets in enumerate(rows.targets):
        owners = np.searchsorted(log.offsets, places[targets[targets > 0]], "right") - 1
        assert plan.users_of(np.array([row])).tolist() == np.unique(owners).tolist()


def test_buckets_carry_them_too(split):
    rows = bucket_rows(split, row_length=8, widths=[4, 8], starts=True)
    assert len(rows.buckets) == 2
    for bucket in rows.buckets:
        check_rows(split, bucket, starts=True)


OPTIONS = {"row_length": 5, "starts": True, "seed": 4}


def arrays(batch):
    return {
        name: [np.asarray(part) for part in value]
        if isinstance(value, tuple)
        else np.asarray(value)
        for name, value in batch.items()
    }


@pytest.mark.parametrize("times", [False, True])
def test_shards_hold_what_memory_holds(split, tmp_path, times):
    rows = pack_rows(split, times=times, **OPTIONS)
    written = write_shards(
        split, tmp_path / "rows", times=times, rows_per_shard=3, **OPTIONS
    )
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert manifest["format"] == 2  # which an earlier reader refuses
    assert written.options["starts"] is True
    loaded = read_shards(tmp_path / "rows", verify=True).load()
    assert list(loaded.features) == list(rows.features)
    for name, column in rows.features.items():
        np.testing.assert_array_equal(loaded.features[name], column, err_msg=name)
        assert loaded.features[name].dtype == column.dtype

    batches = [
        list(training_dataset(each, batch_size=2, seed=1, **options).take(9))
        for each, options in ((rows, {"shuffle_block": 3}), (written, {}))
    ]
    for one, other in zip(*batches, strict=True):
        one, other = arrays(one), arrays(other)
        assert one.keys() == other.keys() >= {QUERY, EVENT}
        for name, value in one.items():
            for mine, theirs in zip(value, other[name], strict=True):
                np.testing.assert_array_equal(mine, theirs, err_msg=name)
                assert mine.dtype == theirs.dtype


def test_shards_without_features_keep_their_format(split, tmp_path):
    bare = with_sides(split, {})
    write_shards(bare, tmp_path / "rows", row_length=5)
    manifest = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert manifest["format"] == 1
    del manifest["widths"]  # as an earlier version wrote it
    (tmp_path / "rows" / "manifest.json").write_text(json.dumps(manifest))
    assert read_shards(tmp_path / "rows").widths == {}
    manifest["widths"] = {f"{QUERY}/tokens": 3}
    (tmp_path / "rows" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="must have format 2"):
        read_shards(tmp_path / "rows")


def test_cases_say_what_is_known_of_the_request_and_of_each_event(split):
    places = place_of(split)
    for cases in (split.validation, split.test):
        (batch,) = evaluation_dataset(cases, batch_size=50)
        batch = arrays(batch)
        assert len(batch["target"]) == len(cases) > 2
        for row, target in enumerate(batch["target"].tolist()):
            check(*(part[row] for part in batch[QUERY]), places[target] + 1000)
            for slot, item in enumerate(batch["history"][row].tolist()):
                number = places[item] + 1 if item else 0
                check(*(part[row, slot] for part in batch[EVENT]), number)


def test_workers_get_their_part_of_a_batch_of_cases(split):
    parts = [
        next(
            iter(evaluation_dataset(split.test, batch_size=50, worker=w, num_workers=2))
        )
        for w in range(2)
    ]
    (whole,) = evaluation_dataset(split.test, batch_size=50)
    for number in range(3):
        both = np.concatenate([part[QUERY][number] for part in parts])
        np.testing.assert_array_equal(both, whole[QUERY][number])


def test_no_cases_and_nothing_known():
    split = split_of(LENGTHS)
    count = split.sequences.num_events
    nothing = SideTable(
        splits=np.zeros(2, np.int64),
        tokens=np.zeros(0, np.int32),
        weights=np.zeros(0, np.float32),
        dense=np.zeros([1, 0], np.float32),
        thing_of=np.zeros(count, np.int32),
    )
    split = with_sides(split, {QUERY: nothing, EVENT: nothing})
    rows = pack_rows(split, row_length=5)
    assert rows.sides[f"{EVENT}/tokens"].shape == (*rows.items.shape, 0)
    found = of_cases(split.test, 0, 0)
    assert [part.shape for part in found[QUERY]] == [(0, 0), (0, 0), (0, 0)]
    moved = replace(split.test, sequences=split.sequences)
    assert [part.shape[:1] for part in of_cases(moved, 1, 3)[EVENT]] == [(2,)] * 3
