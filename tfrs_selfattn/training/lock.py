"""Lets one process at a time work on a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tfrs_selfattn._checks import InputError
from tfrs_selfattn._locks import try_lock

LOCK = ".run.lock"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps other processes off a folder.

    The system releases the lock when the process dies, however it dies; the file
    stays and means nothing.

    Raises:
        InputError: when another process has the folder, or it cannot be written.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"The run folder must be writable. Received: {folder} "
            f"({error.strerror}). Change its permissions, or choose another --output."
        ) from None
    try:
        if not try_lock(file):
            raise InputError(
                f"The run {folder} must not be in use. Another process is training it "
                "right now. Wait for it to end, or choose another --output."
            )
        yield
    finally:
        os.close(file)
