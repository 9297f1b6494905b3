"""The folder of a run: created whole or not at all, and read back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data.vocabulary import Vocabulary
from tfrs_selfattn.training.config import RunConfig

_CONFIG = "config.json"
_ITEMS = "items.csv"
_METRICS = "metrics.json"
_VOCABULARY = "vocabulary.txt"


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
    ) -> RunFolder:
        """Creates the folder, or opens the one of the same, unfinished run.

        Raises:
            InputError: when the folder cannot be written, or holds something else.
        """
        if (path / _CONFIG).exists():
            existing = cls.open(path)
            existing._check_same(config)
            return existing
        check_output(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            vocabulary.save(beside / _VOCABULARY)
            items = {
                "item_id": list(vocabulary.ids),
                "count": vocabulary.counts,
                "title": [titles.get(item, "") for item in vocabulary.ids],
            }
            pl.DataFrame(items).write_csv(beside / _ITEMS)
            (beside / _CONFIG).write_text(config.to_json() + "\n", encoding="utf-8")
            beside.chmod(0o755)  # mkdtemp's folders are private
            os.rename(beside, path)  # also onto an empty folder
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return cls(path, config)

    def _check_same(self, config: RunConfig) -> None:
        differences = self.config.differences(config)
        if differences:
            raise InputError(
                f"The output folder {self.path} holds another run. It differs in "
                f"{'; '.join(differences)}. Choose another --output, or repeat the "
                "options of that run to continue it."
            )

    def vocabulary(self) -> Vocabulary:
        """The items in index order, with their counts."""
        counts = self._items()["count"].to_numpy()
        return Vocabulary.load(self.path / _VOCABULARY, counts)

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
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Replaces metrics.json; a reader never sees half of it."""
        path = self.path / _METRICS
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, path)


def check_output(path: Path) -> None:
    """Checks, before anything costly, that a new run folder can be created.

    Raises:
        InputError: when `path` is a file or a folder that holds something, or cannot
            be created where it should be.
    """
    if path.is_dir() and any(path.iterdir()):
        raise InputError(
            f"The output folder must be new, empty, or of the same run. Received: "
            f"{path}, which holds other files. Choose another --output."
        )
    if path.exists() and not path.is_dir():
        raise InputError(
            f"The output must be a folder. Received: {path}, which is a file. Choose "
            "another --output."
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{path.name}-", dir=parent))
    except OSError as error:
        raise InputError(
            f"The output folder must be writable. Received: {path} "
            f"({error.strerror}). Choose another --output, or change its permissions."
        ) from None
