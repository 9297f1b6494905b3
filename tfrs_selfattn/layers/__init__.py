"""Keras layers that encode a user's sequence of items; Keras 3 or legacy Keras.

| need | layer |
|---|---|
| items of a history attend to each other | `MultiHeadSelfAttention` |
| attention, feed-forward, norms and residuals in one | `TransformerBlock` |
| where an item stands in its history | `PositionEmbedding` |
| the whole encoder, `[B, T, D]` to `[B, T, D]` | `SequenceEncoder` |
| one vector per user, `[B, T, D]` to `[B, D]` | `SequencePooling` |
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "FeedForward": "feed_forward",
    "MultiHeadSelfAttention": "self_attention",
    "PositionEmbedding": "positions",
    "SequenceEncoder": "sequence_encoder",
    "SequencePooling": "pooling",
    "TransformerBlock": "transformer_block",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
