"""Recommends to every user, as files of Parquet, and goes on where it was stopped.

The work is cut into chunks of users, each a file of the result: one that is there is
done. Here it runs in this process; Beam's way is `beam/recommend_all.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn._locks import try_lock
from tfrs_selfattn.export import manifest
from tfrs_selfattn.export.batch import BatchRecommender, batches, in_order
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.recommender import newest, read_manifest
from tfrs_selfattn.export.users import UserSource, find_users

JOB = "job.json"
_LOCK = ".lock"


class Chunk(NamedTuple):
    """Some users of a file, whose answers are a file.

    Args:
        part: int. Which of the files of users.
        first: int. The first user.
        users: int. So many.
    """

    part: int
    first: int
    users: int

    @property
    def name(self) -> str:
        """The name of the file of answers."""
        return f"answers-{self.part:05d}-{self.first:010d}.parquet"


@dataclass(frozen=True)
class Job:
    """What the answers depend on; a result of another job is not gone on with.

    Args:
        export: str. SHA-256 of the export's manifest.
        parts: the files of users.
        users: ints. Users of each file.
        users_per_file: int.
        request_time: int. Unix seconds.
    """

    export: str
    parts: tuple[str, ...]
    users: tuple[int, ...]
    users_per_file: int
    request_time: int

    def chunks(self) -> list[Chunk]:
        """All the work, in order."""
        return [
            Chunk(part, first, min(self.users_per_file, users - first))
            for part, users in enumerate(self.users)
            for first in range(0, users, self.users_per_file)
        ]


@dataclass(frozen=True)
class BatchResult:
    """Answers that were written.

    Args:
        path: Path of the folder: Parquet files of `user_id`, `items` (ids, best first)
            and `scores`.
        users: int. Users with an answer.
        files: int. Files of the folder.
        resumed: int. Users whose answer was there already.
    """

    path: Path
    users: int
    files: int
    resumed: int


def recommend_all(
    export: str | os.PathLike[str],
    users: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    users_per_file: int = 20_000,
    request_time: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BatchResult:
    """Writes the best items of every user.

    Stopped and called again with the same arguments, it goes on; the answers are those
    of an uninterrupted call.

    Args:
        export: folder of an export, of which the highest version is taken, or of one
            version.
        users: path of a folder that `prepare_events` wrote, or of Parquet with the
            columns `user_id` and `history`, those of the features that the export
            takes of users, requests and events, and optionally `exclude`, `timestamps`
            and `request_time`; see `find_users`.
        output: path of a new folder, or of the one to go on with.
        batch_size: int. Users that are asked about at once. Defaults to `256`.
        users_per_file: int. Users of a file of the result, and what a stop costs at
            most. Defaults to `20000`.
        request_time: int or None. Unix seconds at which users ask, for time-aware
            models. None is now, or what the call that is gone on with took. Defaults
            to `None`.
        progress: function or None. Called with users answered, and all of them.
            Defaults to `None`.

    Returns:
        `BatchResult`.

    Raises:
        InputError: when the export or the users cannot be used, or the folder holds
            something else.
    """
    check_positive_int("batch_size", batch_size)
    check_positive_int("users_per_file", users_per_file)
    version = newest(Path(export))
    source = find_users(users, QuerySide.from_manifest(read_manifest(version)))
    folder = Path(output)
    job = make_job(
        (version / manifest.FOLDER / manifest.FILE).read_bytes(),
        source,
        [source.count(part) for part in source.parts],
        users_per_file,
        request_time,
        read_job(folder),
    )
    with open_output(folder, job):
        chunks = job.chunks()
        waiting = [chunk for chunk in chunks if not (folder / chunk.name).exists()]
        total = sum(job.users)
        resumed = done = total - sum(chunk.users for chunk in waiting)
        model = BatchRecommender(version, job.request_time) if waiting else None
        for chunk in waiting:
            answers = []
            read = source.read(source.parts[chunk.part], chunk.first, chunk.users)
            for batch in batches(read, batch_size):
                assert model is not None
                answers.append(model.answer(batch))
                done += len(batch)
                if progress is not None:
                    progress(done, total)
            beside = folder / f".{chunk.name}.part"
            in_order(answers).write_parquet(beside)
            os.replace(beside, folder / chunk.name)
    return BatchResult(folder, total, len(chunks), resumed)


def make_job(
    export: bytes,
    source: UserSource,
    users: list[int],
    users_per_file: int,
    request_time: int | None,
    before: Mapping[str, Any] | None,
) -> Job:
    """The job that arguments describe.

    Args:
        export: the export's manifest.
        source: the users.
        users: ints. Users of each file.
        users_per_file: int.
        request_time: int or None, which is that of `before`, or now.
        before: what `read_job` has found in the output, or None.
    """
    if request_time is None:
        request_time = int(before["request_time"] if before else time.time())
    return Job(
        hashlib.sha256(export).hexdigest(),
        source.parts,
        tuple(users),
        users_per_file,
        request_time,
    )


def read_job(folder: Path) -> dict[str, Any] | None:
    """The job that an output folder holds, None without one."""
    try:
        found = json.loads((folder / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_same(job: Job, before: Mapping[str, Any] | None, folder: object) -> None:
    """Checks that an output is of this job.

    Raises:
        InputError: when it is of another.
    """
    mine = json.loads(json.dumps(asdict(job)))
    different = [name for name in mine if before and before.get(name) != mine[name]]
    if different:
        raise InputError(
            "--output must be new, or hold the answers of the same export to the same "
            f"users. Received: {folder}, which differs in {', '.join(different)}. "
            "Choose another one."
        )


@contextlib.contextmanager
def open_output(folder: Path, job: Job) -> Iterator[None]:
    """Makes the output folder, or checks that it is this job's, and locks it.

    Raises:
        InputError: when it holds something else, or another process is writing it.
    """
    before = read_job(folder)
    if before is None and folder.exists() and any(folder.glob("[!.]*")):
        raise InputError(
            "--output must be new, empty, or hold answers to go on with. Received: "
            f"{folder}, which holds something else. Choose another one."
        )
    check_same(job, before, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
        try:
            if not try_lock(lock):
                raise InputError(
                    f"--output must not be in use. Received: {folder}, which another "
                    "process is writing. Wait for it to end."
                )
            for left in folder.glob(".answers-*.part"):
                left.unlink()
            beside = folder / f".{JOB}.part"
            beside.write_text(json.dumps(asdict(job), indent=2), encoding="utf-8")
            os.replace(beside, folder / JOB)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        raise InputError(
            f"--output must be writable. Received: {folder} ({error.strerror}). Choose "
            "another one, or make room."
        ) from None
