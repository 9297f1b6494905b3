"""What happens to events on their way into a prepared folder, as pure functions.

Every engine, the one in process and Apache Beam, calls these and nothing else, on
frames; so all of them write the same records. An event is `user_id`, `item_id`
(strings), `timestamp` (Unix seconds) and `position`, its place in the whole log.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn.data.packing import RowPlan
from tfrs_selfattn.data.sequences import Sequences, summarize
from tfrs_selfattn.data.shards import sha256_of, write_records
from tfrs_selfattn.data.splits import Split, leave_one_out, temporal_split
from tfrs_selfattn.data.vocabulary import Vocabulary
from tfrs_selfattn.data.windows import check_windows, training_windows

EVENT_SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,
    "position": pl.Int64,
}
COUNT_SCHEMA = {"item_id": pl.String, "count": pl.Int64}
SEQUENCE_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "items": pl.List(pl.Int32),
        "timestamps": pl.List(pl.Int64),
        "train_stop": pl.Int64(),
        "validation": pl.Int64(),
        "test": pl.Int64(),
    }
)
_ROWS_OF_A_FILE = 1 << 40  # Positions: the file's number, then the row's.
_COMPACT_ABOVE = 1 << 20  # Events held before the older ones are looked for.


@dataclass(frozen=True)
class PrepareOptions:
    """What a prepared folder depends on beside the events.

    Args:
        row_length: int. T of the training rows.
        num_shards: int. Users are dealt to so many shards by a hash of their id.
        windows: str. As of `pack_rows`.
        stride: int or None. As of `pack_rows`.
        pack: bool. As of `pack_rows`.
        times: bool. As of `pack_rows`.
        seed: int. As of `pack_rows`, for every shard its own.
        min_item_events: int. Items with fewer events are dropped.
        max_user_events: int. Of a user's events the newest so many are kept.
        validation_time: int or None. Unix seconds. With `test_time`, splits by the
            clock as `temporal_split` does; None splits as `leave_one_out` does.
        test_time: int or None. Unix seconds.
        max_rejected: float. Share of the rows that may be unreadable.
    """

    row_length: int = 200
    num_shards: int = 16
    windows: str = "all"
    stride: int | None = None
    pack: bool = True
    times: bool = False
    seed: int = 0
    min_item_events: int = 1
    max_user_events: int = 10_000
    validation_time: int | None = None
    test_time: int | None = None
    max_rejected: float = 0.01

    def __post_init__(self) -> None:
        for name in ("row_length", "num_shards", "min_item_events", "max_user_events"):
            check_positive_int(name, getattr(self, name))
        first, last = self.validation_time, self.test_time
        if (first is None) != (last is None):
            raise InputError(
                "`validation_time` and `test_time` must be given together. Received: "
                f"validation_time={self.validation_time}, test_time={self.test_time}. "
                "Give both, or neither to hold out each user's last two events."
            )
        if first is not None and last is not None and first >= last:
            raise InputError(
                "`validation_time` must lie before `test_time`. Received: "
                f"validation_time={self.validation_time}, test_time={self.test_time}. "
                "Exchange them."
            )
        check_windows(self.row_length, self.windows, self.stride)
        if not 0.0 <= self.max_rejected <= 1.0:
            raise InputError(
                "`max_rejected` must lie between 0 and 1. Received: max_rejected="
                f"{self.max_rejected}. Use 0.01 for one row in a hundred."
            )

    def of_rows(self) -> dict[str, Any]:
        """What `ShardedRows.options` says."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("windows", "stride", "pack", "seed")
        }


def with_position(events: pl.DataFrame, file: int) -> pl.DataFrame:
    """The events of a block, whose column `row` becomes the place in the whole log."""
    position = pl.col("row") + file * _ROWS_OF_A_FILE
    return events.select("user_id", "item_id", "timestamp", position=position)


def deal(
    frame: pl.DataFrame, num_shards: int, by: str = "user_id"
) -> dict[int, pl.DataFrame]:
    """Deals rows to shards by an id: the same id, the same shard, on any machine."""
    ids = frame[by].unique()
    shards = pl.Series(
        "shard", [zlib.crc32(each.encode()) % num_shards for each in ids], pl.Int64
    )
    dealt = frame.join(
        pl.DataFrame([ids, shards]), on=by, how="left", maintain_order="left"
    )
    parts = dealt.partition_by("shard", as_dict=True, include_key=False)
    return {int(key[0]): part for key, part in parts.items()}


def count_items(events: pl.DataFrame) -> pl.DataFrame:
    """Events of each item: `item_id`, `count`."""
    counts = events.group_by("item_id").agg(count=pl.len())
    return counts.cast({"count": pl.Int64})


def add_counts(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Sums counts of several blocks."""
    stacked = pl.concat([pl.DataFrame(schema=COUNT_SCHEMA), *counts])
    return stacked.group_by("item_id").agg(pl.col("count").sum())


def rank_items(counts: Iterable[pl.DataFrame], min_item_events: int) -> pl.DataFrame:
    """The items in index order, most frequent first, ties by id; rare ones dropped."""
    frequent = add_counts(counts).filter(pl.col("count") >= min_item_events)
    return frequent.sort("count", "item_id", descending=[True, False])


def vocabulary_of(items: pl.DataFrame) -> Vocabulary:
    """The vocabulary of ranked items."""
    return Vocabulary(tuple(items["item_id"]), items["count"].to_numpy())


class NewestEvents:
    """Collects events and keeps the newest of every user, in bounded memory.

    However many events a user has, about `max_user_events` of each are held, and a
    million in all that were not looked at yet. Newest by time; of equal times those
    that come later in the log. The result does not depend on the order of `add`.

    Args:
        max_user_events: int.
        frames: events to begin with.
    """

    def __init__(
        self, max_user_events: int, frames: Iterable[pl.DataFrame] = ()
    ) -> None:
        self._max_user_events = max_user_events
        self._frames: list[pl.DataFrame] = list(frames)
        self._held = sum(map(len, self._frames))
        self._limit = _COMPACT_ABOVE

    def add(self, events: pl.DataFrame) -> None:
        """Takes more events."""
        self._frames.append(events)
        self._held += len(events)
        if self._held > self._limit:
            kept = self.collect()
            self._frames, self._held = [kept], len(kept)
            self._limit = 2 * len(kept) + _COMPACT_ABOVE  # Looks at each event twice.

    def collect(self) -> pl.DataFrame:
        """The newest events of every user, ordered by user, time and place."""
        events = pl.concat([pl.DataFrame(schema=EVENT_SCHEMA), *self._frames])
        events = events.sort("user_id", "timestamp", "position")
        age = pl.len() - 1 - pl.int_range(pl.len())
        return events.filter(age.over("user_id") < self._max_user_events)


def sequences_of(
    events: pl.DataFrame, items: pl.DataFrame, vocabulary: Vocabulary
) -> Sequences:
    """The sequences of the users of a shard, in the order of their ids.

    Args:
        events: frame, as `NewestEvents.collect` gives it.
        items: frame of ranked items.
        vocabulary: the same items.
    """
    indices = items.select("item_id").with_row_index("index", offset=1)
    known = events.join(indices, on="item_id", maintain_order="left")
    users = known["user_id"].rle().struct.unnest()
    lengths = users["len"].to_numpy()
    return Sequences(
        user_ids=users["value"].alias("user_id"),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=known["index"].to_numpy().astype(np.int32),
        timestamps=known["timestamp"].to_numpy(),
        vocabulary=vocabulary,
    )


def split_of(sequences: Sequences, options: PrepareOptions) -> Split:
    """Holds out what the options say."""
    if options.validation_time is None:
        return leave_one_out(sequences)
    return temporal_split(
        sequences,
        validation_time=options.validation_time,
        test_time=options.test_time,
    )


def sequence_table(split: Split) -> pl.DataFrame:
    """A user a row: its events, and which of them are held out, as places in them."""
    sequences = split.sequences
    first = sequences.offsets[:-1]
    columns: dict[str, Any] = {
        "user_id": sequences.user_ids,
        "items": _lists(sequences.items, sequences),
        "timestamps": _lists(sequences.timestamps, sequences),
        "train_stop": split.train_stop - first,
    }
    for name in ("validation", "test"):
        cases = getattr(split, name)
        places = np.full(sequences.num_users, -1, np.int64)
        places[cases.users] = cases.history_stop - first[cases.users]
        columns[name] = places
    held_out = pl.col("validation", "test")
    return pl.DataFrame(columns).with_columns(pl.when(held_out >= 0).then(held_out))


def _lists(values: Any, sequences: Sequences) -> pl.Series:
    """Cuts values of events into a list a user."""
    rows = np.repeat(np.arange(sequences.num_users), sequences.lengths)
    lists = pl.DataFrame({"row": rows, "values": values}).group_by(
        "row", maintain_order=True
    )
    return lists.agg("values")["values"]


def write_shard(
    number: int,
    events: pl.DataFrame,
    items: pl.DataFrame,
    vocabulary: Vocabulary,
    options: PrepareOptions,
    sequence_file: Path,
    row_file: Path,
) -> dict[str, Any]:
    """Writes the sequences and the training rows of a shard; returns its counts.

    Args:
        number: int. Which shard.
        events: frame, as `NewestEvents.collect` gives it.
        items: frame of ranked items.
        vocabulary: the same items.
        options: of the preparation.
        sequence_file: Path of the Parquet file to write.
        row_file: Path of the TFRecord file to write.
    """
    sequences = sequences_of(events, items, vocabulary)
    counts: dict[str, Any] = {"shard": number, "kept": len(events)}
    if not sequences.num_users:
        pl.DataFrame(schema=SEQUENCE_SCHEMA).write_parquet(sequence_file)
        row_file.touch()
        return {**counts, **_NOTHING, **_of_rows(row_file, 0, 0)}
    split = split_of(sequences, options)
    sequence_table(split).write_parquet(sequence_file)
    summary = asdict(summarize(sequences))
    del summary["items"]
    counts |= summary
    counts |= {"validation": len(split.validation), "test": len(split.test)}
    windows = training_windows(
        split,
        row_length=options.row_length,
        windows=options.windows,
        stride=options.stride,
    )
    if not len(windows):
        row_file.touch()
        return {**counts, **_of_rows(row_file, 0, 0)}
    # A shard draws its own numbers: with those of another, users would pair up alike.
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    plan = RowPlan.make(
        split,
        windows,
        row_length=options.row_length,
        pack=options.pack,
        times=options.times,
        seed=seed,
    )
    rows = plan.lay_out(0, plan.num_rows)
    write_records(row_file, rows)
    return {**counts, **_of_rows(row_file, len(rows), rows.num_targets)}


def _of_rows(file: Path, rows: int, targets: int) -> dict[str, Any]:
    return {"rows": rows, "targets": targets, "sha256": sha256_of(file)}


_NOTHING = {
    "users": 0,
    "events": 0,
    "duplicate_events": 0,
    "one_event_users": 0,
    "first_time": None,
    "last_time": None,
    "validation": 0,
    "test": 0,
}
