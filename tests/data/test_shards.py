"""Shards give the batches that memory gives; a damaged or half-written one is none."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tensorflow as tf

from tests.data.logs import split_of
from tfrs_selfattn import InputError
from tfrs_selfattn._locks import try_lock
from tfrs_selfattn.data import (
    _tfrecord,
    pack_rows,
    read_shards,
    shards,
    steps_per_epoch,
    training_dataset,
    write_shards,
)

OPTIONS = {"row_length": 13, "windows": "sliding", "stride": 5, "seed": 4}
PER_SHARD = 17


@pytest.fixture(scope="module", params=[False, True], ids=["bare", "times"])
def times(request):
    return request.param


@pytest.fixture(scope="module")
def rows(split, times):
    rows = pack_rows(split, times=times, **OPTIONS)
    assert len(rows) > 3 * PER_SHARD and len(rows) % PER_SHARD
    return rows


@pytest.fixture(scope="module")
def written(split, times, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "below" / "rows"
    return write_shards(split, folder, times=times, rows_per_shard=PER_SHARD, **OPTIONS)


def batches(dataset, count):
    return [
        {name: tensor.numpy() for name, tensor in batch.items()}
        for batch in dataset.take(count)
    ]


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert list(one) == list(other)
        for name, column in one.items():
            assert other[name].dtype == column.dtype
            np.testing.assert_array_equal(other[name], column, err_msg=name)


def test_batches_are_those_of_memory_bit_for_bit(rows, written):
    steps = steps_per_epoch(rows, 7)
    assert steps_per_epoch(written, 7) == steps
    memory = training_dataset(rows, batch_size=7, seed=3, shuffle_block=PER_SHARD)
    stream = training_dataset(written, batch_size=7, seed=3)
    assert stream.element_spec == memory.element_spec
    assert stream.cardinality() == tf.data.INFINITE_CARDINALITY
    assert_same(batches(stream, 3 * steps), batches(memory, 3 * steps))


def test_one_shard_is_shuffled_as_all_rows_are(split, times, rows, tmp_path):
    one = write_shards(split, tmp_path / "rows", times=times, **OPTIONS)
    assert one.shard_rows == (len(rows),)
    steps = steps_per_epoch(rows, 7)
    assert_same(
        batches(training_dataset(one, batch_size=7, seed=3), steps),
        batches(training_dataset(rows, batch_size=7, seed=3), steps),
    )


def test_each_epoch_shows_every_row_once_in_another_order(rows, written):
    steps = steps_per_epoch(written, 7)
    seen = batches(training_dataset(written, batch_size=7, seed=3), 2 * steps)
    orders = []
    for part in (seen[:steps], seen[steps:]):
        columns = [np.concatenate([batch[name] for batch in part]) for name in part[0]]
        orders.append(np.concatenate(columns, axis=1).tolist())
    whole = np.concatenate(list(rows.features.values()), axis=1).tolist()
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(whole)
    assert orders[0] != orders[1]
    # Not only the rows of a shard: the shards themselves change places.
    starts = [whole.index(order[0]) // PER_SHARD for order in orders]
    ends = [whole.index(order[-1]) // PER_SHARD for order in orders]
    assert starts[0] != starts[1] or ends[0] != ends[1]


def test_a_resumed_stream_equals_the_uninterrupted_one(written):
    steps = steps_per_epoch(written, 7)
    whole = batches(training_dataset(written, batch_size=7, seed=3), 4 * steps)
    rest = training_dataset(written, batch_size=7, seed=3, start_epoch=2)
    assert_same(batches(rest, 2 * steps), whole[2 * steps :])
    other = training_dataset(written, batch_size=7, seed=4)
    with pytest.raises(AssertionError):
        assert_same(batches(other, steps), whole[:steps])


def test_what_was_written_is_read_back(rows, written, split):
    again = read_shards(str(written.path), verify=True)
    loaded = again.load()
    assert list(loaded.features) == list(rows.features)
    for name, column in rows.features.items():
        np.testing.assert_array_equal(loaded.features[name], column, err_msg=name)
        assert loaded.features[name].dtype == column.dtype
    assert len(again) == len(rows)
    assert again.num_targets == rows.num_targets
    assert again.num_items == len(split.sequences.vocabulary)
    assert again.shard_rows[:-1] == (PER_SHARD,) * (len(again.shard_rows) - 1)
    assert again.options == {
        "windows": "sliding",
        "stride": 5,
        "pack": True,
        "starts": False,
        "seed": 4,
    }
    # Nothing else is left, in the folder or beside it.
    names = {path.name for path in again.path.iterdir()}
    assert names == {"manifest.json", *(path.name for path in again.paths)}
    assert [path.name for path in again.path.parent.iterdir()] == ["rows"]


def crc32c(content):
    """Bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_crc_32c():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogues
    content = np.frombuffer(b"123456789" * 3, np.uint8).reshape(3, 9).copy()
    content[1, 4] = 255
    for row, found in zip(content, _tfrecord._masked_crc(content), strict=True):
        crc = crc32c(row.tobytes())
        expected = ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)
        assert found == expected


def test_tensorflow_reads_the_records(rows, written):
    # Its reader checks both checksums of every record.
    dataset = tf.data.TFRecordDataset([str(path) for path in written.paths])
    records = list(dataset.as_numpy_iterator())
    assert len(records) == len(rows)
    first = struct.unpack("<13i", records[5][: 4 * 13])
    assert list(first) == rows.items[5].tolist()


def test_damage_is_found(split, tmp_path):
    def fresh(name):
        return write_shards(split, tmp_path / name, rows_per_shard=PER_SHARD, **OPTIONS)

    cut = fresh("cut")
    path = cut.paths[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{path.name} must be as .*bytes instead of"):
        read_shards(cut.path)
    path.unlink()
    with pytest.raises(InputError, match=rf"{path.name} must be.*Received: no such"):
        read_shards(cut.path)

    flipped = fresh("flipped")
    content = bytearray(flipped.paths[1].read_bytes())
    content[100] ^= 1
    flipped.paths[1].write_bytes(content)
    read_shards(flipped.path)  # the size is right
    with pytest.raises(InputError, match=r"Received: other bytes\. Restore the file"):
        read_shards(flipped.path, verify=True)
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        batches(training_dataset(flipped, batch_size=7, seed=0), 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"must have format 1\. Received: format 2.*Write the shards"),
        ({"shards": None}, r"manifest\.json cannot be used"),
        (None, r"A folder written by `write_shards` was expected.*cannot be used"),
    ],
)
def test_folders_that_are_none(split, tmp_path, change, message):
    folder = tmp_path / "rows"
    if change is None:
        folder.mkdir()
    else:
        path = write_shards(split, folder, **OPTIONS).path / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        read_shards(folder)


def test_an_existing_folder_is_not_touched(split, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    with pytest.raises(InputError, match=r"must not exist yet\. Received: .*rows"):
        write_shards(split, folder, **OPTIONS)
    assert list(tmp_path.iterdir()) == [folder]


def test_half_a_folder_never_appears(split, tmp_path, monkeypatch):
    done = []

    def fail(rows_done, total):
        done.append(rows_done)
        if rows_done > PER_SHARD:
            raise RuntimeError("stopped")

    options = {"rows_per_shard": PER_SHARD, **OPTIONS}
    with pytest.raises(RuntimeError, match="stopped"):
        write_shards(split, tmp_path / "rows", progress=fail, **options)
    assert done == [PER_SHARD, 2 * PER_SHARD]
    assert list(tmp_path.iterdir()) == []
    # What a kill leaves, no exception can clean; the next writer does.
    left = tmp_path / ".rows.part"
    left.mkdir()
    (left / "rows-00000-of-00009.tfrecord").write_bytes(b"half")
    written = write_shards(split, tmp_path / "rows", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    assert len(written.paths) == len(list(written.path.glob("*.tfrecord")))


def test_two_writers_do_not_meet(split, tmp_path):
    with open(tmp_path / ".rows.lock", "w") as file:
        assert try_lock(file.fileno())
        with pytest.raises(InputError, match=r"another process is writing\. Wait"):
            write_shards(split, tmp_path / "rows", **OPTIONS)


def test_a_full_disk_is_said(split, tmp_path, monkeypatch):
    def full(path, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_records", full)
    with pytest.raises(InputError, match=r"\(No space left on device\).*make room"):
        write_shards(split, tmp_path / "rows", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_notes_travel_along(split, tmp_path):
    notes = {"fingerprint": "abc", "min_item_events": 5}
    write_shards(split, tmp_path / "rows", metadata=notes, **OPTIONS)
    assert read_shards(tmp_path / "rows").metadata == notes


def test_arguments_are_checked(split, tmp_path):
    with pytest.raises(ValueError, match="`rows_per_shard` must be a positive"):
        write_shards(split, tmp_path / "rows", rows_per_shard=0, **OPTIONS)
    with pytest.raises(InputError, match="nothing to train on"):
        write_shards(split_of([1, 3]), tmp_path / "rows", row_length=5)
    assert list(tmp_path.iterdir()) == []
