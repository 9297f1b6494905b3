"""Training rows in files: written once, streamed by every run.

A folder of shards holds TFRecord files and a manifest. A record is a row: its columns
one after the other, each T little-endian integers, so all records are equally long.
Reading batches of them is `training_dataset`, of `pipelines.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn._locks import try_lock
from tfrs_selfattn.data._tfrecord import frame_type, seal
from tfrs_selfattn.data.packing import PackedRows, RowPlan, empty_rows, plan_rows
from tfrs_selfattn.data.side import side_columns
from tfrs_selfattn.data.splits import Split

# Raised when an older reader could not make sense of the files.
FORMAT, _WITH_FEATURES = 1, 2
_MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class ShardedRows:
    """Training rows that lie in files, as `write_shards` wrote them.

    Args:
        path: Path of the folder.
        row_length: int. T.
        rows_per_shard: int. Rows of the largest shard. `write_shards` gives all shards
            but the last so many.
        shard_rows: ints. Rows of each shard.
        num_targets: int. Targets to learn in one epoch.
        num_items: int. N, the size of the vocabulary behind the item indices.
        columns: dict from the name of a column to its type, in the order of a record.
        options: dict. How the rows were made: windows, stride, pack, starts, seed.
        metadata: dict. What the writer wished to note.
        widths: dict from the name of a column of features to the numbers of each of its
            values. Defaults to none.
    """

    path: Path
    row_length: int
    rows_per_shard: int
    shard_rows: tuple[int, ...]
    num_targets: int
    num_items: int
    columns: Mapping[str, str]
    options: Mapping[str, Any]
    metadata: Mapping[str, Any]
    widths: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(self.shard_rows)

    @property
    def paths(self) -> list[Path]:
        """The files, in order."""
        count = len(self.shard_rows)
        return [self.path / shard_name(number, count) for number in range(count)]

    def load(self) -> PackedRows:
        """Reads all rows into memory, without TensorFlow."""
        rows = empty_rows(
            len(self),
            self.row_length,
            times="timestamps" in self.columns,
            sides={n: (self.columns[n], width) for n, width in self.widths.items()},
        )
        frame = frame_type(self.columns, self.row_length, self.widths)
        start = 0
        for path, count in zip(self.paths, self.shard_rows, strict=True):
            records = np.fromfile(path, frame)
            for name, column in rows.features.items():
                column[start : start + count] = records[name]
            start += count
        return rows


def write_shards(
    split: Split,
    folder: str | os.PathLike[str],
    *,
    row_length: int,
    windows: str = "all",
    stride: int | None = None,
    pack: bool = True,
    times: bool = False,
    starts: bool = False,
    seed: int = 0,
    rows_per_shard: int = 16_384,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardedRows:
    """Writes the rows of `pack_rows` into a folder of shards.

    Only one shard is in memory at a time. The folder appears whole or not at all; what
    a killed writer left beside it, the next one removes.

    Args:
        split: what to train on.
        folder: path of a folder that does not exist yet.
        row_length: int. T.
        windows: str. As of `pack_rows`. Defaults to `"all"`.
        stride: int or None. As of `pack_rows`. Defaults to `None`.
        pack: bool. As of `pack_rows`. Defaults to `True`.
        times: bool. As of `pack_rows`. Defaults to `False`.
        starts: bool. As of `pack_rows`. Defaults to `False`.
        seed: int. As of `pack_rows`. Defaults to `0`.
        rows_per_shard: int. More shuffle better and need more memory: a reader holds
            two shards, each of 12 bytes a slot, or 28 with times, and with features 8
            for each token and 4 for each number. Defaults to `16384`.
        metadata: dict of what JSON can hold, kept in the manifest. None keeps nothing.
            Defaults to `None`.
        progress: function or None. Called after each shard with the number of rows
            written and their total. Defaults to `None`.

    Raises:
        InputError: when there is nothing to train on, the folder exists, another
            process is writing it, or it cannot be written.
    """
    rows_per_shard = check_positive_int("rows_per_shard", rows_per_shard)
    folder = Path(folder)
    if folder.exists():
        raise InputError(
            f"The folder of shards must not exist yet. Received: {folder}. Choose "
            "another one, or remove it."
        )
    plan = plan_rows(
        split,
        row_length=row_length,
        windows=windows,
        stride=stride,
        pack=pack,
        times=times,
        starts=starts,
        seed=seed,
    )
    options = {
        "windows": windows,
        "stride": stride,
        "pack": pack,
        "starts": starts,
        "seed": seed,
    }
    part = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT)
        try:
            if not try_lock(lock):
                raise InputError(
                    f"The folder of shards must not be in use. Received: {folder}, "
                    "which another process is writing. Wait for it to end."
                )
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                _write(plan, part, rows_per_shard, options, metadata or {}, progress)
                os.rename(part, folder)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        finally:
            os.close(lock)
            folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder of shards must be writable. Received: {folder} "
            f"({error.strerror}). Choose another one, or make room."
        ) from None
    return read_shards(folder)


def read_shards(folder: str | os.PathLike[str], *, verify: bool = False) -> ShardedRows:
    """Opens a folder of shards.

    The size of every file is checked, and, while batches are read, the checksum of
    every row.

    Args:
        folder: path of a folder that `write_shards` wrote.
        verify: bool. Also read every file and compare its SHA-256. Defaults to
            `False`.

    Raises:
        InputError: when it is no folder of shards, of another format, or damaged.
    """
    path = Path(folder)
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        expected = _WITH_FEATURES if manifest.get("widths") else FORMAT
        if manifest["format"] != expected:
            raise InputError(
                f"{path} must have format {expected}. Received: format "
                f"{manifest['format']}, of another version of tfrs_selfattn. Write "
                "the shards again."
            )
        shards = manifest["shards"]
        rows = ShardedRows(
            path=path,
            row_length=manifest["row_length"],
            rows_per_shard=manifest["rows_per_shard"],
            shard_rows=tuple(shard["rows"] for shard in shards),
            num_targets=manifest["num_targets"],
            num_items=manifest["num_items"],
            columns=manifest["columns"],
            options=manifest["options"],
            metadata=manifest["metadata"],
            widths=manifest.get("widths", {}),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"A folder written by `write_shards` was expected. Received: {path}, whose "
            f"{_MANIFEST} cannot be used ({error}). Check the path, or write the "
            "shards again."
        ) from None
    frame = frame_type(rows.columns, rows.row_length, rows.widths)
    for file, shard in zip(rows.paths, shards, strict=True):
        _check_file(file, shard["rows"] * frame.itemsize, shard["sha256"], verify)
    return rows


def _write(
    plan: RowPlan,
    folder: Path,
    rows_per_shard: int,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Writes all shards of a plan, the manifest last."""
    starts = range(0, plan.num_rows, rows_per_shard)
    shards, num_targets = [], 0
    columns: dict[str, str] = {}
    for number, start in enumerate(starts):
        stop = min(start + rows_per_shard, plan.num_rows)
        rows = plan.lay_out(start, stop)
        columns = {name: str(each.dtype) for name, each in rows.features.items()}
        num_targets += rows.num_targets
        path = folder / shard_name(number, len(starts))
        write_records(path, rows)
        shards.append({"rows": len(rows), "sha256": sha256_of(path)})
        if progress is not None:
            progress(stop, plan.num_rows)
    write_manifest(
        folder,
        shards,
        row_length=plan.row_length,
        rows_per_shard=rows_per_shard,
        num_targets=num_targets,
        num_items=len(plan.split.sequences.vocabulary),
        columns=columns,
        options=options,
        metadata=metadata,
        widths={name: width for name, (_, width) in side_columns(plan.split).items()},
    )


def write_manifest(
    folder: Path,
    shards: Sequence[Mapping[str, Any]],
    *,
    row_length: int,
    rows_per_shard: int,
    num_targets: int,
    num_items: int,
    columns: Mapping[str, str],
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
    widths: Mapping[str, int] | None = None,
) -> None:
    """Writes what `read_shards` reads first; `shards` have `rows` and `sha256`."""
    manifest = {
        "format": _WITH_FEATURES if widths else FORMAT,
        "row_length": row_length,
        "rows_per_shard": rows_per_shard,
        "num_targets": num_targets,
        "num_items": num_items,
        "columns": columns,
        "widths": dict(widths or {}),
        "options": options,
        "metadata": metadata,
        "shards": shards,
    }
    text = json.dumps(manifest, indent=2)
    (folder / _MANIFEST).write_text(f"{text}\n", encoding="utf-8")


def write_records(path: Path, rows: PackedRows) -> None:
    """Writes rows as TFRecords, all of them at once."""
    columns = {name: str(each.dtype) for name, each in rows.features.items()}
    widths = {name: int(each.shape[2]) for name, each in rows.sides.items()}
    frames = np.zeros(len(rows), frame_type(columns, rows.row_length, widths))
    for name, column in rows.features.items():
        frames[name] = column
    seal(frames)
    frames.tofile(path)


def _check_file(path: Path, size: int, sha256: str, verify: bool) -> None:
    found = path.stat().st_size if path.is_file() else -1
    if found != size or (verify and sha256_of(path) != sha256):
        fault = f"{found} bytes instead of {size}" if found != size else "other bytes"
        raise InputError(
            f"{path} must be as `write_shards` wrote it. Received: "
            f"{'no such file' if found < 0 else fault}. Restore the file, or write "
            "the shards again."
        )


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def shard_name(number: int, count: int) -> str:
    return f"rows-{number:05d}-of-{count:05d}.tfrecord"
