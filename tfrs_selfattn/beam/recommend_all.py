"""Recommends to every user on Apache Beam, with its `RunInference`.

    chunks without a file ─▶ batches of users ─▶ RunInference ─▶ answers ─▶ file

Chunks, batches and the asking are those of `export.recommend_all`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import (
    KeyedModelHandler,
    ModelHandler,
    RunInference,
)
from apache_beam.utils.shared import Shared

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.beam import files
from tfrs_selfattn.beam.pipeline import pipeline_options, run
from tfrs_selfattn.data import prepared
from tfrs_selfattn.export import manifest
from tfrs_selfattn.export.batch import BatchRecommender, batches, in_order
from tfrs_selfattn.export.batch_job import (
    JOB,
    BatchResult,
    Chunk,
    Job,
    check_same,
    make_job,
    open_output,
    read_job,
)
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.recommender import newest, read_manifest
from tfrs_selfattn.export.users import UserSource, check_no_features, find_users


def recommend_all_on_beam(
    export: str,
    users: str,
    output: str,
    *,
    runner: str,
    arguments: Sequence[str] = (),
    batch_size: int = 256,
    users_per_file: int = 20_000,
    request_time: int | None = None,
) -> BatchResult:
    """Does what `export.recommend_all` does, as a pipeline.

    Args:
        export: str. A path, or a version's folder of one of Beam's file systems.
        users: str. As of `find_users`, or a pattern of one of Beam's file systems.
        output: str. A path, or a place of one of Beam's file systems.
        runner: str. Beam's name of the runner.
        arguments: strings. Pipeline options, as on Beam's own command lines.
        batch_size: int.
        users_per_file: int.
        request_time: int or None.

    Returns:
        `BatchResult`.

    Raises:
        InputError: as `recommend_all`.
        PipelineFailed: when the pipeline ends in any other way than done.
    """
    options = pipeline_options(runner, arguments)
    if not files.is_remote(export):
        version = newest(Path(export).absolute())
        read_manifest(version)  # Says what is wrong with it.
        export = str(version)
    about = files.join(export, manifest.FOLDER, manifest.FILE)
    with files.reading(about) as path:
        content = path.read_bytes()
    source = _find_users(users, QuerySide.from_manifest(json.loads(content)))
    counts = []
    for part in source.parts:
        with files.reading(part) as path:
            counts.append(source.count(path))
    job = make_job(
        content, source, counts, users_per_file, request_time, _read_job(output)
    )
    with _opened(output, job):
        chunks = job.chunks()
        there = set(files.matching(files.join(output, "answers-*.parquet")))
        waiting = [
            chunk for chunk in chunks if files.join(output, chunk.name) not in there
        ]
        if waiting:
            steps = _Steps(export, source, output, batch_size, job.request_time)
            run(options, lambda pipeline: steps.build(pipeline, waiting))
    total = sum(job.users)
    resumed = total - sum(chunk.users for chunk in waiting)
    return BatchResult(Path(output), total, len(chunks), resumed)


class _Steps:
    """The pipeline from chunks to files."""

    def __init__(
        self,
        export: str,
        source: UserSource,
        output: str,
        batch_size: int,
        request_time: int,
    ) -> None:
        self._handler = _Handler(export, request_time)
        self._read = _Read(source, batch_size)
        self._output = output

    def build(self, pipeline: beam.Pipeline, chunks: Sequence[Chunk]) -> None:
        """Lays the pipeline out."""
        (
            pipeline
            | "Chunks" >> beam.Create([tuple(chunk) for chunk in chunks])
            | "Spread" >> beam.Reshuffle()
            | "Users" >> beam.ParDo(self._read)
            | "Answer" >> RunInference(KeyedModelHandler(self._handler))
            | "ByChunk" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._output)
        )


class _Read(beam.DoFn):
    """Reads the users of a chunk, in batches."""

    def __init__(self, source: UserSource, batch_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        self._shared = Shared()

    def process(
        self, chunk: tuple[int, int, int]
    ) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        part, first, count = chunk
        source = self._shared.acquire(self._local, tag=self._source.parts[0])
        with files.reading(self._source.parts[part]) as path:
            users = source.read(path, first, count)
        for batch in batches(users, self._batch_size):
            yield chunk, files.to_bytes(batch)

    def _local(self) -> UserSource:
        """The source with its items at hand, which a worker's threads share."""
        if self._source.items is None:
            return self._source
        with files.reading(self._source.items) as path:
            source = UserSource(self._source.parts, str(path))
            assert source.ids is not None  # Read while the file is there.
        return source


class _Handler(ModelHandler[bytes, bytes, BatchRecommender]):
    """Asks the export about one batch of users after the other."""

    def __init__(self, export: str, request_time: int) -> None:
        super().__init__()
        self._export = export
        self._request_time = request_time

    def load_model(self) -> BatchRecommender:
        if not files.is_remote(self._export):
            return BatchRecommender(Path(self._export), self._request_time)
        with tempfile.TemporaryDirectory() as folder:
            files.copy_folder(self._export, Path(folder))
            return BatchRecommender(Path(folder), self._request_time)

    def run_inference(
        self,
        batch: Sequence[bytes],
        model: BatchRecommender,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[bytes]:
        for users in batch:
            yield files.to_bytes(model.answer(files.from_bytes(users)))

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        # An element is a batch already.
        return {"min_batch_size": 1, "max_batch_size": 1}


def _write(answered: tuple[tuple[int, int, int], Iterable[bytes]], output: str) -> None:
    chunk, answers = answered
    with files.writing(files.join(output, Chunk(*chunk).name)) as path:
        in_order(list(map(files.from_bytes, answers))).write_parquet(path)


def _find_users(users: str, side: QuerySide) -> UserSource:
    if not files.is_remote(users):
        return find_users(Path(users).absolute(), side)
    about = files.join(users, prepared.MANIFEST)
    if "*" not in users and FileSystems.exists(about):
        check_no_features(users, side)
        with files.reading(about) as path:
            place = files.join(users, prepared.read_prepared(path.parent).data.name)
        pattern = files.join(place, prepared.SEQUENCES, "*.parquet")
        items = files.join(place, prepared.ITEMS)
        return UserSource(tuple(files.matching(pattern)), items)
    parts = files.matching(users)
    if not parts:
        raise InputError(
            "--users must be a folder written by `prepare`, or match Parquet files. "
            f"Received: {users}, which is neither. Name them as gs://bucket/*.parquet."
        )
    return UserSource(tuple(parts), side=side)


def _read_job(output: str) -> dict[str, Any] | None:
    if not files.is_remote(output):
        return read_job(Path(output))
    if not FileSystems.exists(files.join(output, JOB)):
        return None
    with files.reading(files.join(output, JOB)) as path:
        return read_job(path.parent)


def _opened(output: str, job: Job) -> Any:
    """Makes the output, or checks that it is this job's; a lock where there are any."""
    if not files.is_remote(output):
        return open_output(Path(output), job)
    check_same(job, _read_job(output), output)
    with files.writing(files.join(output, JOB)) as path:
        path.write_text(json.dumps(asdict(job), indent=2), encoding="utf-8")
    return contextlib.nullcontext()  # Object stores have no locks.
