"""How much of what a search of everything finds does an index find."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

_SCORES = 1_000_000  # of a search of everything that are held at once
_SAMPLE = 64  # queries, of K answers each


def check_filled(index: Any, what: str) -> None:
    """Raises `ValueError` when the index holds no candidates."""
    if index._members is None:
        raise ValueError(
            f"The index must hold candidates before it is {what}. Received: none. "
            "Call `index` or `index_from_dataset` first."
        )


def used_rows(index: Any) -> npt.NDArray[np.int64]:
    """The rows that hold a candidate."""
    rows: npt.NDArray[np.int64] = np.flatnonzero(index._slots.numpy()[:, 0] >= 0)
    return rows


def own_recall(index: Any) -> float:
    """Recall of an index as it is set, for a sample of its candidates as queries."""
    live = used_rows(index)
    draw = np.random.default_rng(index.seed)
    chosen = draw.choice(live, min(len(live), _SAMPLE), replace=False)
    if not len(chosen):
        return 1.0
    queries = index.vectors_of(tf.constant(np.sort(chosen)))
    found, best = (
        answers(index, queries, index._k, probes)
        for probes in (index._num_probes(index._k), index._members.shape[0])
    )
    return overlap(found, best)


def answers(
    index: Any,
    queries: tf.Tensor,
    k: int,
    num_probes: int,
    num_reordered: int | None = None,
) -> Any:
    """The rows `[B, k]` that an index finds with a setting."""
    step = min(32, max(1, _SCORES // max(1, int(index._members.numpy().size))))
    parts = [
        index._search_rows(
            queries[start : start + step],
            k,
            None,
            None,
            num_probes=num_probes,
            num_reordered=num_reordered,
        )[1].numpy()
        for start in range(0, queries.shape[0], step)
    ]
    return np.concatenate(parts)


def overlap(found: Any, best: Any) -> float:
    """The share of the rows `best` `[B, k]` that stand in `found` `[B, k]`."""
    real = best >= 0
    hits = (best[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=-1) & real
    return float(hits.sum() / max(real.sum(), 1))
