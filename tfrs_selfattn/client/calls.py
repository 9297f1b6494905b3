"""From lists of ids to the inputs of a signature, and from its outputs to answers.

Two dangers lie in how a server merges requests (see serving/README.md). One that pads
repeats a tensor's own first element as if it were real; so every matrix sent from here
begins with a column of `""`, and no tensor is empty. One that does not pad fails
requests of different widths; so histories and exclusions go as tf.Examples, which
always merge, and matrices, where they must be, have a width from a coarse scale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.client.answers import (
    Embedding,
    Explanation,
    Prediction,
    RankedItem,
    Recommendations,
    TensorSpec,
)
from tfrs_selfattn.client.tensors import Tensor, example
from tfrs_selfattn.client.told import Told, nothing_told, takes_features

Id: TypeAlias = "str | bytes"
Ids: TypeAlias = Sequence[Sequence[Id]]
Features: TypeAlias = "Mapping[str, Sequence[Any]] | None"
EventFeatures: TypeAlias = "Mapping[str, Sequence[Sequence[Any]]] | None"
Answer = TypeVar("Answer")

EXAMPLES = "tf_example"  # whose inputs need not be whole


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """A request to a signature, and how its outputs are read."""

    signature: str
    inputs: dict[str, Tensor]
    read: Callable[[Prediction], Answer]


@dataclass(frozen=True)
class Times:
    """The times of a request to a time-aware model, Unix seconds."""

    timestamps: list[list[int]]
    request_times: list[int]

    def of(self, row: int) -> dict[str, list[int]]:
        """The features of a row."""
        return {
            "timestamps": self.timestamps[row],
            "request_time": [self.request_times[row]],
        }


@dataclass(frozen=True)
class About:
    """What is told beside histories.

    Args:
        times: `Times` for a time-aware model, or None.
        told: `Told` for a model with features of users, requests or events, or None.
        specs: inputs of `embed_query`, by which what is told is checked.
    """

    times: Times | None = None
    told: Told | None = None
    specs: Mapping[str, TensorSpec] | None = None


def recommend(
    histories: Ids,
    exclude: Ids | None,
    among: Ids | None,
    about: About,
    *,
    examples: bool,
    width: int,
) -> Call[list[Recommendations]]:
    """The best items of each history."""
    rows = _rows("histories", histories)
    if exclude is not None and among is not None:
        raise InputError(
            "`exclude` and `among` must not be given together. Received: both. Leave "
            "the excluded items out of `among`."
        )
    others = {}
    if exclude is not None:
        others["exclude"] = _rows("exclude", exclude, len(rows))
    if among is not None:
        others["candidates"] = _rows("among", among, len(rows))
    if examples and among is None:
        if about.told is not None:
            about.told.check(about.specs or {})
        lists = {"history": rows, **others}
        serialized = []
        for row in range(len(rows)):
            texts, numbers = ({}, {}) if about.told is None else about.told.of(row)
            ids = {name: lists[name][row] for name in lists}
            times = {} if about.times is None else about.times.of(row)
            serialized.append(example({**texts, **ids}, times, numbers))
        inputs = {"examples": Tensor("string", (len(rows),), serialized)}
        return Call(EXAMPLES, inputs, _ranked)
    inputs = _history(rows, about, width)
    signature = "serving_default"
    if others:
        inputs |= {name: _matrix(lists, width) for name, lists in others.items()}
        signature = "recommend_excluding" if among is None else "recommend_among"
    return Call(signature, inputs, _ranked)


def embed_query(histories: Ids, about: About, *, width: int) -> Call[list[Embedding]]:
    """The query vector of each history."""
    rows = _rows("histories", histories)
    return Call("embed_query", _history(rows, about, width), _vectors)


def embed_items(items: Sequence[Id], about: About) -> Call[list[Embedding]]:
    """The vector of each item."""
    (row,) = _rows("items", [items])
    inputs = {"item": Tensor("string", (len(row),), row)}
    if about.told is not None:
        inputs |= about.told.tensors(about.specs or {}, width=0)
    return Call("embed_item", inputs, _vectors)


def explain(
    histories: Ids, items: Sequence[Id], about: About, *, width: int
) -> Call[list[Explanation]]:
    """What each item of a history did for the score of an item."""
    rows = _rows("histories", histories)
    (asked,) = _rows("items", [items])
    if len(asked) != len(rows):
        raise InputError(
            "`items` must name one item for each history. Received: "
            f"{len(asked)} for {len(rows)} histories. Repeat a history to explain "
            "several items."
        )
    inputs = _history(rows, about, width)
    inputs["item"] = Tensor("string", (len(asked),), asked)

    def read(prediction: Prediction) -> list[Explanation]:
        # The first column is padding, see above; so is what follows the history.
        found = prediction.outputs["contribution"].rows()
        return [
            Explanation(tuple(map(float, values[1 : 1 + len(row)])), prediction.version)
            for row, values in zip(rows, found, strict=True)
        ]

    return Call("explain", inputs, read)


def filled(histories: Ids, specs: Mapping[str, TensorSpec]) -> Told | None:
    """What to send where nothing is told: missing values, if features are taken."""
    return nothing_told(histories) if takes_features(specs) else None


def rows_to_exclude(
    histories: Ids | None, exclude: Ids | None, count: int
) -> list[list[bytes]]:
    """The ids that each answer leaves out: of its history, and of `exclude`."""
    left_out: list[list[bytes]] = [[] for _ in range(count)]
    for name, rows in (("histories", histories), ("exclude", exclude)):
        if rows is not None:
            for own, more in zip(left_out, _rows(name, rows, count), strict=True):
                own += more
    return left_out


def search(
    vectors: Sequence[Embedding], exclude: list[list[bytes]], *, width: int
) -> dict[str, Tensor]:
    """The inputs of `search`, the signature of an index alone."""
    values = [value for each in vectors for value in each.vector]
    shape = (len(vectors), len(vectors[0].vector))
    return {
        "embedding": Tensor("float32", shape, values),
        "exclude": _matrix(exclude, width),
    }


def times_of(
    histories: Ids,
    timestamps: Sequence[Sequence[int]] | None,
    request_times: Sequence[int] | None,
) -> Times | None:
    """Checked times; None for a model without. A request is made now unless told."""
    if timestamps is None:
        if request_times is None:
            return None
        raise InputError(
            "`timestamps` must come with `request_times`. Received: request_times "
            "alone. Pass the time of each item of the histories."
        )
    given = [list(row) for row in timestamps]
    if [len(row) for row in given] != [len(row) for row in histories]:
        raise InputError(
            "`timestamps` must hold one time for each item of each history. Received: "
            f"{[len(row) for row in given]} times for "
            f"{[len(row) for row in histories]} items. Pass lists of equal lengths."
        )
    now = [int(time.time())] * len(given) if request_times is None else request_times
    if len(now) != len(given):
        raise InputError(
            "`request_times` must hold one time for each history. Received: "
            f"{len(now)} for {len(given)}. Pass one Unix time a history."
        )
    for moment in (*now, *(moment for row in given for moment in row)):
        if isinstance(moment, bool) or not isinstance(moment, int):
            raise InputError(
                "Times must be Unix seconds, integers. Received: "
                f"{moment!r}. Convert them, for example with int(when.timestamp())."
            )
    return Times(given, list(now))


def _history(rows: list[list[bytes]], about: About, width: int) -> dict[str, Tensor]:
    inputs = {"history": _matrix(rows, width)}
    times = about.times
    if times is not None:
        inputs["timestamps"] = _matrix(times.timestamps, width, "int64")
        inputs["request_time"] = Tensor("int64", (len(rows),), times.request_times)
    if about.told is not None:
        columns = inputs["history"].shape[1]
        inputs |= about.told.tensors(about.specs or {}, width=columns, before=1)
    return inputs


def _matrix(rows: Sequence[Sequence[Any]], step: int, dtype: str = "string") -> Tensor:
    """Pads rows of ids or times; the first column is padding too, see above."""
    padding: Any = b"" if dtype == "string" else 0
    longest = max((len(row) for row in rows), default=0) + 1
    width = -(-longest // step) * step
    values: list[Any] = []
    for row in rows:
        values += [padding, *row, *[padding] * (width - 1 - len(row))]
    return Tensor(dtype, (len(rows), width), values)


def _rows(name: str, rows: Any, count: int | None = None) -> list[list[bytes]]:
    if isinstance(rows, str | bytes) or any(
        isinstance(row, str | bytes) for row in rows
    ):
        raise InputError(
            f"`{name}` must hold lists of item ids. Received: {rows!r}. For one user, "
            'use [["id1", "id2"]].'
        )
    if count is not None and len(rows) != count:
        raise InputError(
            f"`{name}` must have a list for each history. Received: {len(rows)} for "
            f"{count} histories. Use [] where there is nothing to say."
        )
    return [[_encoded(name, item) for item in row] for row in rows]


def _encoded(name: str, item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if not isinstance(item, str):
        raise InputError(
            f"`{name}` must hold item ids, which are strings. Received: {item!r}. "
            "Convert it with str."
        )
    return item.encode("utf-8", "surrogateescape")


def _ranked(prediction: Prediction) -> list[Recommendations]:
    outputs = prediction.outputs
    rows = zip(outputs["ids"].rows(), outputs["scores"].rows(), strict=True)
    return [
        Recommendations(
            tuple(
                RankedItem(item.decode("utf-8", "replace"), float(score))
                for item, score in zip(ids, scores, strict=True)
                if item
            ),
            prediction.version,
        )
        for ids, scores in rows
    ]


def _vectors(prediction: Prediction) -> list[Embedding]:
    return [
        Embedding(tuple(map(float, row)), prediction.version)
        for row in prediction.outputs["embedding"].rows()
    ]
