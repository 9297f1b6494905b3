"""Pointwise attention of HSTU: SiLU in the place of softmax.

Shape alphabet: B users, T positions, S attended positions, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import optional_positive
from tfrs_selfattn.ops.attention import bias_blocks, concat_rows, query_spans
from tfrs_selfattn.ops.attention_mask import AttentionMask
from tfrs_selfattn.ops.biases import AttentionBias
from tfrs_selfattn.ops.pointwise_blocks import PointwiseBlocks


def pointwise_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    mask: AttentionMask,
    *,
    bias: Sequence[AttentionBias] = (),
    offset: Any = None,
    block_size: int | None = None,
) -> tf.Tensor:
    r"""Computes $\frac{1}{n_t} \sum_s m_{ts}\,\mathrm{SiLU}(q_t k_s + p_{ts})\,v_s$.

    $n_t$ is the number of positions that t may attend to. Unlike a softmax the weights
    do not sum to 1, so they keep the intensity of a preference.

    Args:
        query: float `[B, H, T, K]`.
        key: float `[B, H, S, K]`.
        value: float `[B, H, S, V]`.
        mask: `AttentionMask`.
        bias: biases, $p$, added to the logits.
        offset: int or scalar tensor. The first query's position among the keys, when
            the queries are the last of them. None says 0.
        block_size: int. Attend block against block, with memory that grows with T and
            not with T², as `blockwise_attention` does; as many queries as keys, V = K,
            and no offset. None holds all weights.

    Returns:
        float `[B, H, T, V]`; zeros where there is nothing to attend to.

    Raises:
        ValueError: when `block_size` is not positive.

    References:
        - [Zhai et al., 2024](https://arxiv.org/abs/2402.17152) (HSTU), section 3.1,
          equation 2. The paper divides by the padded length; the real number makes
          the answer independent of padding and of what comes later.
    """
    if (size := optional_positive("block_size", block_size)) is not None:
        return PointwiseBlocks(mask, bias, size, query)(query, key, value)
    outputs = []
    parameters = [p for b in bias for p in b.parameters]
    first = 0 if offset is None else offset
    spans = query_spans(query, key, causal=mask.causal)
    if offset is not None:
        spans = [(first, first + tf.shape(query)[2], tf.shape(key)[2])]
    for start, stop, keys in spans:
        rows = query[:, :, start - first : stop - first]
        logits = tf.matmul(rows, key[:, :, :keys], transpose_b=True)
        logits = tf.cast(logits, tf.float32)  # [B, H, t, s]
        positions = tf.range(start, stop), tf.range(keys)
        for block in bias_blocks(bias, parameters, *positions):
            logits += block
        weights = tf.nn.silu(logits)
        visible = mask.block(*positions)
        if visible is None:
            weights /= tf.cast(keys, tf.float32)
        else:
            visible = visible[:, tf.newaxis]  # [B, 1, t, s]
            count = tf.reduce_sum(tf.cast(visible, tf.float32), -1, keepdims=True)
            weights = tf.where(visible, weights, 0.0) / tf.maximum(count, 1.0)
        outputs.append(tf.matmul(tf.cast(weights, value.dtype), value[:, :, :keys]))
    return concat_rows(outputs)
