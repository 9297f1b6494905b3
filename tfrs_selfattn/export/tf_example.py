"""Decodes serialized tf.Examples in the graph, without a bad one failing its batch.

`tf.io.parse_example` fails as a whole when one example cannot be parsed, and so does
`tf.io.decode_proto`; on a server that merges requests, one client would fail the
others. Only `tf.data` can skip an error inside a graph. So the batch is parsed at once
first, and only if that fails, one by one.

Shape alphabet: B users, T items of the longest history, E of the longest exclusion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import tensorflow as tf

_Parse: TypeAlias = "Callable[[tf.Tensor], tuple[tf.Tensor, ...]]"

# Any other feature is skipped. A model without times skips those as well.
IDS = ("history", "exclude")
TIMES = ("timestamps", "request_time")
_NO_TIME = tf.int64.min


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
    """

    history: tf.Tensor
    exclude: tf.Tensor
    timestamps: tf.Tensor | None
    request_time: tf.Tensor | None
    readable: tf.Tensor


def decode_examples(examples: tf.Tensor, *, with_times: bool = False) -> Decoded:
    """The histories and exclusions, and if asked the times, of serialized tf.Examples.

    Args:
        examples: string `[B]`. The features `history` and `exclude` are lists of bytes,
            `timestamps` and `request_time` of int64, and each may be missing.
        with_times: bool. Read the times too. Defaults to `False`.
    """
    parse = _parser(with_times)
    batch = tf.data.Dataset.from_tensors(examples)
    together = batch.map(parse).ignore_errors()
    one_by_one = batch.map(lambda rows: _one_by_one(rows, parse))
    *features, readable = together.concatenate(one_by_one).take(1).get_single_element()
    if not with_times:
        history, exclude = features
        return Decoded(history, exclude, None, None, readable)
    history, exclude, timestamps, request_time = features
    latest = tf.reduce_max(tf.pad(timestamps, [[0, 0], [0, 1]]), axis=1)
    given = tf.pad(request_time, [[0, 0], [0, 1]], constant_values=_NO_TIME)[:, 0]
    request_time = tf.where(given > _NO_TIME, given, latest)
    return Decoded(history, exclude, like(timestamps, history), request_time, readable)


def like(times: tf.Tensor, history: tf.Tensor) -> tf.Tensor:
    """Times `[B, T']` brought to the width of a history `[B, T]`, missing ones 0."""
    width = tf.shape(history)[1]
    times = times[:, :width]
    return tf.pad(times, [[0, 0], [0, width - tf.shape(times)[1]]])


def _parser(with_times: bool) -> _Parse:
    """From examples `[B]` to matrices of its features, and which can be read: all."""
    lists = {name: tf.io.RaggedFeature(tf.string) for name in IDS}
    if with_times:
        lists |= {name: tf.io.RaggedFeature(tf.int64) for name in TIMES}

    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parsed = tf.io.parse_example(examples, lists)
        features = [parsed[name].to_tensor() for name in lists]
        if with_times:
            # One column, so that a row without is not padded like one that says 0.
            features[-1] = parsed["request_time"].to_tensor(_NO_TIME, shape=[None, 1])
        return *features, tf.ones_like(examples, tf.bool)

    return parse


def _one_by_one(examples: tf.Tensor, parse: _Parse) -> tuple[tf.Tensor, ...]:
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
            tf.cast(size + 1, tf.int64), padded_shapes=([], *([None] for _ in specs))
        )
        .get_single_element()
    )
    spare_place = tf.shape(row)[0] - 1
    place = tf.tensor_scatter_nd_update(
        tf.fill([size + 1], spare_place), row[:, tf.newaxis], tf.range(spare_place + 1)
    )[:size]
    return *(tf.gather(feature, place) for feature in features), place != spare_place
