"""Requests to a signature, as an export asks them of itself.

Two uses: the records that a server replays at its start, and the questions by which an
export is verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.client.tensors import example
from tfrs_selfattn.export import prediction_log
from tfrs_selfattn.export.query_side import QuerySide, Told, without

# One request alone, and a batch as servers merge them.
WARMUP_BATCHES = (1, 32)
_WARMUP_LENGTH = 50
_A_TIME = 1_700_000_000

Defaults: TypeAlias = "Mapping[str, Mapping[str, npt.NDArray[Any]]]"


class Request(NamedTuple):
    """A question to a signature: its name and its inputs, bytes, int64 or float32."""

    signature: str
    inputs: dict[str, npt.NDArray[Any]]


class Sample(NamedTuple):
    """A history to ask about. The times are for time-aware models alone.

    Args:
        history: list of N item ids.
        timestamps: list of N int.
        request_time: int.
        told: raw values of features, see `query_side`. Defaults to none.
    """

    history: Sequence[str]
    timestamps: Sequence[int]
    request_time: int
    told: Told = MappingProxyType({})

    def without(self, place: int) -> Sample:
        """The sample when one of its events is taken away."""
        return Sample(
            [*self.history[:place], *self.history[place + 1 :]],
            [*self.timestamps[:place], *self.timestamps[place + 1 :]],
            self.request_time,
            without(self.told, place),
        )


def sample(history: Sequence[str], step: int = 3600) -> Sample:
    """A history with one event every `step` seconds, asked about as long after."""
    times = [_A_TIME + step * place for place in range(len(history) + 1)]
    return Sample(history, times[:-1], times[-1])


def padded(rows: Sequence[Sequence[Any]]) -> npt.NDArray[Any]:
    """Lists of ids or times as one matrix, padded with `""` or 0 on the right."""
    width = max((len(row) for row in rows), default=0)
    numbers = any(isinstance(value, int) for row in rows for value in row)
    matrix = np.zeros((len(rows), width), np.int64)
    if not numbers:
        matrix = np.full((len(rows), width), b"", object)
    for number, row in enumerate(rows):
        for place, value in enumerate(row):
            matrix[number, place] = value if numbers else value.encode()
    return matrix


def about(
    samples: Sequence[Sample], *, time_aware: bool, side: QuerySide
) -> dict[str, npt.NDArray[Any]]:
    """The inputs that say what is asked about."""
    inputs = {"history": padded([sample.history for sample in samples])}
    if time_aware:
        times = padded([sample.timestamps for sample in samples]).astype(np.int64)
        inputs["timestamps"] = times.reshape(inputs["history"].shape)
        asked = [sample.request_time for sample in samples]
        inputs["request_time"] = np.array(asked, np.int64)
    lengths = [len(sample.history) for sample in samples]
    told = [sample.told for sample in samples]
    return {**inputs, **side.arrays(told, lengths, inputs["history"].shape[1])}


def examples(
    samples: Sequence[Sample],
    exclude: Sequence[Sequence[str]],
    *,
    time_aware: bool,
    side: QuerySide,
) -> npt.NDArray[np.object_]:
    """The same as serialized tf.Examples, one a row."""
    serialized = []
    for row, left_out in zip(samples, exclude, strict=True):
        ids = {
            "history": [item.encode() for item in row.history],
            "exclude": [item.encode() for item in left_out],
        }
        times = {"timestamps": row.timestamps, "request_time": [row.request_time]}
        floats = {}
        for feature, _ in side.features():
            if feature.name in row.told:
                values = np.ravel(np.array(row.told[feature.name])).tolist()
                if feature.dtype == "string":
                    given = row.told[feature.name]
                    ids[feature.name] = given if isinstance(given, list) else [given]
                else:
                    floats[feature.name] = values
        serialized.append(example(ids, times if time_aware else {}, floats))
    return np.array(serialized, object)


def question(
    signature: str,
    samples: Sequence[Sample],
    others: Sequence[Sequence[str]],
    vectors: npt.NDArray[np.float32],
    *,
    time_aware: bool,
    side: QuerySide,
    defaults: Defaults | None = None,
) -> Request:
    """A request to a signature.

    Args:
        signature: str.
        samples: list of B samples.
        others: list of B lists of ids, to exclude or to rank; the first of each stands
            for the item of `embed_item` and `explain`.
        vectors: float32 `[B, D]`, queries for an index alone.
        time_aware: bool. Whether the model takes times.
        side: `QuerySide`, the features that it takes.
        defaults: by signature, further inputs of one row, which every row gets.
    """
    request = _question(signature, samples, others, vectors, time_aware, side)
    for name, row in (defaults or {}).get(signature, {}).items():
        request.inputs[name] = np.repeat(row, len(samples), axis=0)
    return request


def _question(
    signature: str,
    samples: Sequence[Sample],
    others: Sequence[Sequence[str]],
    vectors: npt.NDArray[np.float32],
    time_aware: bool,
    side: QuerySide,
) -> Request:
    if signature == "tf_example":
        serialized = examples(samples, others, time_aware=time_aware, side=side)
        return Request(signature, {"examples": serialized})
    if signature == "embed_item":
        items = np.array([row[0].encode() for row in others], object)
        return Request(signature, {"item": items})
    if signature == "search":
        inputs = {"embedding": vectors, "exclude": padded(others)}
        return Request(signature, inputs)
    inputs = about(samples, time_aware=time_aware, side=side)
    if signature == "recommend_excluding":
        inputs["exclude"] = padded(others)
    elif signature == "recommend_among":
        inputs["candidates"] = padded(others)
    elif signature == "explain":
        inputs["item"] = np.array([row[0].encode() for row in others], object)
    return Request(signature, inputs)


def warmup_requests(
    signatures: Iterable[str],
    ids: Sequence[str],
    width: int,
    *,
    sizes: Sequence[int] = WARMUP_BATCHES,
    time_aware: bool,
    side: QuerySide,
    defaults: Defaults | None = None,
) -> list[Request]:
    """One request of each batch size to each signature, of the most popular items."""
    history = sample(list(ids[:_WARMUP_LENGTH]))
    others = list(ids[-_WARMUP_LENGTH:])
    return [
        question(
            signature,
            [history] * size,
            [others] * size,
            np.ones([size, width], np.float32),
            time_aware=time_aware,
            side=side,
            defaults=defaults,
        )
        for size in sizes
        for signature in signatures
    ]


def write_warmup(path: Path, requests: Sequence[Request]) -> None:
    """Writes the records that TensorFlow Serving replays when it loads a model."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(
                prediction_log.encode("recommender", request.signature, request.inputs)
            )
