"""Next-item objectives, for our model and for a user's own `tfrs.Model`."""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {"FullSoftmax": "full_softmax"}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
