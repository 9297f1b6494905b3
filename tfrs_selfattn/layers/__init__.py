"""Keras layers that encode a user's sequence of items; Keras 3 or legacy Keras.

| need | layer |
|---|---|
| items of a history attend to each other | `MultiHeadSelfAttention` |
| attention, feed-forward, norms and residuals in one | `TransformerBlock` |
| pointwise attention with a gate, best with times | `HSTUBlock` |
| where an item stands in its history, learned or fixed | `PositionEmbedding`, `SinusoidalPositions` |
| how far apart two items are | `RelativePositionBias`, `AlibiBias`, or `rotary=True` |
| how much time lies between two items | `RelativeTimeBias` |
| the whole encoder, `[B, T, D]` to `[B, T, D]` | `SequenceEncoder`, `encoders` |
| one vector per user, `[B, T, D]` to `[B, D]` | `SequencePooling`, `AttentionPooling` |
| several vectors per user, `[B, T, D]` to `[B, K, D]` | `AttentionPooling` |
| histories of thousands of items | `block_size` of the attention or of an encoder; `window` |
| several users in one row | `segment_ids` beside the inputs |
| a history that grows event by event | `incremental`, of encoders with `count_from="oldest"` |
"""  # noqa: E501

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "AlibiBias": "alibi_bias",
    "AttentionPooling": "attention_pooling",
    "FeedForward": "feed_forward",
    "HSTUBlock": "hstu_block",
    "MultiHeadSelfAttention": "self_attention",
    "PositionEmbedding": "positions",
    "RelativePositionBias": "relative_position_bias",
    "RelativeTimeBias": "relative_time_bias",
    "SequenceEncoder": "sequence_encoder",
    "SequencePooling": "pooling",
    "SinusoidalPositions": "sinusoidal_positions",
    "TransformerBlock": "transformer_block",
    "encoders": "encoders",
    "incremental": "incremental",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
