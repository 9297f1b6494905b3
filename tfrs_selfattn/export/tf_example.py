"""Decodes serialized tf.Examples in the graph, without a bad one failing its batch.

`tf.io.parse_example` fails as a whole when one example cannot be parsed, and so does
`tf.io.decode_proto`; on a server that merges requests, one client would fail the
others. Only `tf.data` can skip an error inside a graph. So the batch is parsed at once
first, and only if that fails, one by one.

Shape alphabet: B users, T items of the longest history, E of the longest exclusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tfrs_selfattn.export.query_side import QuerySide

_Parse: TypeAlias = "Callable[[tf.Tensor], tuple[tf.Tensor, ...]]"

# Any other feature is skipped. A model without times skips those as well.
IDS = ("history", "exclude")
TIMES = ("timestamps", "request_time")
_NO_TIME = tf.int64.min


class _Column(NamedTuple):
    """A list of an example.

    Args:
        dtype: str.
        missing: what pads it.
        width: int. Values that it has in every row; None for any number.
    """

    dtype: str
    missing: Any
    width: int | None

    def padding(self) -> tf.Tensor:
        """What pads it, as a tensor."""
        return tf.constant(self.missing, self.dtype)


class Decoded(NamedTuple):
    """What tf.Examples held.

    Args:
        history: string `[B, T]`, padded with `""` on the right.
        exclude: string `[B, E]`, likewise.
        timestamps: int64 `[B, T]`, padded with 0 on the right; one that is missing is
            0. None unless asked for.
        request_time: int64 `[B]`. Where it is missing, the latest of the timestamps.
            None unless asked for.
        readable: bool `[B]`. False for what is no tf.Example, or has a feature of
            another type; its row is padding.
        features: raw values by name, `[B, …]` and of events `[B, T']`, of which T' may
            be any width; missing ones are as `QuerySide` has them.
    """

    history: tf.Tensor
    exclude: tf.Tensor
    timestamps: tf.Tensor | None
    request_time: tf.Tensor | None
    readable: tf.Tensor
    features: dict[str, tf.Tensor]

    @property
    def told(self) -> dict[str, tf.Tensor]:
        """All that stands beside the history."""
        if self.timestamps is None:
            return self.features
        times = {"timestamps": self.timestamps, "request_time": self.request_time}
        return {**times, **self.features}


def decode_examples(
    examples: tf.Tensor, *, with_times: bool = False, side: QuerySide | None = None
) -> Decoded:
    """The histories and exclusions, and if asked the times, of serialized tf.Examples.

    Args:
        examples: string `[B]`. The features `history` and `exclude` are lists of bytes,
            `timestamps` and `request_time` of int64, and each may be missing.
        with_times: bool. Read the times too. Defaults to `False`.
        side: `QuerySide`, the features to read too: lists of bytes or of floats, one
            value of a user or a request, one for each item of the history. Defaults to
            `None`, for none.
    """
    side = side or QuerySide()
    columns = _columns(with_times, side)
    parse = _parser(columns)
    batch = tf.data.Dataset.from_tensors(examples)
    together = batch.map(parse).ignore_errors()
    one_by_one = batch.map(lambda rows: _one_by_one(rows, parse, columns))
    *found, readable = together.concatenate(one_by_one).take(1).get_single_element()
    parsed = dict(zip(columns, found, strict=True))
    history, exclude = (parsed[name] for name in IDS)
    features = {}
    for feature, of_event in side.features():
        values = parsed[feature.name]
        if not of_event:
            # Where no example of the batch can be read, there is no column at all.
            width = columns[feature.name].width or 1
            values = _of_width(values, width, columns[feature.name])
            values = tf.reshape(values, [-1, *feature.shape])
        features[feature.name] = values
    if not with_times:
        return Decoded(history, exclude, None, None, readable, features)
    timestamps, request_time = (parsed[name] for name in TIMES)
    latest = tf.reduce_max(tf.pad(timestamps, [[0, 0], [0, 1]]), axis=1)
    given = tf.pad(request_time, [[0, 0], [0, 1]], constant_values=_NO_TIME)[:, 0]
    request_time = tf.where(given > _NO_TIME, given, latest)
    return Decoded(
        history,
        exclude,
        like(timestamps, history),
        request_time,
        readable,
        features,
    )


def like(times: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
    """Times `[B, T']` brought to the width of a history `[B, T]`, missing ones 0."""
    width = tf.shape(history)[1]
    times = times[:, :width]
    return tf.pad(times, [[0, 0], [0, width - tf.shape(times)[1]]])


def _columns(with_times: bool, side: QuerySide) -> dict[str, _Column]:
    """What is read of an example, by name."""
    columns = {name: _Column("string", "", None) for name in IDS}
    if with_times:
        # One column, so that a row without is not padded like one that says 0.
        times = (_Column("int64", 0, None), _Column("int64", _NO_TIME, 1))
        columns |= dict(zip(TIMES, times, strict=True))
    for feature, of_event in side.features():
        missing = feature.missing()
        if feature.shape:  # a vector of zeros
            missing = 0.0
        width = None if of_event else math.prod(feature.shape)
        columns[feature.name] = _Column(feature.dtype, missing, width)
    return columns


def _of_width(values: tf.Tensor, width: int, column: _Column) -> tf.Tensor:
    """`[B, W]` values, padded or cut to a width."""
    absent = tf.maximum(width - tf.shape(values)[1], 0)
    fill = tf.fill([tf.shape(values)[0], absent], column.padding())
    return tf.concat([values, fill], axis=1)[:, :width]


def _parser(columns: Mapping[str, _Column]) -> _Parse:
    """From examples `[B]` to matrices of its features, and which can be read: all."""
    lists = {
        name: tf.io.RaggedFeature(tf.as_dtype(column.dtype))
        for name, column in columns.items()
    }

    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parsed = tf.io.parse_example(examples, lists)
        features = [
            parsed[name].to_tensor(column.padding(), shape=[None, column.width])
            for name, column in columns.items()
        ]
        return *features, tf.ones_like(examples, tf.bool)

    return parse


def _one_by_one(
    examples: tf.Tensor, parse: _Parse, columns: Mapping[str, _Column]
) -> tuple[tf.Tensor, ...]:
    size = tf.shape(examples)[0]

    def parse_one(row: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *features, _ = parse(example[tf.newaxis])
        return row, *(feature[0] for feature in features)

    rows = tf.data.Dataset.from_tensor_slices((tf.range(size), examples))
    rows = rows.map(parse_one).ignore_errors()
    # A last, empty row, for those that are skipped to point to.
    _, *specs = rows.element_spec
    nothing = [tf.zeros([1, 0], spec.dtype) for spec in specs]
    spare = tf.data.Dataset.from_tensor_slices((size[tf.newaxis], *nothing))
    row, *features = (
        rows.concatenate(spare)
        .padded_batch(
            tf.cast(size + 1, tf.int64),
            padded_shapes=([], *([None] for _ in specs)),
            padding_values=(0, *(column.padding() for column in columns.values())),
        )
        .get_single_element()
    )
    spare_place = tf.shape(row)[0] - 1
    place = tf.tensor_scatter_nd_update(
        tf.fill([size + 1], spare_place), row[:, tf.newaxis], tf.range(spare_place + 1)
    )[:size]
    return *(tf.gather(feature, place) for feature in features), place != spare_place
