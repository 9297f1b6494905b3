"""Requests to a signature, as an export asks them of itself.

Two uses: the records that a server replays at its start, and the questions by which an
export is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.export import prediction_log

# One request alone, and a batch as servers merge them.
_WARMUP_BATCHES = (1, 32)
_WARMUP_LENGTH = 50


class Request(NamedTuple):
    """A question to a signature: its name and its string inputs, as arrays of bytes."""

    signature: str
    inputs: dict[str, npt.NDArray[np.object_]]


def padded(rows: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    """Lists of ids as one matrix of bytes, padded with `""` on the right."""
    width = max((len(row) for row in rows), default=0)
    matrix = np.full((len(rows), width), b"", object)
    for number, row in enumerate(rows):
        for place, item in enumerate(row):
            matrix[number, place] = item.encode()
    return matrix


def examples(**lists: Sequence[Sequence[str]]) -> npt.NDArray[np.object_]:
    """Serialized tf.Examples, one a row, of lists of ids by feature."""

    def feature(row: Sequence[str]) -> Any:
        values = tf.train.BytesList(value=[item.encode() for item in row])
        return tf.train.Feature(bytes_list=values)

    serialized = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    name: feature(row) for name, row in zip(lists, rows, strict=True)
                }
            )
        ).SerializeToString(deterministic=True)
        for rows in zip(*lists.values(), strict=True)
    ]
    return np.array(serialized, object)


def warmup_requests(ids: Sequence[str]) -> list[Request]:
    """One request of each batch size to each signature, of the most popular items."""
    requests = []
    for size in _WARMUP_BATCHES:
        histories = [list(ids[:_WARMUP_LENGTH])] * size
        some = [list(ids[-_WARMUP_LENGTH:])] * size
        history = padded(histories)
        requests += [
            Request("serving_default", {"history": history}),
            Request(
                "recommend_excluding", {"history": history, "exclude": padded(some)}
            ),
            Request(
                "recommend_among", {"history": history, "candidates": padded(some)}
            ),
            Request(
                "tf_example", {"examples": examples(history=histories, exclude=some)}
            ),
            Request("embed_query", {"history": history}),
            Request("embed_item", {"item": history[:, 0]}),
        ]
    return requests


def write_warmup(path: Path, requests: Sequence[Request]) -> None:
    """Writes the records that TensorFlow Serving replays when it loads a model."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            tensors = {
                name: tf.constant(values, tf.string)
                for name, values in request.inputs.items()
            }
            writer.write(
                prediction_log.encode("recommender", request.signature, tensors)
            )
