"""Popularity as log-probabilities, exact whatever the size of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def check_counts(counts: Sequence[int]) -> list[int]:
    """The counts as a list of ints, else `ValueError`."""
    values = np.asarray(counts)
    whole = values.ndim == 1 and values.size and np.issubdtype(values.dtype, np.integer)
    if not whole or values.min() < 0 or values.max() == 0:
        raise ValueError(
            "`counts` must hold how often each of the N items occurs, integers of at "
            "least 0 and not all 0. Received: an array of shape "
            f"{values.shape}, dtype {values.dtype}. Use `Vocabulary.counts`."
        )
    return [int(count) for count in values]


def log_probabilities(
    counts: Sequence[int], exponent: float
) -> npt.NDArray[np.float64]:
    """log of count^exponent over their sum; minus infinity where the count is 0."""
    values = np.asarray(counts, np.float64)
    logs = np.where(values > 0, exponent * np.log(np.maximum(values, 1.0)), -np.inf)
    return np.asarray(logs - logs.max() - np.log(np.exp(logs - logs.max()).sum()))


def check_catalogue(counts: Sequence[int], num_items: int) -> None:
    """Raises `ValueError` when the counts are those of another catalogue."""
    if len(counts) != num_items:
        raise ValueError(
            "`counts` must hold one number for each candidate. Received: "
            f"{len(counts)} counts for {num_items} candidates. Leave out the padding "
            "row, and use the counts of the vocabulary that the model was made for."
        )
