"""Where the runs of `quality.py` are kept, and the table of what came of them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrs_selfattn import InputError
from tfrs_selfattn._locks import try_lock
from tfrs_selfattn.training import RunConfig

METRICS = ("hr@10", "ndcg@10")
# Of a row; those that a run does not come to are empty.
COLUMNS = (
    *("date", "dataset", "events", "checksum", "preset", "time_aware", "seeds"),
    *("status", "epochs", "search"),
    *(
        f"{part} {name}{what}"
        for part in ("test", "validation")
        for name in METRICS
        for what in ("", " sd")
    ),
    *("best epochs", "device", "minutes a seed", "features", "model", "training"),
    "run",
)


def place_of(cache: Path, dataset: str, config: RunConfig) -> Path:
    """The folder of a run: the one that has it already, else a new one.

    What is there is known by its configuration, so that runs are found again that were
    made before a field was added, whose default does what was done then.
    """
    stem = f"{dataset}-{config.model.preset}-"
    for path in sorted(cache.glob(f"{stem}*/config.json")):
        try:
            known = RunConfig.read(path)
        except InputError:  # of another version
            continue
        if not known.differences(config):
            return path.parent
    parts = [config.data.fingerprint, *map(_chosen, (config.model, config.training))]
    if config.features.fingerprint:
        parts.append(config.features.fingerprint)
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    return cache / f"{stem}{name}"


def _chosen(config: Any) -> dict[str, Any]:
    """The fields that are not their defaults: others may be added."""
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of the table, as text."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def note(table: Path, row: dict[str, Any]) -> None:
    """Adds a row, in place of an earlier one of the same run.

    Several benchmarks may write at a time, and a reader never sees half of the table.
    """
    with _one_at_a_time():
        known = [other for other in rows_of(table) if other["run"] != row["run"]]
        beside = table.with_suffix(".part")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*known, {key: _short(row[key]) for key in row}])
        os.replace(beside, table)


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    path = Path(tempfile.gettempdir()) / "tfrs_selfattn-quality.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not try_lock(file):
            time.sleep(0.1)
        yield
    finally:
        os.close(file)
