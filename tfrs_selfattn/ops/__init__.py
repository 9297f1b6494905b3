"""Pure functions over tensors: no variables, no Keras, no state.

What a layer, a loss or an index computes is written here once, so that it can be read
as an equation, tested against an oracle and reused in a SavedModel.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "align_right": "masks",
    "AttentionMask": "attention_mask",
    "blockwise_attention": "blockwise",
    "dot_product_attention": "attention",
    "exact_search": "top_k",
    "full_softmax_loss": "softmax_loss",
    "item_positions": "masks",
    "lengths_mask": "masks",
    "pointwise_attention": "pointwise",
    "stateless_dropout": "dropout",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
