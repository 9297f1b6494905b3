"""The folder that TensorFlow Serving watches: its versions, and what is not one yet.

A server polls `<base>` for folders named by a positive integer and loads the highest.
So a version is written in a hidden folder that no server looks at and comes to its
name by one rename. Nothing here knows what a version holds, nor imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn._locks import try_lock

_PREFIX = ".exporting-"  # No integer, so TensorFlow Serving ignores the folder.
_LOCK = "lock"


def versions(base: Path) -> list[int]:
    """The versions in `base`, ascending; none when there is no such folder."""
    if not base.is_dir():
        return []
    return sorted({int(child.name) for child in base.iterdir() if _is_version(child)})


def version_folder(base: Path, version: int) -> Path | None:
    """Where a version lies, whose name may have leading zeros; None if nowhere."""
    for child in base.iterdir() if base.is_dir() else ():
        if _is_version(child) and int(child.name) == version:
            return child
    return None


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal()


def check_new_version(base: Path, version: int | None) -> int | None:
    """Returns `version`, a positive integer that is not there yet, else raises."""
    if version is None:
        return None
    hint = "Leave it out to take the next free one."
    version = check_positive_int("version", version, hint)
    taken = version_folder(base, version)
    if taken is not None:
        raise InputError(
            "`version` must be one that does not exist yet, since a server may be "
            f"using it. Received: version={version}, and {taken} exists. {hint}"
        )
    return version


@contextlib.contextmanager
def staging(base: Path) -> Iterator[Path]:
    """A hidden folder inside `base` to write in, gone again at the end.

    Makes `base` if need be (and removes it if it stays empty), and clears away what
    killed writers have left. A folder belongs to a living writer as long as that
    process holds the lock on the file in it, which the system releases at its death.
    """
    made = [path for path in (base, *base.parents) if not path.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(base)
        folder, lock = _claim(base)
    except OSError as error:
        _remove_empty(made)
        raise InputError(
            "The export folder must be one that can be written to. Received: "
            f"{base} ({error.strerror}). Choose another folder or change its "
            "permissions."
        ) from None
    try:
        yield folder
    finally:
        _remove(folder, lock)
        _remove_empty(made)


def publish(
    staged: Path, base: Path, version: int | None, finish: Callable[[int], None]
) -> tuple[Path, int]:
    """Renames `staged` to `<base>/<version>`, atomically.

    Args:
        staged: folder inside `base`, on the same file system.
        base: the folder with the versions.
        version: int or None. None takes the highest plus 1, also when several writers
            want it at the same moment.
        finish: called with the number before the rename, maybe more than once.

    Returns:
        The path of the version and its number.
    """
    while True:
        number = max(versions(base), default=0) + 1 if version is None else version
        finish(number)
        check_new_version(base, version)
        target = base / str(number)
        try:
            os.rename(staged, target)
        except OSError:
            # A rename never replaces a folder with files in it: another writer was
            # faster, and the number is his.
            if version is not None or version_folder(base, number) is None:
                raise
        else:
            return target, number


def prune(base: Path, keep: int, newest: int) -> list[int]:
    """Removes all versions but the `keep` highest; returns the removed, ascending.

    Each loses its name by one rename before its files go, so that a server sees it
    whole or not at all. The version `newest` stays, whatever its number.
    """
    pruned = [number for number in versions(base)[:-keep] if number != newest]
    with staging(base) as folder:
        for number in pruned:
            path = version_folder(base, number)
            if path is not None:
                path.rename(folder / path.name)
    return pruned


def _claim(base: Path) -> tuple[Path, IO[str]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        # Until it is locked, another writer may take it for an abandoned one.
        try:
            lock = open(folder / _LOCK, "w")  # noqa: SIM115, it outlives this function
        except FileNotFoundError:
            continue
        if try_lock(lock.fileno()) and (folder / _LOCK).exists():
            return folder, lock
        lock.close()


def _remove_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            lock = open(folder / _LOCK, "r+")  # noqa: SIM115, closed below
        except OSError:
            _remove_empty([folder])
            continue
        with lock:
            # Locked but gone: its writer was just done and has removed it himself.
            if try_lock(lock.fileno()) and (folder / _LOCK).exists():
                _remove(folder, lock)


def _remove(folder: Path, lock: IO[str]) -> None:
    """Removes a folder, its lock last: what is half removed can be told as such."""
    with lock, contextlib.suppress(FileNotFoundError):
        for child in folder.iterdir():
            if child.is_dir():
                shutil.rmtree(child, ignore_errors=True)
            elif child.name != _LOCK:
                child.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink()
        folder.rmdir()


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
