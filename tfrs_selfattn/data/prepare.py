"""Prepares an event log for training, in this process; Beam's way is `beam/prepare.py`.

Events are read in blocks and dealt to files of the shard that their user belongs to;
then one shard after the other is ordered, split and packed. So memory holds a block and
a shard, never the log.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tfrs_selfattn.data import _blocks, _publishing, prepared
from tfrs_selfattn.data import _preparation as steps
from tfrs_selfattn.data.events import Events
from tfrs_selfattn.data.shards import shard_name, write_manifest

Progress = Callable[[int, int], None]


def prepare_events(
    events: Events,
    folder: str | os.PathLike[str],
    *,
    row_length: int = 200,
    num_shards: int = 16,
    windows: str = "all",
    stride: int | None = None,
    pack: bool = True,
    times: bool = False,
    seed: int = 0,
    min_item_events: int = 1,
    max_user_events: int = 10_000,
    validation_time: int | None = None,
    test_time: int | None = None,
    max_rejected: float = 0.01,
    progress: Progress | None = None,
) -> prepared.PreparedLog:
    """Turns an event log into a folder of sequences, splits and training rows.

    The log may be larger than memory. Rows that cannot be used are set aside, with the
    reason, and counted. Repeated on the same folder, it replaces what was there in one
    step, once all is written.

    Args:
        events: the log, from `read_events`.
        folder: path of a new folder, or of one that was prepared before.
        row_length: int. T of the training rows; `train --max-length`. Defaults to
            `200`.
        num_shards: int. Users are dealt to so many shards by a hash of their id; a
            shard should have about a million events. Defaults to `16`.
        windows: str. As of `pack_rows`. Defaults to `"all"`.
        stride: int or None. As of `pack_rows`. Defaults to `None`.
        pack: bool. As of `pack_rows`. Defaults to `True`.
        times: bool. Also write timestamps and request times into training rows, which
            time-aware models need. Defaults to `False`.
        seed: int. Which users of a shard share a row, and the order of its rows.
            Defaults to `0`.
        min_item_events: int. Items with fewer events are dropped. Defaults to `1`.
        max_user_events: int. Of a user's events the newest so many are kept; the
            vocabulary counts all of them. Defaults to `10000`.
        validation_time: int or None. Unix seconds; with `test_time`, splits by the
            clock as `temporal_split` does. None holds out each user's last two events.
            Defaults to `None`.
        test_time: int or None. Unix seconds. Defaults to `None`.
        max_rejected: float. Share of the rows that may be unreadable before it is an
            error. Defaults to `0.01`.
        progress: function or None. Called with files read and shards written, and
            their total. Defaults to `None`.

    Returns:
        `PreparedLog`.

    Raises:
        InputError: when too many rows are unreadable, a file is, nothing is left to
            train on, or the folder cannot be written.
    """
    options = steps.PrepareOptions(
        row_length=row_length,
        num_shards=num_shards,
        windows=windows,
        stride=stride,
        pack=pack,
        times=times,
        seed=seed,
        min_item_events=min_item_events,
        max_user_events=max_user_events,
        validation_time=validation_time,
        test_time=test_time,
        max_rejected=max_rejected,
    )
    path = Path(folder)
    with _publishing.generation(path) as (name, place), _scratch(path) as scratch:
        total = len(events.tables) + num_shards
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        files, items = _deal(events, options, place, scratch, advance)
        shards = _write(options, items, place, scratch, advance)
        manifest = prepared.summary_of(name, options, shards, files, len(items))
        write_manifest(
            place / prepared.TRAIN,
            **prepared.train_manifest(shards, options, len(items)),
        )
        _publishing.publish(path, manifest)
    return prepared.read_prepared(path)


def _deal(
    events: Events,
    options: steps.PrepareOptions,
    place: Path,
    scratch: Path,
    advance: Callable[[], None],
) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """Reads the log into a file for each block and shard; counts files and items."""
    counts = pl.DataFrame(schema=steps.COUNT_SCHEMA)
    files = []
    for number, table in enumerate(events.tables):
        counter = _publishing.FileCounter(table.name)
        letters = place / prepared.REJECTED / prepared.rejected_name(number)
        with contextlib.ExitStack() as stack:
            dead: Any = None
            for turn, block in enumerate(_blocks.read_blocks(events, table)):
                counter.add(block.rows, block.rejected)
                if block.rejected:
                    if dead is None:
                        letters.parent.mkdir(exist_ok=True)
                        dead = stack.enter_context(open(letters, "w", encoding="utf-8"))
                    dead.writelines(f"{line}\n" for line in block.rejected)
                counts = steps.add_counts([counts, steps.count_items(block.events)])
                placed = steps.with_position(block.events, number)
                for shard, part in steps.deal(placed, options.num_shards).items():
                    target = scratch / f"{shard:05d}"
                    target.mkdir(exist_ok=True)
                    part.write_ipc(target / f"{number:06d}-{turn:06d}.arrow")
        files.append(counter.counts())
        advance()
    items = steps.rank_items([counts], options.min_item_events)
    steps.vocabulary_of(items).save(place / prepared.VOCABULARY)
    items.write_parquet(place / prepared.ITEMS)
    return files, items


def _write(
    options: steps.PrepareOptions,
    items: pl.DataFrame,
    place: Path,
    scratch: Path,
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """Writes shard after shard; returns their counts."""
    vocabulary = steps.vocabulary_of(items)
    for folder in (prepared.SEQUENCES, prepared.TRAIN):
        (place / folder).mkdir()
    shards = []
    count = options.num_shards
    for number in range(count):
        newest = steps.NewestEvents(options.max_user_events)
        for part in sorted((scratch / f"{number:05d}").glob("*.arrow")):
            newest.add(pl.read_ipc(part.read_bytes()))
            part.unlink()
        shards.append(
            steps.write_shard(
                number,
                newest.collect(),
                items,
                vocabulary,
                options,
                place / prepared.SEQUENCES / prepared.part_name(number, count),
                place / prepared.TRAIN / shard_name(number, count),
            )
        )
        advance()
    return shards


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for what is read once more, on the disk of the result."""
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=folder) as scratch:
        yield Path(scratch)
