"""What every kind of feature can do; one file a kind says how.

Shape alphabet: n values, L tokens of a value, F numbers of a value.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError

# Names of the inputs of a served model, which no feature may have.
RESERVED = (
    "history",
    "exclude",
    "candidates",
    "timestamps",
    "request_time",
    "item",
    "examples",
    "embedding",
    "item_id",
    "user_id",
    "timestamp",
)


class Encoded(NamedTuple):
    """Values as a model reads them: the sum of weighted rows of a table, and numbers.

    Args:
        tokens: int32 `[n, L]`. Rows of the table of the feature's vectors.
        weights: float32 `[n, L]`. By which each row counts; 0 for padding.
        dense: float32 `[n, F]`.
    """

    tokens: Any
    weights: Any
    dense: Any


@dataclass(frozen=True)
class Feature(abc.ABC):
    """A feature: declared, or also fitted to training data.

    Args:
        name: str. Of the feature, of its column in tables and of its input to a served
            model.
    """

    kind: ClassVar[str]
    dtype: ClassVar[str] = "string"  # of a raw value

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(
                "`name` must be letters, digits and _, since it names an input of the "
                f"served model. Received: name={self.name!r}. Rename the column."
            )
        if self.name in RESERVED:
            raise ValueError(
                f"`name` must be a name that is none of {', '.join(RESERVED)}. "
                f"Received: name={self.name!r}. Rename the column."
            )

    @property
    @abc.abstractmethod
    def fitted(self) -> bool:
        """Whether `fit` has been called."""

    @property
    def num_tokens(self) -> int:
        """V, rows of the table of vectors that the feature needs."""
        return 0

    @property
    def num_dense(self) -> int:
        """F, numbers that a value becomes."""
        return 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one raw value."""
        return ()

    def missing(self) -> Any:
        """The raw value that stands for none."""
        return b""

    def read(self, column: pl.Series, place: str) -> npt.NDArray[Any]:
        """A column of a table as raw values, which are checked.

        Args:
            column: n values.
            place: str. What the table is called, for messages.
        """
        if column.dtype.is_nested() or column.dtype == pl.Binary:
            raise InputError(
                f"{place}, column {column.name!r} must hold one value a row for a "
                f"feature of kind {self.kind!r}. Received: {column.dtype}. Choose "
                "another kind."
            )
        texts = column.cast(pl.String).fill_null("").to_list()
        return np.array([text.encode() for text in texts], object)

    @abc.abstractmethod
    def fit(self, values: npt.NDArray[Any], place: str) -> Feature:
        """The same feature, fitted to raw values, those of training.

        Args:
            values: `[n]`, as `read` gives them.
            place: str. What they are called, for messages.
        """

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays that `encode` looks into, by name."""
        return {}

    @abc.abstractmethod
    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        """Raw values as a model reads them, in stock TensorFlow operations.

        Args:
            values: string `[n]` or float32 `[n, …]`.
            state: tensors of what `state` gave.
        """

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold, from which `feature_of` makes the feature again."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def stripped(values: npt.NDArray[Any]) -> list[bytes]:
    """The blanks at the ends taken away, those that TensorFlow takes away."""
    return [bytes(value).strip(b" \t\n\v\f\r") for value in values]


def nothing(values: Any, *, dense: int = 0) -> tuple[Any, Any, Any]:
    """No tokens, no weights and zeros for `[n, …]` values."""
    import tensorflow as tf

    n = tf.shape(values)[0]
    return (
        tf.zeros(tf.stack([n, 0]), tf.int32),
        tf.zeros(tf.stack([n, 0])),
        tf.zeros(tf.stack([n, dense])),
    )
