"""A fixed bias that falls with distance (ALiBi)."""

from __future__ import annotations

from typing import Any

from tfrs_selfattn._keras import register
from tfrs_selfattn.layers._bias import BiasLayer
from tfrs_selfattn.ops.biases import AttentionBias, LinearBias


@register
class AlibiBias(BiasLayer):
    r"""Subtracts from each logit a multiple of its distance; nothing is learned.

    $p_{ts} = -2^{-8 (h + 1) / H}\,|t - s|$ for head h of H: some heads look near, some
    far, and histories longer than those of training are no surprise.

    Args:
        num_heads: int. H, that of the attention it is given to.
        **kwargs: passed to `keras.layers.Layer` (`name`, `dtype`, …).

    Call arguments:
        inputs: float `[B, T, D]`, for their T only.
        timestamps: taken as every bias takes them, and not used.
        request_times: likewise.

    Returns:
        float32 `[1, H, T, T]`. `MultiHeadSelfAttention(biases=[…])` draws it by blocks.

    Raises:
        ValueError: when `num_heads` is not positive.

    Example:

    >>> AlibiBias(num_heads=2)(tf.zeros([3, 5, 16])).shape
    TensorShape([1, 2, 5, 5])

    Differs from: `keras_hub.layers.AlibiBias`, which takes all logits and returns them
    with the bias added. From the paper, which is about causal attention: here $|t - s|$
    serves both directions. For H no power of two its authors' code takes slopes of the
    powers around H; here one formula holds.

    References:
        - [Press et al., 2022](https://arxiv.org/abs/2108.12409), section 3.
    """

    def blocks(
        self, timestamps: Any = None, request_times: Any = None
    ) -> AttentionBias:
        return LinearBias(self.num_heads)
