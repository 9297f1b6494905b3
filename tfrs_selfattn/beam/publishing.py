"""Generations of a prepared folder that may lie on one of Beam's file systems."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apache_beam.io.filesystems import FileSystems

from tfrs_selfattn.beam import files
from tfrs_selfattn.data import _publishing
from tfrs_selfattn.data.prepared import MANIFEST


@contextlib.contextmanager
def generation(folder: str) -> Iterator[tuple[str, str]]:
    """A place for a new generation, and its name; removed unless published.

    Object stores have no locks: there, two runs at once leave the manifest of the last.
    """
    if not files.is_remote(folder):
        with _publishing.generation(Path(folder).absolute()) as (name, path):
            yield name, str(path)
        return
    name = _publishing.new_name()
    place = files.join(folder, name)
    try:
        yield name, place
    except BaseException:
        _remove(place)
        raise


def publish(folder: str, manifest: Mapping[str, Any]) -> None:
    """Makes a written generation the current one; removes the one before the last."""
    if not files.is_remote(folder):
        _publishing.publish(Path(folder).absolute(), manifest)
        return
    target = files.join(folder, MANIFEST)
    last: dict[str, Any] = {}
    if FileSystems.exists(target):
        with files.reading(target) as path:
            last = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps({**manifest, "previous": last.get("generation")}, indent=2)
    with files.writing(target) as path:
        path.write_text(f"{text}\n", encoding="utf-8")
    if last.get("previous"):
        _remove(files.join(folder, last["previous"]))


def _remove(place: str) -> None:
    with contextlib.suppress(Exception):  # What is left behind does no harm.
        FileSystems.delete([place])
