"""Fetches files with a progress bar: over HTTP, or through pip.

Progress goes to stderr, so that stdout stays for results.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

_SILENCE = 10.0  # Seconds without an answer after which a host counts as unreachable.
_CHUNK = 1 << 16


class UnreachableError(Exception):
    """A source did not deliver; the message says why, and another may be tried."""


def fetch(url: str, path: Path, label: str) -> None:
    """Downloads `url` to `path`."""
    try:
        with (
            urllib.request.urlopen(url, timeout=_SILENCE) as answer,
            open(path, "wb") as file,
            _progress(DownloadColumn()) as progress,
        ):
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            task = progress.add_task(label, total=total)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
            received = file.tell()
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors.
        raise UnreachableError(str(error)) from None
    if total is not None and received != total:
        raise UnreachableError(f"it broke off after {received} of {total} bytes")


def fetch_wheel(requirement: str, folder: Path, label: str) -> Path:
    """Downloads a wheel, without what it depends on, from the user's package index."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--no-input"]
    # pip's own patience, five retries of 15 seconds, is long when nothing answers.
    command += ["--timeout", str(_SILENCE), "--retries", "1"]
    with _progress(TimeElapsedColumn()) as progress:
        progress.add_task(label, total=None)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=600, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnreachableError(str(error)) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UnreachableError(lines[-1] if lines else f"pip ended {done.returncode}")
    return wheels[0]


def _progress(*columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=Console(stderr=True),
    )
