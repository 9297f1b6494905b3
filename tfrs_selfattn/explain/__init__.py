"""Why was this recommended? How much each item of a history moved a score.

`leave_one_out`, `integrated_gradients`, `attention_rollout` and `deletion` are pure
functions over tensors; `Explainer` binds them to a model. `bar_plot` and `heat_map`
draw, with the extra `plot`.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Deletion": "faithfulness",
    "Explainer": "explainer",
    "attention_rollout": "rollout",
    "bar_plot": "plots",
    "deletion": "faithfulness",
    "heat_map": "plots",
    "integrated_gradients": "gradients",
    "leave_one_out": "occlusion",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
