"""Vectors of items in Parquet: for vector databases, and for items out of service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

FILE = "embeddings.parquet"
_RETIRED_FILE = "retired.parquet"


def write(
    path: Path, ids: Sequence[str], vectors: npt.NDArray[np.float32], **columns: object
) -> None:
    """Writes the columns `item_id`, `embedding` (list of float32) and others."""
    rows = pl.Series("embedding", vectors, pl.Array(pl.Float32, vectors.shape[1]))
    frame = pl.DataFrame(
        {"item_id": pl.Series(list(ids), dtype=pl.String), **columns, "embedding": rows}
    )
    # As lists of any length, which every reader of Parquet knows.
    frame.with_columns(pl.col("embedding").arr.to_list()).write_parquet(path)


def read(path: Path) -> tuple[list[str], npt.NDArray[np.float32], pl.DataFrame]:
    """The ids, the vectors `[N, D]` and all columns of a file that `write` wrote."""
    frame = pl.read_parquet(path)
    lists = frame["embedding"].to_list()
    vectors = np.array(lists, np.float32).reshape(len(lists), -1)
    return frame["item_id"].to_list(), vectors, frame


@dataclass(frozen=True)
class Retired:
    """Items that a refresh took out of the answers; they still count in histories.

    Kept beside the SavedModel, for a refresh that brings them back.

    Args:
        ids: list of M item ids.
        vectors: float32 `[M, D]`.
        counts: int64 `[M]`.
        tower_indices: int32 `[M]`.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    tower_indices: npt.NDArray[np.int32]

    @staticmethod
    def none() -> Retired:
        """No items."""
        return Retired(
            [],
            np.zeros([0, 0], np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.int32),
        )

    def write(self, folder: Path) -> None:
        """Writes them into a folder, if there are any."""
        if self.ids:
            write(
                folder / _RETIRED_FILE,
                self.ids,
                self.vectors,
                events=self.counts,
                tower_index=self.tower_indices,
            )

    @staticmethod
    def read(folder: Path) -> Retired:
        """Those of a folder; none without the file."""
        if not (folder / _RETIRED_FILE).exists():
            return Retired.none()
        ids, vectors, frame = read(folder / _RETIRED_FILE)
        return Retired(
            ids,
            vectors,
            frame["events"].to_numpy().astype(np.int64),
            frame["tower_index"].to_numpy().astype(np.int32),
        )
