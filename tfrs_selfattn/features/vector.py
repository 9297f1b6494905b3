"""A given vector a value: what a language or image model says of an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.features.feature import Encoded, Feature, nothing


@dataclass(frozen=True)
class Vector(Feature):
    """A vector that another model made; ours learns a linear map of it.

    The mean of training's vectors is taken off and all are scaled by one number, so
    that their mean length is 1. A vector of zeros stands for a missing one.

    Args:
        name: str. Of the feature and of its column of lists in Parquet.
        path: str, or None for the column. A `.npy` matrix with a row for each row of
            the table. Defaults to `None`.
        mean: tuple of float, or None before `fit`. Defaults to `None`.
        scale: float. Defaults to `1.0`.
    """

    kind: ClassVar[str] = "vector"
    dtype: ClassVar[str] = "float32"

    path: str | None = None
    mean: tuple[float, ...] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mean is not None:
            object.__setattr__(self, "mean", tuple(self.mean))

    @property
    def fitted(self) -> bool:
        return self.mean is not None

    @property
    def num_dense(self) -> int:
        return len(self.mean or ())

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean or ()),)

    def missing(self) -> Any:
        return np.zeros(self.shape, np.float32)

    def read(self, column: pl.Series, place: str) -> npt.NDArray[Any]:
        if not isinstance(column.dtype, pl.List | pl.Array):
            raise InputError(
                f"{place}, column {column.name!r} must hold lists of numbers. "
                f"Received: {column.dtype}. Use Parquet, or a .npy file: "
                f"{self.name}=vector[file.npy]."
            )
        rows = column.to_list()
        width = next((len(row) for row in rows if row is not None), 0)
        width = self.shape[0] or width
        matrix = np.zeros([len(rows), width], np.float32)
        for number, row in enumerate(rows):
            if row is None:
                continue
            if len(row) != width:
                raise InputError(
                    f"{place}, column {column.name!r} must hold lists of {width} "
                    f"numbers. Received: {len(row)} in row {number + 1}. Correct it "
                    "or leave it empty."
                )
            matrix[number] = row
        return self.checked(matrix, f"{place}, column {column.name!r}")

    def read_file(self, path: str, num_rows: int) -> npt.NDArray[Any]:
        """The matrix of a `.npy` file, with a row for each row of a table."""
        try:
            matrix = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} must be a .npy file of numbers. It cannot be read ({error}). "
                "Write it with numpy.save."
            ) from None
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise InputError(
                f"{path} must hold a matrix of numbers. Received: {matrix.dtype} of "
                f"shape {matrix.shape}. Write one row an item."
            )
        if len(matrix) != num_rows:
            raise InputError(
                f"{path} must hold a row for each of the {num_rows} rows of the table "
                f"that it goes with. Received: {len(matrix)}. Write them in the order "
                "of the table."
            )
        if self.fitted and matrix.shape[1] != self.shape[0]:
            raise InputError(
                f"{path} must hold rows of {self.shape[0]} numbers, as in training. "
                f"Received: {matrix.shape[1]}. Use the same model for them."
            )
        return self.checked(matrix.astype(np.float32), path)

    @staticmethod
    def checked(matrix: npt.NDArray[Any], place: str) -> npt.NDArray[Any]:
        """The matrix, if all of it is finite."""
        wrong = ~np.isfinite(matrix).all(axis=1)
        if wrong.any():
            raise InputError(
                f"{place} must hold finite numbers. Received: NaN or infinity in row "
                f"{int(wrong.argmax()) + 1} and {int(wrong.sum()) - 1} others. Use "
                "zeros for an item without a vector."
            )
        return matrix

    def fit(self, values: npt.NDArray[Any], place: str) -> Vector:
        known = values[values.any(axis=1)].astype(np.float64)
        if not len(known):
            raise InputError(
                f"{place}, feature {self.name!r} must hold at least one vector that is "
                "not zero. Received: none. Leave the feature out."
            )
        mean = known.mean(axis=0)
        length = float(np.linalg.norm(known - mean, axis=1).mean())
        return replace(
            self,
            mean=tuple(map(float, mean)),
            scale=1.0 / length if length > 0 else 1.0,
        )

    def encode(self, values: Any, state: Mapping[str, Any]) -> Encoded:
        import tensorflow as tf

        width = self.num_dense
        values = tf.reshape(values, [-1, width])
        # A request may hold anything, and one row must not fail the others.
        values = tf.where(tf.math.is_finite(values), values, 0.0)
        known = tf.reduce_any(values != 0, axis=1, keepdims=True)
        mean = tf.constant(self.mean or (), tf.float32, shape=[width])
        tokens, weights, _ = nothing(values)
        centred = (values - mean) * np.float32(self.scale)
        return Encoded(tokens, weights, tf.where(known, centred, 0.0))
