"""The folder that `prepare` writes: sequences, splits and training rows of one log.

    DIR/manifest.json            which generation is current, and what it holds
    DIR/<generation>/vocabulary.txt, items.parquet
    DIR/<generation>/sequences/part-00000-of-00016.parquet
    DIR/<generation>/train/      shards, as `read_shards` opens them
    DIR/<generation>/rejected/   the rows that could not be used, and why

Writing the manifest is what replaces an older generation, so a reader sees the one or
the other, on object stores too, which cannot rename folders. The generation before is
kept for those that still read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data._preparation import SEQUENCE_SCHEMA, PrepareOptions
from tfrs_selfattn.data.sequences import EventSummary, Sequences
from tfrs_selfattn.data.shards import ShardedRows, read_shards
from tfrs_selfattn.data.splits import (
    EvaluationSet,
    Split,
    next_items,
    sampling_order,
)
from tfrs_selfattn.data.vocabulary import Vocabulary

FORMAT = 1  # Raised when an older reader could not make sense of the folder.
KIND = "tfrs_selfattn.prepared"
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.txt"
ITEMS = "items.parquet"
REJECTED = "rejected"
SEQUENCES = "sequences"
TRAIN = "train"
_ORDER = "order"  # A column of who is sampled first.


@dataclass(frozen=True, eq=False)
class PreparedLog:
    """An event log that `prepare_events` or the command `prepare` has made ready.

    Args:
        path: Path of the folder.
        manifest: dict. `generation`, `options` (how it was made), and counts: `rows`
            read, `rejected`, `beyond_newest` (older events of users with too many),
            `rare` (events of items that are too rare), `users`, `items`, `events`,
            `duplicate_events`, `one_event_users`, `validation`, `test`, `train_rows`,
            `train_targets`, `first_time`, `last_time`.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def data(self) -> Path:
        """The folder of the current generation."""
        return self.path / str(self.manifest["generation"])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The items in index order, with their events in the whole log."""
        counts = _read(pl.read_parquet, self.data / ITEMS)["count"].to_numpy()
        return Vocabulary.load(self.data / VOCABULARY, counts)

    @property
    def parts(self) -> list[Path]:
        """The Parquet files of sequences, one a shard, in order."""
        count = self.manifest["options"]["num_shards"]
        return [
            self.data / SEQUENCES / part_name(number, count) for number in range(count)
        ]

    @property
    def times(self) -> tuple[int, int] | None:
        """`Split.times` of this log."""
        options = self.manifest["options"]
        if options["validation_time"] is None:
            return None
        return options["validation_time"], options["test_time"]

    def rows(self) -> ShardedRows:
        """The training rows, which `training_dataset` streams."""
        return read_shards(self.data / TRAIN)

    def split(self) -> Split:
        """Reads all sequences, ordered by shard and user id, and what is held out.

        In memory it takes 12 bytes an event; `held_out` reads less.
        """
        return self._split(pl.concat(self._tables()))

    def held_out(self, max_users: int | None = None, *, seed: int = 0) -> Split:
        """Reads the users with a validation case, part by part, and nobody else.

        What training on `rows` needs beside them. The histories are whole: what a user
        has seen is left out of a ranking, however long ago.

        Args:
            max_users: int or None. At most so many of them, those that
                `EvaluationSet.sample` chooses. Defaults to `None`.
            seed: int. Of the choice. Defaults to `0`.
        """
        kept = pl.DataFrame(schema={**SEQUENCE_SCHEMA, _ORDER: pl.UInt64})
        for table in self._tables():
            found = table.filter(pl.col("validation").is_not_null())
            if max_users is not None:
                order = pl.Series(sampling_order(found["user_id"], seed))
            else:
                order = pl.zeros(len(found), pl.UInt64, eager=True)
            kept = pl.concat([kept, found.with_columns(order.alias(_ORDER))])
            if max_users is not None and len(kept) > max_users:
                lowest = kept[_ORDER].arg_sort()[:max_users].sort()
                kept = kept[lowest]
        return self._split(kept.drop(_ORDER))

    def chunks(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """The array `offsets`, `items` or `timestamps` of all sequences, in pieces.

        Args:
            name: str. Of an attribute of `Sequences`.
        """
        if name != "offsets":
            for table in self._tables(name):
                yield table[name].explode().drop_nulls().to_numpy()
            return
        stop = np.zeros(1, np.int64)
        yield stop
        for table in self._tables("items"):
            stops = stop[-1:] + np.cumsum(_lengths(table))
            stop = stops if len(stops) else stop
            yield stops

    def train_counts(self) -> npt.NDArray[np.int64]:
        """What `Split.train_counts` returns, counted part by part."""
        counts = np.zeros(len(self.vocabulary) + 1, np.int64)
        for table in self._tables("items", "train_stop"):
            known = table.select(pl.col("items").list.head("train_stop"))
            items = known["items"].explode().drop_nulls().to_numpy()
            counts += np.bincount(items, minlength=len(counts))
        return counts

    def summary(self) -> EventSummary:
        """What `summarize` counts, as the manifest has it."""
        names = [each.name for each in fields(EventSummary)]
        return EventSummary(**{name: self.manifest[name] for name in names})

    def splits(self) -> Iterator[Split]:
        """What `split` returns, in parts: one after the other is in memory."""
        for table in self._tables():
            yield self._split(table)

    def _split(self, table: pl.DataFrame) -> Split:
        return replace(_split(table, self.vocabulary), times=self.times)

    def _tables(self, *columns: str) -> Iterator[pl.DataFrame]:
        """The parts, one after the other, with these columns or all."""
        for part in self.parts:
            yield _read(partial(pl.read_parquet, columns=list(columns) or None), part)


def read_prepared(folder: str | os.PathLike[str]) -> PreparedLog:
    """Opens a folder that `prepare` wrote.

    Args:
        folder: path of the folder.

    Raises:
        InputError: when it holds no prepared log, or one of another format.
    """
    path = Path(folder)
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        kind, found = manifest.get("kind"), manifest.get("format")
        fault = None if kind == KIND else f"kind {kind!r}"
    except (OSError, ValueError, AttributeError) as error:
        manifest, found, fault = {}, None, str(error)
    if fault is not None:
        raise InputError(
            f"A folder written by `tfrs-selfattn prepare` was expected. Received: "
            f"{path}, whose {MANIFEST} is no such file or cannot be used ({fault}). "
            "Check the path, or prepare the events first."
        )
    if found != FORMAT:
        raise InputError(
            f"{path} must have format {FORMAT}. Received: format {found}, of another "
            "version of tfrs_selfattn. Prepare the events again."
        )
    return PreparedLog(path, manifest)


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder was written by `prepare`."""
    try:
        read_prepared(folder)
    except InputError:
        return False
    return True


def part_name(number: int, count: int) -> str:
    """The name of a Parquet file of sequences."""
    return f"part-{number:05d}-of-{count:05d}.parquet"


def rejected_name(number: int) -> str:
    """The name of the dead letters of an input file."""
    return f"{number:05d}.jsonl"


def summary_of(
    generation: str,
    options: PrepareOptions,
    shards: list[dict[str, Any]],
    files: list[dict[str, Any]],
    num_items: int,
) -> dict[str, Any]:
    """The manifest of a generation.

    Args:
        generation: str. Its name.
        options: how it was made.
        shards: what `write_shard` returned, in order.
        files: `file`, `rows`, `rejected` of every input file, in order.
        num_items: int. N.

    Raises:
        InputError: when more rows were rejected than the options allow, or nothing is
            left.
    """

    def total(name: str) -> int:
        return sum(shard[name] for shard in shards)

    rows = sum(file["rows"] for file in files)
    rejected = sum(file["rejected"] for file in files)
    if rejected > options.max_rejected * rows:
        worst = max(files, key=lambda file: file["rejected"])
        raise InputError(
            f"At most {options.max_rejected:.2%} of the rows may be unreadable. "
            f"Received: {rejected:,} of {rows:,}, most in {worst['file']}; the first "
            f"there: {worst['first']} Correct the files, or raise --max-rejected."
        )
    if not total("rows"):
        raise InputError(
            "There is nothing to train on: a user needs at least two training events. "
            f"Received: {rows:,} rows, of which {total('events'):,} events of "
            f"{total('users'):,} users were kept. Pass a log with longer histories, or "
            "lower --min-item-events."
        )
    events = total("events")
    times = [shard for shard in shards if shard["events"]]
    return {
        "format": FORMAT,
        "kind": KIND,
        "generation": generation,
        "options": asdict(options),
        "rows": rows,
        "rejected": rejected,
        "beyond_newest": rows - rejected - total("kept"),
        "rare": total("kept") - events,
        "users": total("users"),
        "items": num_items,
        "events": events,
        "duplicate_events": total("duplicate_events"),
        "one_event_users": total("one_event_users"),
        "validation": total("validation"),
        "test": total("test"),
        "train_rows": total("rows"),
        "train_targets": total("targets"),
        "first_time": min(shard["first_time"] for shard in times),
        "last_time": max(shard["last_time"] for shard in times),
        "files": [
            {"file": file["file"], "rows": file["rows"], "rejected": file["rejected"]}
            for file in files
        ],
    }


def train_manifest(
    shards: list[dict[str, Any]], options: PrepareOptions, num_items: int
) -> dict[str, Any]:
    """What `write_manifest` of shards needs to know of training rows."""
    columns = dict.fromkeys(("history", "targets", "segment_ids"), "int32")
    if options.times:
        columns |= dict.fromkeys(("timestamps", "request_times"), "int64")
    return {
        "shards": [
            {name: shard[name] for name in ("rows", "sha256")} for shard in shards
        ],
        "row_length": options.row_length,
        "rows_per_shard": max(shard["rows"] for shard in shards),
        "num_targets": sum(shard["targets"] for shard in shards),
        "num_items": num_items,
        "columns": columns,
        "options": options.of_rows(),
        "metadata": {},
    }


def _lengths(table: pl.DataFrame) -> npt.NDArray[np.int64]:
    return table["items"].list.len().to_numpy().astype(np.int64)


def _split(table: pl.DataFrame, vocabulary: Vocabulary) -> Split:
    """The users of a table, and what is held out of them."""
    offsets = np.concatenate([[0], np.cumsum(_lengths(table))])
    sequences = Sequences(
        user_ids=table["user_id"],
        offsets=offsets,
        items=table["items"].explode().drop_nulls().to_numpy(),
        timestamps=table["timestamps"].explode().drop_nulls().to_numpy(),
        vocabulary=vocabulary,
    )
    return Split(
        sequences=sequences,
        train_stop=offsets[:-1] + table["train_stop"].to_numpy(),
        validation=_cases(sequences, table["validation"]),
        test=_cases(sequences, table["test"]),
    )


def _cases(sequences: Sequences, places: pl.Series) -> EvaluationSet:
    """The held-out cases of users that have one."""
    users = places.is_not_null().arg_true().to_numpy().astype(np.int64)
    held_out = places.drop_nulls().to_numpy()
    targets = sequences.offsets[users] + held_out
    return next_items(sequences, users, targets)


def _read(read: Any, path: Path) -> pl.DataFrame:
    try:
        frame: pl.DataFrame = read(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path} must be as `prepare` wrote it. It cannot be read "
            f"({str(error).splitlines()[0]}). Restore it, or prepare the events again."
        ) from None
    return frame
