"""Decodes serialized tf.Examples in the graph, without a bad one failing its batch.

`tf.io.parse_example` fails as a whole when one example cannot be parsed, and so does
`tf.io.decode_proto`; on a server that merges requests, one client would fail the
others. Only `tf.data` can skip an error inside a graph. So the batch is parsed at once
first, and only if that fails, one by one.

Shape alphabet: B users, T items of the longest history, E of the longest exclusion.
"""

from __future__ import annotations

import tensorflow as tf

# Other features, such as the timestamps that a time-aware model will read, are skipped.
FEATURES = ("history", "exclude")

_Parsed = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def decode_examples(examples: tf.Tensor) -> _Parsed:
    """The histories and exclusions of serialized tf.Examples.

    Args:
        examples: string `[B]`. The features `history` and `exclude` are lists of
            bytes, and either may be missing. Any other feature is ignored.

    Returns:
        history string `[B, T]`, exclude string `[B, E]`, both padded with `""` on the
        right, and readable bool `[B]`: False for what is no tf.Example, or has a
        feature of another type; its row is padding.
    """
    batch = tf.data.Dataset.from_tensors(examples)
    together = batch.map(_parse_together).ignore_errors()
    return tuple(
        together.concatenate(batch.map(_parse_one_by_one)).take(1).get_single_element()
    )


def _parse_together(examples: tf.Tensor) -> _Parsed:
    lists = {name: tf.io.RaggedFeature(tf.string) for name in FEATURES}
    parsed = tf.io.parse_example(examples, lists)
    history, exclude = (parsed[name].to_tensor("") for name in FEATURES)
    return history, exclude, tf.ones_like(examples, tf.bool)


def _parse_one_by_one(examples: tf.Tensor) -> _Parsed:
    size = tf.shape(examples)[0]

    def parse(row: tf.Tensor, example: tf.Tensor) -> _Parsed:
        history, exclude, _ = _parse_together(example[tf.newaxis])
        return row, history[0], exclude[0]

    rows = tf.data.Dataset.from_tensor_slices((tf.range(size), examples))
    # A last, empty row, for those that are skipped to point to.
    nothing = tf.zeros([1, 0], tf.string)
    spare = tf.data.Dataset.from_tensor_slices((size[tf.newaxis], nothing, nothing))
    rows = rows.map(parse).ignore_errors().concatenate(spare)
    row, history, exclude = rows.padded_batch(
        tf.cast(size + 1, tf.int64), padded_shapes=([], [None], [None])
    ).get_single_element()
    spare_place = tf.shape(row)[0] - 1
    place = tf.tensor_scatter_nd_update(
        tf.fill([size + 1], spare_place), row[:, tf.newaxis], tf.range(spare_place + 1)
    )[:size]
    return tf.gather(history, place), tf.gather(exclude, place), place != spare_place
