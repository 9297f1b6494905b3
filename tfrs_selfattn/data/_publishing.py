"""Puts a new generation of a prepared folder in the place of the one before."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfrs_selfattn._checks import InputError
from tfrs_selfattn._locks import try_lock
from tfrs_selfattn.data.prepared import MANIFEST, is_prepared, read_prepared

_LOCK = ".lock"
_GENERATION = "generation-"


class FileCounter:
    """Counts the rows of an input file, and remembers its first bad one.

    Args:
        name: str. What the file is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows = self._rejected = 0
        self._first: str | None = None

    def add(self, rows: int, rejected: list[str]) -> None:
        """Takes the rows of a block, and the JSON of those that were rejected."""
        self._rows += rows
        self._rejected += len(rejected)
        if rejected and self._first is None:
            letter = json.loads(rejected[0])
            self._first = f"row {letter['row']}: {letter['reason']}"

    def counts(self) -> dict[str, Any]:
        """What `summary_of` needs to know of a file."""
        return {
            "file": self._name,
            "rows": self._rows,
            "rejected": self._rejected,
            "first": self._first,
        }


def new_name() -> str:
    """A name that no other generation has; names sort by time."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{_GENERATION}{moment}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def generation(folder: Path) -> Iterator[tuple[str, Path]]:
    """An empty folder for a new generation, and its name; removed unless published.

    Raises:
        InputError: when the folder holds something else, is being prepared by another
            process, or cannot be written.
    """
    made = not folder.exists()
    try:
        _check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
        name = new_name()
        try:
            if not try_lock(lock):
                raise InputError(
                    f"--output must not be in use. Received: {folder}, which another "
                    "process is preparing. Wait for it to end."
                )
            _sweep(folder)
            (folder / name).mkdir()
            try:
                yield name, folder / name
            finally:
                _sweep(folder)
        finally:
            if made and not (folder / MANIFEST).exists():
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        raise InputError(
            f"--output must be writable. Received: {folder} ({error.strerror}). Choose "
            "another one, or make room."
        ) from None


def publish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Makes a written generation the current one."""
    previous = None
    if is_prepared(folder):
        previous = read_prepared(folder).manifest["generation"]
    beside = folder / f".{MANIFEST}.part"
    text = json.dumps({**manifest, "previous": previous}, indent=2)
    beside.write_text(f"{text}\n", encoding="utf-8")
    os.replace(beside, folder / MANIFEST)


def _sweep(folder: Path) -> None:
    """Removes generations that are neither current nor the one before."""
    kept = set()
    if is_prepared(folder):
        manifest = read_prepared(folder).manifest
        kept = {manifest["generation"], manifest.get("previous")}
    for child in folder.iterdir():
        unused = child.name.startswith(_GENERATION) and child.name not in kept
        if unused or child.name.startswith(".scratch-"):
            shutil.rmtree(child, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and not is_prepared(folder):
        others = sorted(
            child.name
            for child in folder.iterdir()
            if not child.name.startswith((".", _GENERATION))
        )
        if others:
            raise InputError(
                "--output must be new, empty, or a folder that was prepared before. "
                f"Received: {folder}, which holds {others[0]}. Choose another one."
            )
    elif folder.exists() and not folder.is_dir():
        raise InputError(
            f"--output must be a folder. Received: {folder}, which is a file. Choose "
            "another one."
        )
