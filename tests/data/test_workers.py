"""The parts that workers get of an epoch: nothing twice, nothing missed."""

from __future__ import annotations

import numpy as np
import pytest

from tfrs_selfattn import InputError, data

LENGTH, BATCH, EPOCHS = 13, 6, 2


@pytest.fixture(scope="module")
def rows(split):
    return data.pack_rows(split, row_length=LENGTH)


@pytest.fixture(scope="module")
def shards(split, tmp_path_factory):
    """Five shards, the last one smaller: no number of workers gets equal parts."""
    folder = tmp_path_factory.mktemp("shards") / "rows"
    rows = data.pack_rows(split, row_length=LENGTH)
    per_shard = -(-len(rows) // 5)
    written = data.write_shards(
        split, folder, row_length=LENGTH, rows_per_shard=per_shard
    )
    assert len(written.shard_rows) == 5
    return written


def epochs_of(rows, worker, num_workers, start_epoch=0, count=EPOCHS):
    """What a worker sees in each epoch: lists of batches `[b, T]` of targets."""
    steps = data.steps_per_epoch(rows, BATCH, num_workers=num_workers)
    dataset = data.training_dataset(
        rows,
        batch_size=BATCH,
        seed=3,
        start_epoch=start_epoch,
        worker=worker,
        num_workers=num_workers,
    )
    seen = [batch["targets"].numpy() for batch in dataset.take(count * steps)]
    return [seen[epoch * steps : (epoch + 1) * steps] for epoch in range(count)]


def sorted_rows(arrays):
    return sorted(np.concatenate(arrays).tolist())


@pytest.mark.parametrize("num_workers", [2, 3])
def test_shards_are_dealt_out(rows, shards, num_workers):
    workers = [epochs_of(shards, each, num_workers) for each in range(num_workers)]
    for epoch in range(EPOCHS):
        together = [batch for worker in workers for batch in worker[epoch]]
        assert sorted_rows(together) == sorted_rows([rows.targets])
    for number, worker in enumerate(workers):
        own = sum(shards.shard_rows[number::num_workers])
        assert all(sum(map(len, epoch)) == own for epoch in worker)
        # The same rows in another order.
        first, second = (np.concatenate(epoch).tolist() for epoch in worker)
        assert first != second and sorted(first) == sorted(second)
        assert max(len(batch) for batch in worker[0]) == BATCH // num_workers
    # Who has fewer rows waits with empty batches.
    assert min(len(batch) for worker in workers for batch in worker[0]) == 0


def test_a_worker_opens_its_own_shards_only(shards, tmp_path):
    for number, path in enumerate(shards.paths):
        content = path.read_bytes() if number % 2 else b"no record"
        (tmp_path / path.name).write_bytes(content)
    moved = data.ShardedRows(**{**vars(shards), "path": tmp_path})
    expected, found = (epochs_of(each, 1, 2) for each in (shards, moved))
    for one, other in zip(expected, found, strict=True):
        assert all(map(np.array_equal, one, other))


def test_a_worker_resumes(shards):
    whole = epochs_of(shards, 1, 2)
    (second,) = epochs_of(shards, 1, 2, start_epoch=1, count=1)
    assert all(map(np.array_equal, whole[1], second))


def test_parts_of_rows_in_memory_make_up_the_whole_batch(rows):
    whole = epochs_of(rows, 0, 1)
    parts = [epochs_of(rows, each, 4) for each in range(4)]
    for epoch in range(EPOCHS):
        joined = [
            np.concatenate(each)
            for each in zip(*(p[epoch] for p in parts), strict=True)
        ]
        assert all(map(np.array_equal, joined, whole[epoch]))
    assert min(len(batch) for batch in parts[0][0]) <= 1


def test_parts_of_bucketed_rows(split):
    rows = data.bucket_rows(split, row_length=LENGTH, widths=[4, LENGTH])
    whole, parts = epochs_of(rows, 0, 1), [epochs_of(rows, each, 2) for each in (0, 1)]
    joined = [
        np.concatenate(each) for each in zip(parts[0][0], parts[1][0], strict=True)
    ]
    assert all(map(np.array_equal, joined, whole[0]))


def test_parts_of_held_out_cases(split):
    def cases(worker, num_workers):
        dataset = data.evaluation_dataset(
            split.validation, batch_size=5, worker=worker, num_workers=num_workers
        )
        return [batch["target"].numpy() for batch in dataset]

    parts = [cases(each, 8) for each in range(8)]
    joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
    assert all(map(np.array_equal, joined, cases(0, 1)))
    assert min(map(len, parts[0])) == 0


def test_too_many_workers(shards):
    with pytest.raises(InputError, match=r"Each worker needs a shard.*5 shards.*6"):
        data.steps_per_epoch(shards, 6, num_workers=6)
    with pytest.raises(InputError, match=r"must be a multiple.*batch_size=6 for 4"):
        data.training_dataset(shards, batch_size=6, seed=0, num_workers=4)
