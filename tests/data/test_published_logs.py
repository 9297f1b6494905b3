"""Amazon Beauty and MovieLens-1M as published, where they lie beside the repository."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tfrs_selfattn.data import (
    build_sequences,
    find_titles,
    leave_one_out,
    pack_rows,
    read_events,
    summarize,
)

DATA = REPOSITORY.parent / "shared" / "data"


def folder(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not there")
    return DATA / name


def test_amazon_beauty_needs_no_reader_of_its_own():
    path = folder("amazon-beauty")
    sequences = build_sequences(read_events(path))
    summary = summarize(sequences)
    assert (summary.users, summary.items, summary.events) == (22_363, 12_101, 198_502)
    # Times count from each user's first event, so they order a user's own events only.
    assert (sequences.timestamps[sequences.offsets[:-1]] == 0).all()
    assert len(find_titles(path)) > 12_000
    # The order is that of the file, as published.
    lines = (path / "interactions.csv").read_text().split("\n")[1:-1]
    published = [line.split(",")[1] for line in lines]
    assert sequences.vocabulary.decode(sequences.items) == published
    rows = pack_rows(leave_one_out(sequences), row_length=50)
    assert rows.fill > 0.99


def test_movielens_1m_in_both_forms_is_one_log():
    path = folder("ml-1m")
    sequences = build_sequences(read_events(path), min_item_events=5)
    summary = summarize(sequences)
    assert (summary.users, summary.items, summary.events) == (6_040, 3_416, 999_611)

    # The other form: "user item" lines, users and items renumbered, no times.
    text = np.array((path / "ml-1m.txt").read_text().split(), np.int64)
    users, items = text[0::2], text[1::2]
    starts = np.flatnonzero(np.diff(users, prepend=0))
    parts = np.split(items, starts[1:])
    counts = np.bincount(items)
    mine = np.concatenate([[0], sequences.vocabulary.counts])
    # How often each item of a history is taken by anybody tells the users apart.
    profiles = {
        tuple(mine[sequences.user(user)[0]].tolist()): user
        for user in range(sequences.num_users)
    }
    assert len(profiles) == len(parts) == 6_040
    renumbered = np.zeros(len(counts), np.int64)
    for part in parts:
        found, _ = sequences.user(profiles[tuple(counts[part].tolist())])
        known = renumbered[part]
        # One numbering explains every history, event by event.
        assert ((known == 0) | (known == found)).all()
        renumbered[part] = found
    assert len(np.unique(renumbered[1:])) == 3_416
