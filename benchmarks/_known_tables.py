"""Tables of items and users for the benchmarks that train with side information."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.features import FeatureTable, parse_features, read_feature_table
from tfrs_selfattn.training import Known


def read_known(
    data: Path,
    text: str,
    kind: str,
    ids: Sequence[str],
    trained: npt.NDArray[np.bool_],
) -> tuple[Known, FeatureTable]:
    """Reads a table and fits its features to what training shows.

    Args:
        data: the folder that the file of the table is in.
        text: `FILE:COLUMN=KIND,…`.
        kind: "item" or "user".
        ids: those of a model, and behind them others.
        trained: bool `[n]`. Which of the model's n are in training.

    Returns:
        What is known of the model's, and the table of the others.
    """
    path, features = parse_features(text, f"--{kind}-features", with_file=True)
    if path is None:
        raise SystemExit(f"--{kind}-features must name a file. Received: {text}")
    table = read_feature_table(data / path, features, id_column=f"{kind}_id")
    aligned, _ = table.align(list(ids), features)
    count = len(trained)
    known = Known.fit(features, aligned.take(np.arange(count)), trained)
    return known, aligned.take(np.arange(count, len(ids)))
