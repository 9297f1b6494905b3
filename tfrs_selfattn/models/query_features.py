"""What is known of users, requests and events, as arguments of a query tower."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn.features.feature import Encoded


def nothing_known(tower: Any, history: tf.Tensor) -> dict[str, Encoded]:
    """Features that say nothing, by argument, for a history int `[B, T]`.

    None for a tower that takes none, whoever wrote it.
    """
    found = {}
    shape = tf.shape(history)
    for name, lead in (("query", shape[:1]), ("event", shape)):
        projection = getattr(tower, f"{name}_projection", None)
        if projection is not None:
            empty = tf.zeros(tf.concat([lead, [0]], axis=0))
            numbers = [projection.features.num_dense]
            dense = tf.zeros(tf.concat([lead, numbers], axis=0))
            found[f"{name}_features"] = Encoded(tf.cast(empty, tf.int32), empty, dense)
    return found


def feature_specs(tower: Any) -> dict[str, tuple[Any, ...]]:
    """What a tower takes of features, by argument: specs of batches of any size."""
    found = {}
    for name, lead in (("query", [None]), ("event", [None, None])):
        projection = getattr(tower, f"{name}_projection", None)
        if projection is not None:
            padded = [*lead, None]
            numbers = [*lead, projection.features.num_dense]
            found[f"{name}_features"] = (
                tf.TensorSpec(padded, tf.int32),
                tf.TensorSpec(padded, tf.float32),
                tf.TensorSpec(numbers, tf.float32),
            )
    return found


def given(name: str, features: Encoded | None) -> Encoded:
    """The features, else `ValueError`: a tower that has them needs them."""
    if features is None:
        raise ValueError(
            f"`{name}` must be given to a tower that was built with them. Received: "
            f"{name}=None. Encode them with `FeatureEncoder`."
        )
    return features


def moved(features: Encoded, places: tf.Tensor) -> Encoded:
    """What is known of the events of `[B, T]` that stood at `places`, int `[B, T']`."""
    # Of an empty history a padding position is left, which stood nowhere.
    lacking = tf.cast(tf.equal(tf.shape(features[0])[1], 0), tf.int32)
    room = [[0, 0], [0, lacking], [0, 0]]
    return Encoded(
        *(tf.gather(tf.pad(each, room), places, batch_dims=1) for each in features)
    )
