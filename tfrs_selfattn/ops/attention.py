"""Scaled dot-product attention with an exact treatment of masks.

Shape alphabet: B users, T positions, S attended positions, H heads, K head width.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_selfattn.ops.dropout import stateless_dropout


def dot_product_attention(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    mask: tf.Tensor | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_seed: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    r"""Computes $\mathrm{softmax}(Q K^\top / \sqrt{K} + M)\,V$ for every head.

    Logits and softmax are float32 whatever the dtype of the inputs. A hidden position
    has weight exactly 0, so finite values there can never reach the output; a position
    that may attend to nothing gives exactly 0, where a plain softmax over equal lowest
    logits would average what is hidden.

    Args:
        query: float `[B, H, T, K]`.
        key: float `[B, H, S, K]`.
        value: float `[B, H, S, K]`.
        mask: bool, broadcastable to `[B, T, S]`, True = may attend. None hides nothing.
        dropout_rate: float in [0, 1). Applied to the weights.
        dropout_seed: int `[2]`; required when `dropout_rate` is above 0.

    Returns:
        The pair of the output `[B, H, T, K]` and the weights `[B, H, T, S]` before
        dropout, both in the dtype of `value`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1.
    """
    # Scaling the query costs T * K products where scaling the logits costs T * S.
    scale = tf.cast(tf.math.rsqrt(float(query.shape[-1])), query.dtype)
    logits = tf.matmul(query * scale, key, transpose_b=True)  # [B, H, T, S]
    logits = tf.cast(logits, tf.float32)
    if mask is not None:
        mask = mask[:, tf.newaxis]  # [B, 1, T, S]
        logits = tf.where(mask, logits, tf.float32.min)
    weights = tf.cast(tf.nn.softmax(logits), value.dtype)
    dropped = weights
    if dropout_rate > 0.0:
        if dropout_seed is None:
            raise ValueError(
                "`dropout_seed` must be an int tensor of shape [2] when `dropout_rate` "
                f"is above 0. Received: dropout_seed=None, dropout_rate={dropout_rate}."
            )
        dropped = stateless_dropout(weights, dropout_rate, dropout_seed)
    output = tf.matmul(dropped, value)  # [B, H, T, K]
    if mask is not None:
        attends = tf.reduce_any(mask, axis=-1, keepdims=True)  # [B, 1, T, 1]
        nothing = tf.zeros([], value.dtype)
        output = tf.where(attends, output, nothing)
        weights = tf.where(attends, weights, nothing)
    return output, weights
