"""Weights averaged over the steps of a training: what is validated and kept."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import require_legacy_keras

require_legacy_keras("tfrs_selfattn.training")


class Averages:
    """Puts the averages that an optimizer has in the place of a model's weights.

    Training goes on from the weights themselves, which `take_back` gives back.

    Args:
        model: compiled, with an optimizer that averages or not (`use_ema`).
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._own: list[tf.Tensor] | None = None

    def put(self) -> None:
        """From here on the model has the averages."""
        optimizer = self._model.optimizer
        if self._own is None and optimizer.use_ema:
            weights = self._model.trainable_variables
            self._own = [tf.identity(weight) for weight in weights]
            optimizer.finalize_variable_values(weights)

    def take_back(self) -> None:
        """From here on the model has its own weights again."""
        if self._own is not None:
            weights = self._model.trainable_variables
            for weight, own in zip(weights, self._own, strict=True):
                weight.assign(own)
            self._own = None
