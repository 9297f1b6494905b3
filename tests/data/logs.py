"""Small logs with histories of given lengths, for tests of windows and rows."""

from __future__ import annotations

import numpy as np
import polars as pl

from tfrs_selfattn.data import build_sequences, events_from_frame, leave_one_out


def split_of(lengths):
    """A log in which every event has an item and a time of its own.

    So items, times and (input, target) pairs are unique.
    """
    users = np.repeat(np.arange(len(lengths)), lengths)
    times = 1000 + 7 * np.arange(len(users))
    frame = pl.DataFrame({"user_id": users, "timestamp": times})
    frame = frame.with_columns(item_id=pl.format("{}", "timestamp"))
    return leave_one_out(build_sequences(events_from_frame(frame)))


def training_parts(split):
    """The training items of every user, oldest first."""
    offsets = split.sequences.offsets
    return [
        split.sequences.items[start:stop].tolist()
        for start, stop in zip(offsets[:-1], split.train_stop, strict=True)
    ]


def prepared_content(log):
    """All records of a prepared folder: rows by file, sequences, vocabulary."""
    rows = {path.name: path.read_bytes() for path in log.rows().paths}
    parts = {path.name: pl.read_parquet(path).to_dicts() for path in log.parts}
    return rows, parts, log.vocabulary.ids, log.vocabulary.counts.tolist()
