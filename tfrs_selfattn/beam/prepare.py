"""Prepares an event log for training on Apache Beam.

    files ─▶ read ─┬─▶ (shard, events) ─▶ newest of every user ─▶ write shard ─▶ result
                   ├─▶ (bucket, counts) ─▶ sums ─▶ vocabulary ──────┘
                   └─▶ (file, rejected) ─▶ dead letters

What travels are frames of many events, not events: a runner's cost for each element is
paid a thousandfold less, and every step is the one that `data.prepare_events` takes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import polars as pl
from apache_beam.utils.shared import Shared

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.beam import files, publishing
from tfrs_selfattn.beam.pipeline import pipeline_options, run
from tfrs_selfattn.data import _blocks, prepared
from tfrs_selfattn.data import _preparation as steps
from tfrs_selfattn.data._publishing import FileCounter
from tfrs_selfattn.data._tables import scan_table
from tfrs_selfattn.data.events import Events
from tfrs_selfattn.data.shards import shard_name, write_manifest

_BUCKETS = 64  # Parts in which items are counted.
_COUNTS = 1 << 20  # Counts held before they are summed.
_UNIT = 4 * _blocks.ROWS  # Rows of a file that is not text which one call reads.


@dataclass(frozen=True)
class Source:
    """Where events are.

    Args:
        paths: the files, in the order their events count as recorded.
        user_column: str.
        item_column: str.
        time_column: str.
    """

    paths: tuple[str, ...]
    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"

    @classmethod
    def of_pattern(cls, pattern: str, **columns: str) -> Source:
        """The files that a pattern of one of Beam's file systems matches."""
        paths = files.matching(pattern)
        if not paths:
            raise InputError(
                f"--data must match a file. Received: {pattern}, which matches none. "
                "Name the files, such as gs://bucket/events/*.parquet."
            )
        return cls(tuple(paths), **columns)

    @classmethod
    def of_events(cls, events: Events) -> Source:
        """The files of a log that `read_events` has opened and checked."""
        paths = tuple(str(table.path) for table in events.tables)
        return cls(paths, events.user_column, events.item_column, events.time_column)

    def open(self, path: Path, name: str) -> Events:
        """One of the files, as a log."""
        table = scan_table(path)
        return Events(
            (table,), name, self.user_column, self.item_column, self.time_column
        )


def prepare_on_beam(
    source: Source,
    folder: str,
    options: steps.PrepareOptions,
    *,
    runner: str,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Does what `data.prepare_events` does, as a pipeline.

    Args:
        source: the events.
        folder: str. Where to write: a path, or a place of one of Beam's file systems.
        options: how to prepare.
        runner: str. Beam's name of the runner.
        arguments: strings. Pipeline options, as on Beam's own command lines.

    Returns:
        dict, the manifest of the prepared folder.

    Raises:
        InputError: as `prepare_events`.
        PipelineFailed: when the pipeline ends in any other way than done.
    """
    beam_options = pipeline_options(runner, arguments)
    with publishing.generation(folder) as (name, place):
        run(beam_options, lambda pipeline: _build(pipeline, source, place, options))
        with files.reading(files.join(place, _RESULT)) as path:
            result = json.loads(path.read_text(encoding="utf-8"))
        shards = sorted(result["shards"], key=lambda shard: shard["shard"])
        num_items = result["num_items"]
        counts = _merge_files(result["files"])
        manifest = prepared.summary_of(name, options, shards, counts, num_items)
        about = prepared.train_manifest(shards, options, num_items)
        with tempfile.TemporaryDirectory() as scratch:
            write_manifest(Path(scratch), **about)
            train = files.join(place, prepared.TRAIN, prepared.MANIFEST)
            with files.writing(train) as path:
                path.write_bytes((Path(scratch) / prepared.MANIFEST).read_bytes())
        publishing.publish(folder, manifest)
    return manifest


_RESULT = "result.json"


def _build(
    pipeline: beam.Pipeline, source: Source, place: str, options: steps.PrepareOptions
) -> None:
    """Lays the pipeline out."""
    # Fields of `source` but its paths travel with every call; the paths are elements.
    read = (
        pipeline
        | "Files" >> beam.Create(list(enumerate(source.paths)))
        | "SpreadFiles" >> beam.Reshuffle()
        | "Parts" >> beam.ParDo(_Parts())
        | "SpreadParts" >> beam.Reshuffle()
        | "Read"
        >> beam.ParDo(_Read(replace(source, paths=()), options)).with_outputs(
            "counts", "rejected", "files", main="events"
        )
    )
    nothing = files.to_bytes(pl.DataFrame(schema=steps.COUNT_SCHEMA))
    counts = pipeline | "NoCounts" >> beam.Create([(0, nothing)])
    vocabulary = (
        (read.counts, counts)
        | "AllCounts" >> beam.Flatten()
        | "SumCounts" >> beam.CombinePerKey(_SumCounts())
        | "OneVocabulary" >> beam.Map(lambda bucket: (0, bucket[1]))
        | "Buckets" >> beam.GroupByKey()
        | "WriteVocabulary" >> beam.ParDo(_WriteVocabulary(place, options))
    )
    empty = files.to_bytes(pl.DataFrame(schema=steps.EVENT_SCHEMA))
    every = [(number, empty) for number in range(options.num_shards)]
    shards = (
        (read.events, pipeline | "EveryShard" >> beam.Create(every))
        | "AllEvents" >> beam.Flatten()
        | "Newest" >> beam.CombinePerKey(_Newest(options.max_user_events))
        | "WriteShard"
        >> beam.ParDo(
            _WriteShard(place, options), num_items=beam.pvalue.AsSingleton(vocabulary)
        )
    )
    (
        read.rejected
        | "ByFile" >> beam.GroupByKey()
        | "WriteRejected" >> beam.Map(_write_rejected, place)
    )
    (
        pipeline
        | "Once" >> beam.Create([None])
        | "WriteResult"
        >> beam.Map(
            _write_result,
            place,
            shards=beam.pvalue.AsList(shards),
            counts=beam.pvalue.AsList(read.files),
            num_items=beam.pvalue.AsSingleton(vocabulary),
        )
    )


class _Parts(beam.DoFn):
    """Cuts files that have a table of contents into parts: number, path, rows."""

    def process(
        self, file: tuple[int, str]
    ) -> Iterator[tuple[int, str, int, int | None]]:
        number, path = file
        if not path.endswith(".parquet"):
            yield number, path, 0, None
            return
        with files.reading(path) as local:
            rows = pl.scan_parquet(local, glob=False).select(pl.len()).collect().item()
        for first in range(0, rows, _UNIT):
            yield number, path, first, min(_UNIT, rows - first)


class _Read(beam.DoFn):
    """Reads a part: its events by shard, its counts of items, its bad rows."""

    def __init__(self, source: Source, options: steps.PrepareOptions) -> None:
        self._source = source
        self._options = options

    def process(self, part: tuple[int, str, int, int | None]) -> Iterator[Any]:
        number, path, first, count = part
        counter = FileCounter(path)
        counts = pl.DataFrame(schema=steps.COUNT_SCHEMA)
        with files.reading(path) as local:
            events = self._source.open(local, path)
            for turn, block in enumerate(
                _blocks.read_blocks(
                    events, events.tables[0], first=first, count=count, name=path
                )
            ):
                counter.add(block.rows, block.rejected)
                if block.rejected:
                    letters = (first, turn, block.rejected)
                    yield beam.pvalue.TaggedOutput("rejected", (number, letters))
                counts = steps.add_counts([counts, steps.count_items(block.events)])
                placed = steps.with_position(block.events, number)
                dealt = steps.deal(placed, self._options.num_shards)
                for shard, frame in dealt.items():
                    yield shard, files.to_bytes(frame)
        for bucket, frame in steps.deal(counts, _BUCKETS, by="item_id").items():
            yield beam.pvalue.TaggedOutput("counts", (bucket, files.to_bytes(frame)))
        yield beam.pvalue.TaggedOutput("files", (number, first, counter.counts()))


class _Newest(beam.CombineFn):
    """The newest events of every user of a shard."""

    def __init__(self, max_user_events: int) -> None:
        self._max_user_events = max_user_events

    def create_accumulator(self) -> steps.NewestEvents:
        return steps.NewestEvents(self._max_user_events)

    def add_input(
        self, newest: steps.NewestEvents, events: bytes
    ) -> steps.NewestEvents:
        newest.add(files.from_bytes(events))
        return newest

    def merge_accumulators(
        self, parts: Iterable[steps.NewestEvents]
    ) -> steps.NewestEvents:
        merged = self.create_accumulator()
        for part in parts:
            merged.add(part.collect())
        return merged

    def compact(self, newest: steps.NewestEvents) -> steps.NewestEvents:
        return steps.NewestEvents(self._max_user_events, [newest.collect()])

    def extract_output(self, newest: steps.NewestEvents) -> bytes:
        return files.to_bytes(newest.collect())


class _SumCounts(beam.CombineFn):
    """Events of each item of a bucket."""

    def create_accumulator(self) -> list[pl.DataFrame]:
        return []

    def add_input(self, counts: list[pl.DataFrame], more: bytes) -> list[pl.DataFrame]:
        counts.append(files.from_bytes(more))
        more_than_summed = sum(map(len, counts[1:]))
        full = more_than_summed > max(_COUNTS, len(counts[0]))
        return self.compact(counts) if full else counts

    def merge_accumulators(
        self, parts: Iterable[list[pl.DataFrame]]
    ) -> list[pl.DataFrame]:
        return self.compact([frame for part in parts for frame in part])

    def compact(self, counts: list[pl.DataFrame]) -> list[pl.DataFrame]:
        return [steps.add_counts(counts)]

    def extract_output(self, counts: list[pl.DataFrame]) -> bytes:
        return files.to_bytes(steps.add_counts(counts))


class _WriteVocabulary(beam.DoFn):
    """Ranks all items and writes them; gives their number."""

    def __init__(self, place: str, options: steps.PrepareOptions) -> None:
        self._place = place
        self._options = options

    def process(self, counts: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        frames = map(files.from_bytes, counts[1])
        items = steps.rank_items(frames, self._options.min_item_events)
        vocabulary = files.join(self._place, prepared.VOCABULARY)
        with files.writing(vocabulary) as path:
            steps.vocabulary_of(items).save(path)
        with files.writing(files.join(self._place, prepared.ITEMS)) as path:
            items.write_parquet(path)
        yield len(items)


class _Items:
    """The ranked items, which a worker's threads share."""

    def __init__(self, place: str) -> None:
        with files.reading(files.join(place, prepared.ITEMS)) as path:
            self.frame = pl.read_parquet(path)
        self.vocabulary = steps.vocabulary_of(self.frame)


class _WriteShard(beam.DoFn):
    """Writes sequences and training rows of a shard; gives its counts."""

    def __init__(self, place: str, options: steps.PrepareOptions) -> None:
        self._place = place
        self._options = options
        self._shared = Shared()

    def process(
        self, shard: tuple[int, bytes], num_items: int
    ) -> Iterator[dict[str, Any]]:
        # `num_items` says that the vocabulary is written.
        items = self._shared.acquire(lambda: _Items(self._place), tag=self._place)
        number, events = shard
        count = self._options.num_shards
        sequences = files.join(
            self._place, prepared.SEQUENCES, prepared.part_name(number, count)
        )
        rows = files.join(self._place, prepared.TRAIN, shard_name(number, count))
        with files.writing(sequences) as one, files.writing(rows) as other:
            yield steps.write_shard(
                number,
                files.from_bytes(events),
                items.frame,
                items.vocabulary,
                self._options,
                one,
                other,
            )


def _write_rejected(
    rejected: tuple[int, Iterable[tuple[int, int, list[str]]]], place: str
) -> None:
    """Writes the dead letters of a file, in the order of its rows."""
    number, letters = rejected
    target = files.join(place, prepared.REJECTED, prepared.rejected_name(number))
    with files.writing(target) as path, open(path, "w", encoding="utf-8") as file:
        for _, _, lines in sorted(letters):
            file.writelines(f"{line}\n" for line in lines)


def _write_result(
    _: None,
    place: str,
    shards: list[dict[str, Any]],
    counts: list[tuple[int, int, dict[str, Any]]],
    num_items: int,
) -> None:
    """Leaves what the manifest is made of where the launching process finds it."""
    result = {"shards": shards, "files": counts, "num_items": num_items}
    with files.writing(files.join(place, _RESULT)) as path:
        path.write_text(json.dumps(result), encoding="utf-8")


def _merge_files(
    counts: list[tuple[int, int, dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The counts of every file, of which parts were read apart."""
    merged: dict[int, dict[str, Any]] = {}
    for number, _, part in sorted(counts, key=lambda count: count[:2]):
        known = merged.setdefault(number, {**part, "rows": 0, "rejected": 0})
        known["rows"] += part["rows"]
        known["rejected"] += part["rejected"]
        known["first"] = known["first"] or part["first"]
    return [merged[number] for number in sorted(merged)]
