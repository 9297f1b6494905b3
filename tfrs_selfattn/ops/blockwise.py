"""Attention whose memory grows with T, for histories whose T * S weights do not fit.

The same answer as `attention.py`, block against block: a running maximum and sum make
the softmax, and the backward pass computes the weights again.

Shape alphabet: B users, T positions, H heads, K head width, n blocks, b block size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn.ops.attention import (
    bias_blocks,
    bias_slopes,
    check_dropout,
    chunk_seed,
    scaled,
)
from tfrs_selfattn.ops.attention_mask import AttentionMask
from tfrs_selfattn.ops.biases import AttentionBias
from tfrs_selfattn.ops.dropout import effective_rate, keep_mask


def blockwise_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    mask: AttentionMask | None = None,
    *,
    block_size: int,
    bias: Sequence[AttentionBias] = (),
    dropout_rate: float = 0.0,
    dropout_seed: tf.Tensor | None = None,
    scale: float | None = None,
) -> tf.Tensor:
    r"""Computes what `dot_product_attention` does, a block of weights at a time.

    Peak memory is that of the inputs and of a few blocks `[B, H, b, b]`; a causal mask
    or a window skips the blocks that it hides whole. A last block that is not full is
    filled up, which shows nowhere. Dropout draws other elements than the short form,
    with the same probability.

    Args:
        query: float `[B, H, T, K]`.
        key: float `[B, H, T, K]`.
        value: float `[B, H, T, K]`.
        mask: `AttentionMask`; None hides nothing. Its `allowed` part, if any, is as
            large as the weights.
        block_size: int, b.
        bias: biases, added to the logits.
        dropout_rate: float in [0, 1). Applied to the weights.
        dropout_seed: int `[2]`; required when `dropout_rate` is above 0.
        scale: float. Of the logits; 1.0 for queries that are scaled already. None
            takes $1 / \sqrt{K}$.

    Returns:
        The output `[B, H, T, K]` in the dtype of `value`.

    Raises:
        ValueError: when `block_size` is not positive, or the rate of dropout is not in
            [0, 1) or has no seed.

    References:
        - [Dao et al., 2022](https://arxiv.org/abs/2205.14135) (FlashAttention),
          sections 3.1 and B.
        - [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682).
    """
    check_positive_int("block_size", block_size, "Use for example 512.")
    check_dropout(dropout_rate, dropout_seed)
    query = scaled(query, scale)
    mask = mask or AttentionMask()
    attend = Blockwise(mask, bias, block_size, query, dropout_rate, dropout_seed)
    return attend(query, key, value)


class Blockwise:
    """One call: the mask, the biases, dropout and the partition into blocks.

    Every block has the same static size, wherever it starts: XLA asks for that.
    """

    def __init__(
        self,
        mask: AttentionMask,
        biases: Sequence[AttentionBias],
        size: int,
        query: tf.Tensor,
        rate: float = 0.0,
        seed: tf.Tensor | None = None,
    ) -> None:
        self._mask = mask
        self._biases = biases
        self._rate = rate
        self._seed = seed
        self._size = size
        # T, without what fills up the last block.
        self._length = query.shape[2] or tf.shape(query)[2]
        self._count = (self._length + size - 1) // size  # n
        self._dtype = query.dtype

    def __call__(self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        """Attends; rows are filled up to whole blocks on the way."""
        missing = -self._length % self._size
        if isinstance(missing, int) and missing == 0:
            return self._attend(query, key, value)
        filled = (
            tf.pad(tensor, [[0, 0], [0, 0], [0, missing], [0, 0]])
            for tensor in (query, key, value)
        )
        return self._attend(*filled)[:, :, : self._length]

    def _attend(self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def run(
            query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, *parameters: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
            output, statistic = self._forward(query, key, value, parameters)

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return self._backward(
                    query, key, value, parameters, output, statistic, upstream
                )

            return output, gradient

        parameters = [p for bias in self._biases for p in bias.parameters]
        result: tf.Tensor = run(query, key, value, *parameters)
        return result

    def _block(self, tensor: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Block `index` of `[B, H, T, K]`: `[B, H, b, K]`."""
        users, heads, _, width = tf.unstack(tf.shape(tensor))
        block = tf.slice(
            tensor, [0, 0, index * self._size, 0], [users, heads, self._size, width]
        )
        users, heads, _, width = tensor.shape
        return tf.ensure_shape(block, [users, heads, self._size, width])

    def _key_blocks(self, block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The key blocks that a block of queries can see some of."""
        first, last = tf.zeros([], tf.int32), tf.convert_to_tensor(self._count)
        if self._mask.window is not None:
            reach = (self._mask.window + self._size - 2) // self._size
            first = tf.maximum(block - reach, 0)
            last = tf.minimum(block + reach + 1, self._count)
        if self._mask.causal:
            last = block + 1
        return first, last

    def _positions(self, row: tf.Tensor, column: tf.Tensor) -> Any:
        steps = tf.range(self._size)
        return row * self._size + steps, column * self._size + steps

    def _logits(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        parameters: Sequence[tf.Tensor],
        positions: tuple[tf.Tensor, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits of a block, float32 `[B, H, b, b]`, and its mask `[B, 1, b, b]`."""
        logits = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        for block in bias_blocks(self._biases, parameters, *positions):
            logits += block
        # What fills up the last block is hidden as if it were padding.
        mask = (positions[1] < self._length)[tf.newaxis, tf.newaxis, :]
        given = self._mask.block(*positions)
        if given is not None:
            mask = tf.logical_and(mask, given)
        mask = mask[:, tf.newaxis]
        return tf.where(mask, logits, tf.float32.min), mask

    def _keep(self, shape: tf.Tensor, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        """Dropout's factors of a block: 0 or 1 / (1 - rate), float32."""
        seed = chunk_seed(self._seed, row * self._count + column)
        keep = tf.cast(keep_mask(shape, self._rate, seed), tf.float32)
        return keep / (1.0 - effective_rate(self._rate))

    def _forward(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        parameters: Sequence[tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Output `[B, H, T, K]`, and of each row what its weights need to come again.

        Here that is the log of the softmax's sum, float32 `[B, H, T, 1]`.
        """

        def rows(row: tf.Tensor, outputs: Any, statistics: Any) -> tuple[Any, ...]:
            queries = self._block(query, row)
            first, last = self._key_blocks(row)

            def columns(column: tf.Tensor, *sums: tf.Tensor) -> tuple[Any, ...]:
                keys, values = self._block(key, column), self._block(value, column)
                positions = self._positions(row, column)
                logits, mask = self._logits(queries, keys, parameters, positions)
                return column + 1, *self._add(sums, logits, mask, values, row, column)

            _, *sums = tf.while_loop(
                lambda column, *_: column < last,
                columns,
                (first, *self._begin(queries)),
                parallel_iterations=1,
            )
            output, statistic = self._finish(*sums)
            outputs = outputs.write(row, tf.cast(output, self._dtype))
            return row + 1, outputs, statistics.write(row, statistic)

        _, outputs, statistics = tf.while_loop(
            lambda row, *_: row < self._count,
            rows,
            (0, self._array(query), self._array(query[..., :1], tf.float32)),
            parallel_iterations=1,
        )
        return join(outputs, query), join(statistics, query[..., :1])

    def _begin(self, queries: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What a block of rows has summed before it has seen a key.

        Here: the highest logit and the sum of the weights, `[B, H, b, 1]`, and of the
        weighted values, `[B, H, b, K]`, all float32.
        """
        blank = tf.zeros_like(queries, tf.float32)
        return blank[..., :1] + tf.float32.min, blank[..., :1], blank

    def _add(
        self,
        sums: tuple[tf.Tensor, ...],
        logits: tf.Tensor,
        mask: tf.Tensor,
        values: tf.Tensor,
        row: tf.Tensor,
        column: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        """The sums with a block of keys more."""
        peak, total, mixed = sums
        new_peak = tf.maximum(peak, tf.reduce_max(logits, -1, keepdims=True))
        # Where all is hidden so far, exp(0) is no weight.
        shares = tf.where(mask, tf.exp(logits - new_peak), 0.0)
        shrink = tf.exp(peak - new_peak)
        total = total * shrink + tf.reduce_sum(shares, -1, keepdims=True)
        if self._rate > 0.0:
            shares *= self._keep(tf.shape(shares), row, column)
        seen = tf.matmul(tf.cast(shares, self._dtype), values)
        return new_peak, total, mixed * shrink + tf.cast(seen, tf.float32)

    def _finish(self, *sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The output of a block of rows and its statistic, when all keys are seen."""
        peak, total, mixed = sums
        # Where nothing is seen, weights of exp(logits - infinity) are 0 again.
        log_sum = tf.where(total > 0.0, peak + tf.math.log(total), float("inf"))
        return tf.math.divide_no_nan(mixed, total), log_sum

    def _array(self, like: tf.Tensor, dtype: tf.DType | None = None) -> tf.TensorArray:
        """Room for the blocks of a tensor like `[B, H, T, K]`."""
        users, heads, _, width = like.shape
        return tf.TensorArray(
            dtype or like.dtype,
            size=self._count,
            element_shape=[users, heads, self._size, width],
            clear_after_read=False,
        )

    def _zeros(self, like: tf.Tensor) -> tf.TensorArray:
        """The same, with zeros in it."""
        users, heads, _, width = tf.unstack(tf.shape(like))
        shape = [self._count, users, heads, self._size, width]
        return self._array(like).unstack(tf.zeros(shape, like.dtype))

    def _weights(
        self, logits: tf.Tensor, mask: tf.Tensor, statistic: tf.Tensor
    ) -> tf.Tensor:
        """The weights of a block again, float32 `[B, H, b, b]`."""
        return tf.where(mask, tf.exp(logits - statistic), 0.0)

    def _logit_slope(
        self,
        logits: tf.Tensor,
        mask: tf.Tensor,
        weights: tf.Tensor,
        weight_slope: tf.Tensor,
        of_row: tuple[tf.Tensor, tf.Tensor],
    ) -> tf.Tensor:
        """Gradient of the logits; `of_row` is the statistic and sum(dO * O)."""
        return weights * (weight_slope - of_row[1])

    def _backward(
        self,
        query: tf.Tensor,
        key: tf.Tensor,
        value: tf.Tensor,
        parameters: Sequence[tf.Tensor],
        output: tf.Tensor,
        statistic: tf.Tensor,
        upstream: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        shared = tf.cast(upstream, tf.float32) * tf.cast(output, tf.float32)
        shared = tf.reduce_sum(shared, -1, keepdims=True)  # [B, H, T, 1]

        def rows(
            row: tf.Tensor,
            query_slopes: Any,
            key_slopes: Any,
            value_slopes: Any,
            *totals: tf.Tensor,
        ) -> tuple[Any, ...]:
            queries, slope = self._block(query, row), self._block(upstream, row)
            of_row = self._block(statistic, row), self._block(shared, row)
            first, last = self._key_blocks(row)

            def columns(
                column: tf.Tensor,
                query_slope: tf.Tensor,
                key_slopes: Any,
                value_slopes: Any,
                *totals: tf.Tensor,
            ) -> tuple[Any, ...]:
                keys, values = self._block(key, column), self._block(value, column)
                positions = self._positions(row, column)
                logits, mask = self._logits(queries, keys, parameters, positions)
                weights = self._weights(logits, mask, of_row[0])
                dropped_slope = tf.matmul(slope, values, transpose_b=True)
                dropped_slope = tf.cast(dropped_slope, tf.float32)
                dropped = weights
                if self._rate > 0.0:
                    keep = self._keep(tf.shape(weights), row, column)
                    dropped, dropped_slope = weights * keep, dropped_slope * keep
                logit_slope = self._logit_slope(
                    logits, mask, weights, dropped_slope, of_row
                )
                added = bias_slopes(self._biases, parameters, positions, logit_slope)
                totals = tuple(a + b for a, b in zip(totals, added, strict=True))
                logit_slope = tf.cast(logit_slope, self._dtype)
                dropped = tf.cast(dropped, self._dtype)
                key_slope = tf.matmul(logit_slope, queries, transpose_a=True)
                value_slope = tf.matmul(dropped, slope, transpose_a=True)
                return (
                    column + 1,
                    query_slope + tf.matmul(logit_slope, keys),
                    key_slopes.write(column, key_slopes.read(column) + key_slope),
                    value_slopes.write(column, value_slopes.read(column) + value_slope),
                    *totals,
                )

            _, query_slope, key_slopes, value_slopes, *totals_list = tf.while_loop(
                lambda column, *_: column < last,
                columns,
                (first, tf.zeros_like(queries), key_slopes, value_slopes, *totals),
                parallel_iterations=1,
            )
            query_slopes = query_slopes.write(row, query_slope)
            return row + 1, query_slopes, key_slopes, value_slopes, *totals_list

        zeros = [tf.zeros_like(parameter) for parameter in parameters]
        _, query_slopes, key_slopes, value_slopes, *totals = tf.while_loop(
            lambda row, *_: row < self._count,
            rows,
            (0, self._array(query), self._zeros(key), self._zeros(value), *zeros),
            parallel_iterations=1,
        )
        return (
            join(query_slopes, query),
            join(key_slopes, key),
            join(value_slopes, value),
            *totals,
        )


def join(array: tf.TensorArray, like: tf.Tensor) -> tf.Tensor:
    """The blocks of an array in a row, `[B, H, T, K]`."""
    blocks = tf.transpose(array.stack(), [1, 2, 0, 3, 4])  # [B, H, n, b, K]
    return tf.ensure_shape(tf.reshape(blocks, tf.shape(like)), like.shape)
