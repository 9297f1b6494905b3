"""What an export is told beside a history: of users, of requests and of events.

Every value is optional: `""`, NaN, or zeros for a vector say that it is not known, and
that is what training was shown where a table or a log had nothing.

Shape alphabet: B users, T positions, d numbers of a given vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.features.feature import Feature
from tfrs_selfattn.features.feature_set import FeatureSet, check_distinct
from tfrs_selfattn.features.vector import Vector

# Raw values by name of the feature: one of a user or a request, and for events a list.
Told: TypeAlias = "Mapping[str, Any]"

_STRANGE = "\N{REPLACEMENT CHARACTER} never seen"


@dataclass(frozen=True)
class QuerySide:
    """The features that a query tower takes; none by default.

    Args:
        query: `FeatureSet` of users and requests, fitted, or None.
        events: `FeatureSet` of events, likewise.
    """

    query: FeatureSet | None = None
    events: FeatureSet | None = None

    def __post_init__(self) -> None:
        check_distinct(self.query, self.events)

    @classmethod
    def of(cls, tower: Any) -> QuerySide:
        """The features of a query tower in memory."""
        parts = (
            getattr(tower, f"{name}_projection", None) for name in ("query", "event")
        )
        return cls(*(None if part is None else part.features for part in parts))

    @classmethod
    def from_manifest(cls, contents: Mapping[str, Any]) -> QuerySide:
        """The features that `to_manifest` described."""
        known = contents.get("features", {})
        parts = (known.get(name) for name in ("query", "events"))
        return cls(
            *(None if part is None else FeatureSet.from_config(part) for part in parts)
        )

    def to_manifest(self) -> dict[str, Any]:
        """What JSON can hold; no entry for what there is not."""
        parts = {"query": self.query, "events": self.events}
        return {name: p.to_config() for name, p in parts.items() if p is not None}

    def features(self) -> list[tuple[Feature, bool]]:
        """The features in the order of the inputs, and which are of events."""
        mine = [(feature, False) for feature in self.query or ()]
        return mine + [(feature, True) for feature in self.events or ()]

    def specs(self) -> dict[str, tf.TensorSpec]:
        """Inputs of a signature, `[B, …]` and of events `[B, T]`, in order."""
        return {
            each.name: tf.TensorSpec(
                [None, None] if of_event else [None, *each.shape],
                each.dtype,
                name=each.name,
            )
            for each, of_event in self.features()
        }

    def arrays(
        self, told: Sequence[Told], lengths: Sequence[int], width: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Raw values of several requests as inputs, what is not told as missing.

        Args:
            told: list of B `Told`.
            lengths: list of B int. Items of each history.
            width: int. T; events are padded on the right.
        """
        found = {}
        for feature, of_event in self.features():
            size = len(told) * (width if of_event else 1)
            nothing = FeatureSet((feature,)).missing(size)[feature.name]
            lead = [len(told), width] if of_event else [len(told)]
            values = nothing.reshape(*lead, *feature.shape)
            for row, each in enumerate(told):
                if feature.name in each and of_event:
                    values[row, : lengths[row]] = each[feature.name]
                elif feature.name in each:
                    values[row] = each[feature.name]
            found[feature.name] = values
        return found

    def draw(self, draw: np.random.Generator, length: int) -> dict[str, Any]:
        """Something to tell of a history, odd values among it; a quarter is missing."""
        told: dict[str, Any] = {}
        for feature, of_event in self.features():
            tried = _tried(feature)
            places = draw.integers(0, len(tried), length if of_event else 1)
            if draw.random() < 0.75:
                values = [tried[place] for place in places.tolist()]
                told[feature.name] = values if of_event else values[0]
        return told


def without(told: Told, place: int) -> dict[str, Any]:
    """What is told of a history when one of its events is taken away."""
    return {
        name: [*values[:place], *values[place + 1 :]]
        if isinstance(values, list)
        else values
        for name, values in told.items()
    }


def widened(values: tf.Tensor, history: tf.Tensor, missing: Any) -> tf.Tensor:
    """Values of events `[B, T']` brought to the width of a history `[B, T]`."""
    width = tf.shape(history)[1]
    values = values[:, :width]
    absent = tf.maximum(width - tf.shape(values)[1], 0)
    fill = tf.fill([tf.shape(values)[0], absent], tf.constant(missing, values.dtype))
    return tf.concat([values, fill], axis=1)


def tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> list[tf.Tensor]:
    """Arrays of raw values as tensors, in their order."""
    return [
        tf.constant(values.tolist(), tf.string, shape=values.shape)
        if values.dtype == object
        else tf.constant(values, tf.float32)
        for values in arrays.values()
    ]


def _tried(feature: Feature) -> list[Any]:
    """Raw values to try: known ones, strange ones, and a missing one."""
    missing = feature.missing()
    if isinstance(feature, Vector):
        return [np.ones(feature.shape, np.float32), missing]
    if feature.dtype == "float32":
        low, high = (getattr(feature, name) or 0.0 for name in ("low", "high"))
        return [low, high, (low + high) / 2, high * 10 + 1, np.inf, missing]
    names = [name.encode() for name in (getattr(feature, "vocabulary", None) or ())]
    return [*names[:5], *names[-2:], b"a few words", _STRANGE.encode(), missing]
