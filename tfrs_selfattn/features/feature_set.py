"""Several features of one thing, items say, fitted together and kept as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.features.category import Category
from tfrs_selfattn.features.feature import Feature
from tfrs_selfattn.features.multi_category import MultiCategory
from tfrs_selfattn.features.number import Number
from tfrs_selfattn.features.text import Text
from tfrs_selfattn.features.vector import Vector
from tfrs_selfattn.features.vectorized_text import VectorizedText

KINDS: dict[str, type[Feature]] = {
    kind.kind: kind
    for kind in (Category, MultiCategory, Number, Text, VectorizedText, Vector)
}
FORMAT = 1


@dataclass(frozen=True)
class FeatureSet:
    """The features of items, of users, of events or of requests.

    Args:
        features: tuple of `Feature`, with names of their own.

    Example:

    >>> films = FeatureSet((MultiCategory("genres", min_count=1), Number("year")))
    >>> raw = {
    ...     "genres": np.array([b"Comedy|Drama", b"Comedy"], object),
    ...     "year": np.array([1994, 1996], np.float32),
    ... }
    >>> films = films.fit(raw, "films.csv")
    >>> films["genres"].vocabulary, films["year"].mean
    (('Comedy', 'Drama'), 1995.0)
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(
                "`features` must have names of their own. Received: "
                f"{', '.join(sorted(twice))} more than once. Leave one out, or copy "
                "the column under another name."
            )

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, name: str) -> Feature:
        return next(feature for feature in self.features if feature.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def fitted(self) -> bool:
        """Whether all of them are."""
        return all(feature.fitted for feature in self.features)

    @property
    def num_tokens(self) -> int:
        """V, rows of the table of vectors that they need together."""
        return sum(feature.num_tokens for feature in self.features)

    @property
    def num_dense(self) -> int:
        """F, numbers of a value."""
        return sum(feature.num_dense for feature in self.features)

    def fit(self, raw: Mapping[str, npt.NDArray[Any]], place: str) -> FeatureSet:
        """The same features, fitted to raw values of training.

        Args:
            raw: by name of a feature, an array of n raw values; see `Feature.read`.
            place: str. What the values are called, for messages.
        """
        return FeatureSet(
            tuple(each.fit(raw[each.name], place) for each in self.features)
        )

    def missing(self, size: int) -> dict[str, npt.NDArray[Any]]:
        """Raw values of `size` things of which nothing is known."""
        return {
            each.name: np.array([each.missing()] * size, _numpy(each)).reshape(
                size, *each.shape
            )
            for each in self.features
        }

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "format": FORMAT,
            "features": [each.to_config() for each in self.features],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FeatureSet:
        """The features that `to_config` described.

        Raises:
            InputError: when they are of a newer version.
        """
        features = []
        for entry in config["features"]:
            arguments = dict(entry)
            kind = KINDS.get(arguments.pop("kind"))
            if config["format"] != FORMAT or kind is None:
                raise InputError(
                    f"Features must be of format {FORMAT}, of the kinds "
                    f"{', '.join(KINDS)}. Received: format {config['format']}, kind "
                    f"{entry['kind']!r}. Use the version of tfrs_selfattn that wrote "
                    "them."
                )
            features.append(kind(**arguments))
        return cls(tuple(features))

    def fingerprint(self) -> str:
        """SHA-256 of the configuration."""
        text = json.dumps(self.to_config(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def check_distinct(*sets: FeatureSet | None) -> None:
    """Checks that inputs of one request have names of their own.

    Raises:
        InputError: when two have the same.
    """
    names: Sequence[str] = [n for each in sets if each is not None for n in each.names]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "Features of users, of requests and of events must have names of their "
                f"own. Received: {name!r} more than once. Copy the column under "
                "another name."
            )


def _numpy(feature: Feature) -> Any:
    return object if feature.dtype == "string" else np.float32
