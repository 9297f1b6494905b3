"""Scaled dot-product attention with an exact treatment of masks.

The short form: every weight is computed once and kept for the backward pass. See
`blockwise.py` for histories whose T * S weights do not fit.

Shape alphabet: B users, T positions, S attended positions, H heads, K head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_selfattn._checks import check_fraction
from tfrs_selfattn.ops.attention_mask import AttentionMask
from tfrs_selfattn.ops.biases import AttentionBias
from tfrs_selfattn.ops.dropout import effective_rate, keep_mask

# Rows of queries attended at a time. A causal block never looks at the keys after it,
# which saves up to half of the work, and its weights stay in the processor's cache.
CHUNK_ROWS = 66
_MAX_CHUNKS = 16


def dot_product_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    mask: AttentionMask | tf.Tensor | None = None,
    *,
    bias: Sequence[AttentionBias] = (),
    dropout_rate: float = 0.0,
    dropout_seed: tf.Tensor | None = None,
    return_weights: bool = False,
    offset: Any = None,
    scale: float | None = None,
) -> Any:
    r"""Computes $\mathrm{softmax}(Q K^\top / \sqrt{K} + P + M)\,V$ for every head.

    Logits and softmax are float32 whatever the dtype of the inputs. A hidden position
    has weight exactly 0, so finite values there can never reach the output; a position
    that may attend to nothing gives exactly 0, where a plain softmax over equal lowest
    logits would average what is hidden.

    Args:
        query: float `[B, H, T, K]`.
        key: float `[B, H, S, K]`.
        value: float `[B, H, S, K]`.
        mask: `AttentionMask`, or bool broadcastable to `[B, T, S]`, True = may attend.
            None hides nothing.
        bias: biases, $P$, added to the logits.
        dropout_rate: float in [0, 1). Applied to the weights.
        dropout_seed: int `[2]`; required when `dropout_rate` is above 0.
        return_weights: bool. Also return the weights, before dropout.
        offset: int or scalar tensor. The first query's position among the keys, when
            the queries are the last of them (incremental encoding). None says 0.
        scale: float. Of the logits; 1.0 for queries that are scaled already. None
            takes $1 / \sqrt{K}$.

    Returns:
        The output `[B, H, T, K]` in the dtype of `value`; with `return_weights` the
        pair of it and the weights `[B, H, T, S]`.

    Raises:
        ValueError: when the rate of dropout is not in [0, 1) or has no seed, or the
            mask is not bool.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1.
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135), appendix B, for the
          backward pass.
    """
    check_dropout(dropout_rate, dropout_seed)
    if not isinstance(mask, AttentionMask):
        mask = AttentionMask(allowed=mask)
    query = scaled(query, scale)
    if dropout_rate > 0.0:
        # So does dropout's factor 1 / (1 - rate) on the values, not on the weights.
        value = value * tf.cast(1.0 / (1.0 - effective_rate(dropout_rate)), value.dtype)
    attend = _Attention(mask, bias, dropout_rate, dropout_seed)
    if return_weights or offset is not None:
        # One chunk and TensorFlow's own gradient: the weights may be in a loss too.
        first = 0 if offset is None else offset
        span = (first, first + tf.shape(query)[2], tf.shape(key)[2])
        chunk = attend.forward(query, key, value, attend.parameters, span, 0)
        if not return_weights:
            return chunk.output
        weights = chunk.weights
        if chunk.attends is not None:
            weights *= chunk.attends
        return chunk.output, weights
    return attend(query, key, value)


class _Chunk(NamedTuple):
    """What the backward pass needs of one block of query rows."""

    output: tf.Tensor  # [B, H, t, K]
    weights: tf.Tensor  # [B, H, t, s]
    dropped: tf.Tensor  # [B, H, t, s], the weights that dropout kept
    attends: tf.Tensor | None  # 1 or 0, [B, 1, t, 1]


class _Attention:
    """Attention under one mask, with a backward pass of its own.

    With P the weights, D what dropout made of them and O = D V, the gradient of the
    logits is D * dD - P * sum(dO * O): neither the mask nor dropout is applied again.
    """

    def __init__(
        self,
        mask: AttentionMask,
        biases: Sequence[AttentionBias],
        rate: float,
        seed: tf.Tensor | None,
    ) -> None:
        self._mask = mask
        self._biases = biases
        self._rate = rate
        self._seed = seed
        self.parameters = [p for bias in biases for p in bias.parameters]

    def __call__(self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def run(
            query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, *parameters: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
            spans = query_spans(query, key, causal=self._mask.causal)
            chunks = [
                self.forward(rows, key, value, parameters, span, index)
                for index, (rows, span) in enumerate(
                    zip(_split_rows(query, spans), spans, strict=True)
                )
            ]

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return self._backward(
                    query, key, value, parameters, spans, chunks, upstream
                )

            return concat_rows([chunk.output for chunk in chunks]), gradient

        result: tf.Tensor = run(query, key, value, *self.parameters)
        return result

    def forward(
        self,
        rows: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        parameters: Sequence[tf.Tensor],
        span: tuple[Any, Any, Any],
        index: int,
    ) -> _Chunk:
        """Attends from the rows of a span to the keys it sees."""
        start, stop, keys = span
        logits = tf.matmul(rows, key[:, :, :keys], transpose_b=True)
        logits = tf.cast(logits, tf.float32)  # [B, H, t, s]
        positions = tf.range(start, stop), tf.range(keys)
        for bias in bias_blocks(self._biases, parameters, *positions):
            logits += bias
        mask = self._mask.block(*positions)
        if mask is not None:
            mask = mask[:, tf.newaxis]  # [B, 1, t, s]
            logits = tf.where(mask, logits, tf.float32.min)
        weights = tf.cast(tf.nn.softmax(logits), value.dtype)
        dropped = weights
        if self._rate > 0.0:
            keep = keep_mask(
                tf.shape(weights), self._rate, chunk_seed(self._seed, index)
            )
            dropped = weights * tf.cast(keep, value.dtype)
        output = tf.matmul(dropped, value[:, :, :keys])  # [B, H, t, K]
        attends = None
        if mask is not None and self._mask.may_hide_all:
            attends = tf.reduce_any(mask, axis=-1, keepdims=True)  # [B, 1, t, 1]
            attends = tf.cast(attends, value.dtype)
            output *= attends
        return _Chunk(output, weights, dropped, attends)

    def _backward(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        parameters: Sequence[tf.Tensor],
        spans: Sequence[tuple[Any, Any, Any]],
        chunks: Sequence[_Chunk],
        upstream: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """Gradients of query, key, value and the parameters of the biases."""
        query_parts, key_parts, value_parts = [], [], []
        totals = [tf.zeros_like(parameter) for parameter in parameters]
        for span, chunk, rows, slope in zip(
            spans,
            chunks,
            _split_rows(query, spans),
            _split_rows(upstream, spans),
            strict=True,
        ):
            start, stop, keys = span
            if chunk.attends is not None:
                slope *= chunk.attends
            logit_slope = self._logit_slope(slope, chunk, value[:, :, :keys])
            positions = tf.range(start, stop), tf.range(keys)
            added = bias_slopes(self._biases, parameters, positions, logit_slope)
            totals = [a + b for a, b in zip(totals, added, strict=True)]
            logit_slope = tf.cast(logit_slope, query.dtype)
            query_parts.append(tf.matmul(logit_slope, key[:, :, :keys]))
            key_parts.append(tf.matmul(logit_slope, rows, transpose_a=True))
            value_parts.append(tf.matmul(chunk.dropped, slope, transpose_a=True))
        return (
            concat_rows(query_parts),
            _sum_prefixes(key_parts, spans),
            _sum_prefixes(value_parts, spans),
            *totals,
        )

    @staticmethod
    def _logit_slope(slope: tf.Tensor, chunk: _Chunk, value: tf.Tensor) -> tf.Tensor:
        """Gradient of the logits, float32 `[B, H, t, s]`."""
        dropped_slope = tf.matmul(slope, value, transpose_b=True)
        dropped_slope = tf.cast(dropped_slope, tf.float32)
        shared = tf.cast(slope, tf.float32) * tf.cast(chunk.output, tf.float32)
        shared = tf.reduce_sum(shared, axis=-1, keepdims=True)  # [B, H, t, 1]
        weights = tf.cast(chunk.weights, tf.float32)
        if chunk.dropped is chunk.weights:
            return weights * (dropped_slope - shared)
        return tf.cast(chunk.dropped, tf.float32) * dropped_slope - weights * shared


def query_spans(
    query: tf.Tensor, key: tf.Tensor, *, causal: bool
) -> list[tuple[Any, Any, Any]]:
    """(first row, row after the last, keys that are visible) of each chunk of rows."""
    rows, keys = query.shape[2], key.shape[2]
    if rows is None or keys is None:
        return [(0, tf.shape(query)[2], tf.shape(key)[2])]
    count = min(max(rows // CHUNK_ROWS, 1), _MAX_CHUNKS)
    edges = [rows * index // count for index in range(count + 1)]
    return [
        # The last chunk takes all keys, so that each has a gradient: with fewer rows
        # than keys the rest is hidden, not absent.
        (start, stop, min(stop, keys) if causal and stop < rows else keys)
        for start, stop in itertools.pairwise(edges)
    ]


def scaled(query: tf.Tensor, scale: float | None) -> tf.Tensor:
    """The query times the scale of the logits; None says 1 / sqrt(K)."""
    # Scaling the query costs T * K products where scaling the logits costs T * S.
    if scale is None:
        scale = float(query.shape[-1]) ** -0.5
    return query if scale == 1.0 else query * tf.cast(scale, query.dtype)


def check_dropout(rate: float, seed: tf.Tensor | None) -> None:
    """Raises `ValueError` when the rate is none, or has no seed to draw from."""
    check_fraction("dropout_rate", rate)
    if rate > 0.0 and seed is None:
        raise ValueError(
            "`dropout_seed` must be an int tensor of shape [2] when `dropout_rate` "
            f"is above 0. Received: dropout_seed=None, dropout_rate={rate}. Pass for "
            "example tf.constant([1, 0], tf.int64), another for every step."
        )


def chunk_seed(seed: tf.Tensor, index: Any) -> tf.Tensor:
    """Chunks draw from seeds apart from each other's and from the next step's."""
    offset = tf.cast(index, tf.int64) * (1 << 40)
    return tf.cast(seed, tf.int64) + tf.stack([offset, tf.zeros([], tf.int64)])


def bias_blocks(
    biases: Sequence[AttentionBias],
    parameters: Sequence[tf.Tensor],
    rows: tf.Tensor,
    columns: tf.Tensor,
) -> list[tf.Tensor]:
    """The block of every bias, each with its own share of the parameters."""
    blocks = []
    for bias in biases:
        count = len(bias.parameters)
        own, parameters = parameters[:count], parameters[count:]
        blocks.append(bias.block(own, rows, columns))
    return blocks


def bias_slopes(
    biases: Sequence[AttentionBias],
    parameters: Sequence[tf.Tensor],
    positions: tuple[tf.Tensor, tf.Tensor],
    logit_slope: tf.Tensor,
) -> list[tf.Tensor]:
    """What one block adds to the gradients of the biases' parameters."""
    if not parameters:
        return []
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        blocks = bias_blocks(biases, parameters, *positions)
    slopes = [_sum_to_shape(logit_slope, block) for block in blocks]
    gradients: list[tf.Tensor] = tape.gradient(
        blocks, list(parameters), output_gradients=slopes
    )
    return gradients


def _sum_to_shape(tensor: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over the axes along which `like` was broadcast."""
    axes = [axis for axis in range(4) if like.shape[axis] == 1]
    return tf.reduce_sum(tensor, axis=axes, keepdims=True) if axes else tensor


def _split_rows(
    tensor: tf.Tensor, spans: Sequence[tuple[Any, Any, Any]]
) -> list[tf.Tensor]:
    """The rows of every span, `[B, H, t, K]`; undoes `concat_rows`."""
    if len(spans) == 1:
        return [tensor]
    parts: list[tf.Tensor] = tf.split(tensor, [b - a for a, b, _ in spans], axis=2)
    return parts


def concat_rows(parts: list[tf.Tensor]) -> tf.Tensor:
    """Chunks of rows in a row, `[B, H, T, K]`."""
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=2)


def _sum_prefixes(
    parts: list[tf.Tensor], spans: Sequence[tuple[Any, Any, Any]]
) -> tf.Tensor:
    """Sums `[B, H, s, K]` parts over their common first keys: `[B, H, S, K]`."""
    total = parts[0]
    width = spans[0][2]
    for part, (_, _, keys) in zip(parts[1:], spans[1:], strict=True):
        if keys != width:
            total = tf.pad(total, [[0, 0], [0, 0], [0, keys - width], [0, 0]])
        total += part
        width = keys
    return total
