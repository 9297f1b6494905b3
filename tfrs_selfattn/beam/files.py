"""Files of the local disk and of Beam's file systems (`gs://…`, `s3://…`), alike.

Polars and TensorFlow get local files: a remote one is copied to the worker's disk, and
what is written there goes out in one piece.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


def is_remote(path: str) -> bool:
    """Whether a path belongs to one of Beam's file systems."""
    return "://" in path


def join(folder: str, *names: str) -> str:
    """A path below a folder."""
    joined: str = FileSystems.join(folder, *names)
    return joined


@contextlib.contextmanager
def reading(path: str) -> Iterator[Path]:
    """A local file with the content of `path`."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / path.rsplit("/", 1)[-1]
        with (
            FileSystems.open(
                path, compression_type=CompressionTypes.UNCOMPRESSED
            ) as source,
            open(local, "wb") as target,
        ):
            shutil.copyfileobj(source, target)
        yield local


@contextlib.contextmanager
def writing(path: str) -> Iterator[Path]:
    """A local file that becomes `path` when the block ends well.

    A bundle that is tried again, or twice at once, replaces it by the same content.
    """
    if not is_remote(path):
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
        try:
            yield beside
            os.replace(beside, place)
        finally:
            beside.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / path.rsplit("/", 1)[-1]
        yield local
        with (
            open(local, "rb") as source,
            FileSystems.create(
                path, compression_type=CompressionTypes.UNCOMPRESSED
            ) as target,
        ):
            shutil.copyfileobj(source, target)


def matching(pattern: str) -> list[str]:
    """The files that a pattern matches, in order of their names."""
    (result,) = FileSystems.match([pattern])
    return sorted(metadata.path for metadata in result.metadata_list)


def to_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as an element of a collection."""
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def from_bytes(content: bytes) -> pl.DataFrame:
    """The frame that `to_bytes` was given."""
    return pl.read_ipc(content)


def copy_folder(source: str, target: Path) -> None:
    """Copies all files below a folder to the local disk."""
    for path in matching(join(source, "**")):
        local = target / path.removeprefix(source).lstrip("/")
        local.parent.mkdir(parents=True, exist_ok=True)
        with reading(path) as copied:
            shutil.copyfile(copied, local)
