"""Checks that a model and a vocabulary can be exported, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError


class VocabularyLike(Protocol):
    """What an export needs of a `tfrs_selfattn.data.Vocabulary`."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def counts(self) -> npt.NDArray[np.int64]: ...


def candidates_of(model: Any, num_items: int) -> npt.NDArray[np.float32]:
    """The candidates float32 `[N, D]` of a model, which is built if it was not yet."""
    for part in ("query_tower", "candidate_tower", "score"):
        if not hasattr(model, part):
            raise ValueError(
                "`model` must be a `SequenceRetrieval`, or have its `query_tower`, "
                f"`candidate_tower` and `score`. Received: {type(model).__name__} "
                f"without `{part}`. Compose one from your towers."
            )
    # Layers that make their variables when first called must not do so in a graph.
    times = {}
    if getattr(model.query_tower, "time_aware", False):
        nothing = tf.zeros([1, 1], tf.int64)
        times = {"timestamps": nothing, "request_time": nothing[0]}
    # Not before: the package refuses Keras 3, and `export` says better what needs it.
    from tfrs_selfattn.models.query_features import nothing_known

    history = tf.zeros([1, 1], tf.int32)
    known = nothing_known(model.query_tower, history)
    model.query_tower(history, training=False, **times, **known)
    candidates: npt.NDArray[np.float32] = model.candidate_tower.catalogue().numpy()
    if len(candidates) != num_items:
        raise InputError(
            "`vocabulary` must be the one that the model was trained with. Received: "
            f"{num_items} ids for a model of {len(candidates)} items. Pass the "
            "vocabulary.txt of the model's run."
        )
    diverged = int((~np.isfinite(candidates)).any(axis=1).sum())
    if diverged:
        raise InputError(
            "The model's candidates must be finite. Received: NaN or infinity in "
            f"{diverged} of {num_items}. Training has diverged; lower the learning "
            "rate, or export an earlier checkpoint."
        )
    return candidates.astype(np.float32, copy=False)


def checked_ids(ids: Sequence[str]) -> list[str]:
    """The item ids; they must be distinct and fit on a line."""
    if not len(ids):
        raise InputError(
            "`vocabulary` must hold at least one item. Received: none. Check the "
            "event log that it was made from."
        )
    seen: set[str] = set()
    for row, item in enumerate(ids):
        fault = ""
        if item == "":
            fault = 'is "", which stands for padding'
        elif "\n" in item or "\r" in item:
            fault = "holds a line break"
        elif item in seen:
            fault = "occurs twice"
        if fault:
            raise InputError(
                "`vocabulary` must hold distinct ids that fit on a line. Received: "
                f"{item!r} in place {row + 1}, which {fault}. Rename the item in the "
                "event log."
            )
        seen.add(item)
    return list(ids)
