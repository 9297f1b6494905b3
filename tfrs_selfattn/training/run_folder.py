"""The folder of a run: what is in it, how it comes to be, and how it is read back."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data.vocabulary import Vocabulary
from tfrs_selfattn.training.config import RunConfig
from tfrs_selfattn.training.lock import LOCK, exclusive
from tfrs_selfattn.training.side_information import FILES, SideInformation

_CONFIG = "config.json"
_ITEMS = "items.csv"
_METRICS = "metrics.json"
_VOCABULARY = "vocabulary.txt"
# What a folder may hold whose creation was cut short; the lock file comes first.
_UNFINISHED = {
    LOCK,
    _VOCABULARY,
    f"{_VOCABULARY}.part",
    _ITEMS,
    f"{_CONFIG}.part",
    *FILES,
}


@dataclass(frozen=True)
class RunFolder:
    """A run folder that exists.

    Args:
        path: Path of the folder.
        config: its config.json.
    """

    path: Path
    config: RunConfig

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard logs."""
        return self.path / "tensorboard"

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Opens the folder of a run.

        Raises:
            InputError: when it holds no run.
        """
        if not (path / _CONFIG).is_file():
            found = "no such folder" if not path.exists() else "no config.json in it"
            raise InputError(
                f"A run folder, written by `tfrs-selfattn train --output RUN`, was "
                f"expected. Received: {path} ({found}). Pass the folder given to "
                "--output, or train first."
            )
        return cls(path, RunConfig.read(path / _CONFIG))

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        vocabulary: Vocabulary,
        titles: Mapping[str, str],
        side: SideInformation | None = None,
    ) -> RunFolder:
        """Creates the folder, or opens the one of the same run.

        config.json is written last: a folder without it is no run, and one whose
        creation was cut short is created anew.

        Raises:
            InputError: when the folder cannot be written, or holds something else.
        """
        check_output(path)
        made = _make(path)
        with exclusive(path):
            if (path / _CONFIG).exists():
                existing = cls.open(path)
                existing._check_same(config)
                return existing
            try:
                vocabulary.save(path / _VOCABULARY)
                items = {
                    "item_id": list(vocabulary.ids),
                    "count": vocabulary.counts,
                    "title": [titles.get(item, "") for item in vocabulary.ids],
                }
                pl.DataFrame(items).write_csv(path / _ITEMS)
                if side is not None:
                    side.save(path)
                _write(path / _CONFIG, config.to_json())
            except BaseException:
                _take_back(path, made)
                raise
        return cls(path, config)

    @classmethod
    def join(cls, path: Path, config: RunConfig) -> RunFolder:
        """Opens the folder that another worker of the same run has created.

        Raises:
            InputError: when it is not there, or of another run.
        """
        existing = cls.open(path)
        existing._check_same(config)
        return existing

    def _check_same(self, config: RunConfig) -> None:
        differences = self.config.differences(config)
        if differences:
            raise InputError(
                f"The output folder {self.path} holds another run, made with "
                f"{', '.join(differences)}. Choose another --output, or repeat the "
                "options of that run to continue it."
            )

    def vocabulary(self) -> Vocabulary:
        """The items in index order, with their counts."""
        counts = self._items()["count"].to_numpy()
        return Vocabulary.load(self.path / _VOCABULARY, counts)

    def side(self) -> SideInformation:
        """What the run knows beside ids."""
        return SideInformation.load(self.path)

    def titles(self) -> dict[str, str]:
        """Titles by item id, of the items that have one."""
        items = self._items().filter(pl.col("title") != "")
        return dict(zip(items["item_id"], items["title"], strict=True))

    def _items(self) -> pl.DataFrame:
        schema = {"item_id": pl.String, "count": pl.Int64, "title": pl.String}
        path = self.path / _ITEMS
        try:
            return pl.read_csv(path, schema=schema).with_columns(
                pl.col("title").fill_null("")
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(
                f"{path} must hold the columns item_id, count and title. It cannot be "
                f"read ({str(error).splitlines()[0]}). Restore it, or train again."
            ) from None

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the first epoch."""
        path = self.path / _METRICS
        if not path.exists():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} must be the metrics.json of a run. It cannot be used "
                f"({error}). Remove it and repeat the `train` command, which writes "
                "it again."
            ) from None
        return content

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replaces metrics.json; a reader never sees half of it."""
        _write(self.path / _METRICS, json.dumps(metrics, indent=2))


def check_output(path: Path) -> None:
    """Checks, before anything costly, that a folder can become a run or is one.

    Raises:
        InputError: when `path` is a file or a folder that holds something else, or
            cannot be created where it should be.
    """
    try:
        if path.exists() and not path.is_dir():
            raise InputError(
                f"The output must be a folder. Received: {path}, which is a file. "
                "Choose another --output."
            )
        if path.is_dir() and not (path / _CONFIG).exists():
            others = {child.name for child in path.iterdir()}
            if LOCK in others:
                others -= _UNFINISHED
            if others:
                raise InputError(
                    "The output folder must be new, empty, or of the same run. "
                    f"Received: {path}, which holds other files. Choose another "
                    "--output."
                )
        existing = path.absolute()
        while not existing.exists():
            existing = existing.parent
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=existing))
    except OSError as error:
        raise InputError(
            f"The output folder must be writable. Received: {path} "
            f"({error.strerror}). Choose another --output, or change its permissions."
        ) from None


def _make(path: Path) -> list[Path]:
    """Makes a folder; returns those that were not there before, innermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def _take_back(path: Path, made: list[Path]) -> None:
    """Removes what a failed creation has written."""
    with contextlib.suppress(OSError):
        for name in _UNFINISHED:
            (path / name).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()


def _write(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it there."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)
