"""Answers many users at once with an exported SavedModel, frame in and frame out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import tensorflow as tf

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.export.loading import load
from tfrs_selfattn.export.query_side import QuerySide, tensors
from tfrs_selfattn.export.recommender import newest, read_manifest
from tfrs_selfattn.features.feature import Feature

ANSWERS = pl.Schema(
    {"user_id": pl.String(), "items": pl.List(pl.String), "scores": pl.List(pl.Float32)}
)


class BatchRecommender:
    """An export that answers frames of users.

    Its answers are those that a server gives to each user alone: the same signatures
    are asked, and neither neighbours in a batch nor padding change a row.

    Args:
        path: folder of an export, of which the highest version is taken, or of one
            version.
        request_time: int. Unix seconds at which users without one ask, for time-aware
            models.
    """

    def __init__(self, path: Path, request_time: int) -> None:
        version = newest(path)
        self._manifest: dict[str, Any] = read_manifest(version)
        self._side = QuerySide.from_manifest(self._manifest)
        self._request_time = request_time
        self._model = load(version)  # Its variables go with it.

    def answer(self, users: pl.DataFrame) -> pl.DataFrame:
        """The best items of each user, best first, as many as the export's k at most.

        Args:
            users: B users, as `UserSource.read` gives them.

        Returns:
            frame of `user_id`, `items` (a list of ids) and `scores`, a row a user.
        """
        inputs = {"history": tf.constant(_matrix(users["history"], b""), tf.string)}
        if self._manifest.get("time_aware"):
            inputs |= self._times(users)
        inputs |= self._features(users)
        signature = "serving_default"
        if "exclude" in users.columns:
            signature = "recommend_excluding"
            inputs["exclude"] = tf.constant(_matrix(users["exclude"], b""), tf.string)
        found = self._model.signatures[signature](**inputs)
        ids, scores = found["ids"].numpy(), found["scores"].numpy()  # [B, k]
        eligible = pl.Series((ids != b"").sum(axis=1))
        text = pl.Series(ids.ravel().tolist(), dtype=pl.Binary).cast(pl.String)
        answers = pl.DataFrame(
            {
                "user_id": users["user_id"],
                "items": text.reshape(ids.shape).arr.to_list(),
                "scores": pl.Series(scores.ravel()).reshape(ids.shape).arr.to_list(),
                "eligible": eligible,
            }
        )
        shortened = pl.col("items", "scores").list.head(pl.col("eligible"))
        return answers.with_columns(shortened).select(ANSWERS.names())

    def _features(self, users: pl.DataFrame) -> dict[str, tf.Tensor]:
        """What is told of users and events, `[B, …]` and `[B, T]`."""
        lengths = users["history"].list.len()
        told: list[dict[str, Any]] = [{} for _ in range(len(users))]
        for feature, of_event in self._side.features():
            column = users[feature.name]
            if of_event or feature.shape:
                wanted = lengths if of_event else feature.shape[0]
                wrong = users.filter(
                    (column.list.len() != wanted) & (column.list.len() > 0)
                )
                if len(wrong):
                    needed = "each item of history" if of_event else f"{wanted} numbers"
                    raise InputError(
                        f"{feature.name} must have a value for {needed}, or be empty. "
                        f"Received: others for user {wrong['user_id'][0]!r}. Correct "
                        "the file."
                    )
            for row, value in enumerate(column.to_list()):
                if value is not None and value != []:
                    told[row][feature.name] = _raw(feature, value)
        width = int(lengths.max() or 0)  # type: ignore[arg-type]
        arrays = self._side.arrays(told, lengths.to_list(), width)
        return dict(zip(arrays, tensors(arrays), strict=True))

    def _times(self, users: pl.DataFrame) -> dict[str, tf.Tensor]:
        if "timestamps" not in users.columns:
            raise InputError(
                "Users must have the column timestamps for a time-aware model. "
                "Received: none. Add the Unix time of each item of a history."
            )
        lengths = users.select(
            history=pl.col("history").list.len(), times=pl.col("timestamps").list.len()
        )
        wrong = users.filter(lengths["history"] != lengths["times"])
        if len(wrong):
            raise InputError(
                "timestamps must have one time for each item of history. Received: "
                f"others for user {wrong['user_id'][0]!r}. Correct the file."
            )
        asked = np.full(len(users), self._request_time)
        if "request_time" in users.columns:
            asked = users["request_time"].fill_null(self._request_time).to_numpy()
        return {
            "timestamps": tf.constant(_matrix(users["timestamps"], 0), tf.int64),
            "request_time": tf.constant(asked, tf.int64),
        }


def _raw(feature: Feature, value: Any) -> Any:
    """A value of a file as a signature takes it, what is not known as missing."""
    if isinstance(value, list):
        return [_raw(feature, each) for each in value]
    if value is None:
        return feature.missing() if not feature.shape else 0.0
    return value.encode() if isinstance(value, str) else value


def batches(users: pl.DataFrame, batch_size: int) -> Iterator[pl.DataFrame]:
    """Cuts users into batches, of histories of like length: they are padded less."""
    ordered = users.sort(pl.col("history").list.len(), maintain_order=True)
    for first in range(0, len(users), batch_size):
        yield ordered[first : first + batch_size]


def in_order(answers: list[pl.DataFrame]) -> pl.DataFrame:
    """The answers to all batches of a file, ordered by user id."""
    return pl.concat([pl.DataFrame(schema=ANSWERS), *answers]).sort("user_id")


def _matrix(lists: pl.Series, padding: Any) -> npt.NDArray[Any]:
    """Lists as the rows of a matrix, padded on the right."""
    lengths = lists.list.len().to_numpy()
    flat = lists.explode(empty_as_null=False)
    if isinstance(padding, bytes):
        values = np.array(flat.fill_null("").cast(pl.Binary).to_list(), object)
        matrix = np.full((len(lists), lengths.max(initial=0)), padding, object)
    else:
        values = flat.fill_null(0).to_numpy()
        matrix = np.zeros((len(lists), lengths.max(initial=0)), np.int64)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
    return matrix
