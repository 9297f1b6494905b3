"""Raw values to tokens and numbers: what training and a SavedModel both run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn.features.feature import Encoded
from tfrs_selfattn.features.feature_set import FeatureSet

_ROWS = 8192  # Things encoded at a time.


class SparseRows(NamedTuple):
    """Encoded values of n things without their padding.

    Args:
        splits: int64 `[n + 1]`. The tokens of thing i are `tokens[splits[i]:splits[i +
            1]]`.
        tokens: int32 `[nnz]`.
        weights: float32 `[nnz]`.
        dense: float32 `[n, F]`.
    """

    splits: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float32]


class FeatureEncoder(tf.Module):  # type: ignore[misc]
    """A fitted set of features as TensorFlow operations.

    Vocabularies are variables, so that a graph does not grow with them.

    Args:
        features: `FeatureSet`, fitted.

    Example:

    >>> films = FeatureSet((MultiCategory("genres", min_count=1),))
    >>> raw = {"genres": np.array([b"Comedy|Drama", b"Comedy"], object)}
    >>> encode = FeatureEncoder(films.fit(raw, "films.csv"))
    >>> encode({"genres": tf.constant(["Drama"])}).tokens.numpy()
    array([[0, 3]], dtype=int32)
    """

    def __init__(self, features: FeatureSet) -> None:
        super().__init__(name="features")
        if not features.fitted:
            raise ValueError(
                "`features` must be fitted before they can be encoded. Received: "
                "features that are not. Call `fit` with the values of training."
            )
        self.features = features
        self._state: dict[str, dict[str, tf.Variable]] = {}
        self._as_graph: Any = None
        with tf.device("/CPU:0"):
            for feature in features:
                self._state[feature.name] = {
                    key: tf.Variable(
                        value, trainable=False, name=f"{feature.name}_{key}"
                    )
                    for key, value in feature.state().items()
                }

    def specs(self, *leading: int | None) -> dict[str, tf.TensorSpec]:
        """The raw inputs by name, of these leading dimensions."""
        return {
            each.name: tf.TensorSpec([*leading, *each.shape], each.dtype, each.name)
            for each in self.features
        }

    def __call__(self, raw: Mapping[str, Any]) -> Encoded:
        """Encodes raw values.

        Args:
            raw: by name of a feature, `[…]` strings or numbers, or `[…, d]` vectors,
                all with the same leading dimensions.

        Returns:
            `Encoded` with these leading dimensions in place of n.
        """
        parts, first, lead = [], 0, None
        for feature in self.features:
            values = tf.convert_to_tensor(raw[feature.name], feature.dtype)
            inner = len(feature.shape)
            if lead is None:
                lead = tf.shape(values)[: values.shape.rank - inner]
            flat = tf.reshape(values, [-1, *feature.shape])
            state = {
                key: tf.convert_to_tensor(value)
                for key, value in self._state[feature.name].items()
            }
            tokens, weights, dense = feature.encode(flat, state)
            parts.append((tokens + first, weights, dense))
            first += feature.num_tokens
        tokens, weights, dense = (
            tf.concat(each, axis=1) for each in zip(*parts, strict=True)
        )
        dense.set_shape([None, self.features.num_dense])
        # Padding points to the first row, which it does not count.
        tokens = tf.where(weights != 0, tokens, 0)
        return Encoded(*(_led(each, lead) for each in (tokens, weights, dense)))

    def rows(self, raw: Mapping[str, npt.NDArray[Any]]) -> SparseRows:
        """Encodes the raw values `[n]` of n things, a few at a time."""
        size = len(next(iter(raw.values())))
        if self._as_graph is None:
            # Graphs are rewritten: this is how values are encoded in a SavedModel.
            graph = tf.function(
                lambda **part: tuple(self(part)), autograph=False
            ).get_concrete_function(**self.specs(None))
            # A SavedModel would list it, but does not see inside a lambda.
            self._as_graph = lambda **part: graph(**part)
        lengths, tokens, weights, dense = [], [], [], []
        for start in range(0, size, _ROWS):
            part = {name: values[start : start + _ROWS] for name, values in raw.items()}
            with tf.device("/CPU:0"):
                inputs = {name: _tensor(values) for name, values in part.items()}
                encoded = Encoded(*self._as_graph(**inputs))
            real = encoded.weights.numpy() != 0
            lengths.append(real.sum(axis=1))
            tokens.append(encoded.tokens.numpy()[real])
            weights.append(encoded.weights.numpy()[real])
            dense.append(encoded.dense.numpy())
        return SparseRows(
            np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
            np.concatenate(tokens).astype(np.int32),
            np.concatenate(weights).astype(np.float32),
            np.concatenate(dense).astype(np.float32),
        )


def _tensor(values: npt.NDArray[Any]) -> tf.Tensor:
    if values.dtype == object:
        return tf.constant(values.tolist(), tf.string, shape=values.shape)
    return tf.constant(values, tf.float32)


def _led(values: tf.Tensor, lead: tf.Tensor) -> tf.Tensor:
    """Flat `[n, m]` values under other leading dimensions."""
    width = values.shape[1] if values.shape[1] is not None else tf.shape(values)[1]
    shaped = tf.reshape(values, tf.concat([lead, [width]], axis=0))
    known = tf.get_static_value(lead)
    if known is None and lead.shape[0] is not None:
        shaped.set_shape([None] * lead.shape[0] + [values.shape[1]])
    return shaped
