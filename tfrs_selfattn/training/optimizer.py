"""The optimizer of a run, with its learning rate over time."""

from __future__ import annotations

from typing import Any

from tfrs_selfattn._keras import keras, require_legacy_keras
from tfrs_selfattn.training.config import TrainingConfig

require_legacy_keras("tfrs_selfattn.training")

# Of the second moment. Sparse tables want a shorter memory than the usual 0.999.
_BETA_2 = 0.98
# Vectors that shift or scale, and tables in which a row is learned by its own events
# only: to shrink them says nothing about how they generalize.
_NEVER_DECAYED = ["bias", "gamma", "beta", "embeddings", "table"]


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> Any:
    """Adam, or AdamW when weights decay, under the schedule of a configuration.

    The learning rate rises linearly from 0 over the warm-up, then stays, or falls to 0
    along half a cosine by the end of the last epoch.

    Args:
        config: how the model is trained.
        steps_per_epoch: int. Batches of an epoch.

    Returns:
        a Keras optimizer.

    References:
        - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1608.03983), section 3.
        - [Loshchilov and Hutter, 2019](https://arxiv.org/abs/1711.05101), for AdamW.
    """
    rate = _learning_rate(config, config.epochs * steps_per_epoch)
    options: dict[str, Any] = {"beta_2": _BETA_2}
    if config.ema:
        options |= {"use_ema": True, "ema_momentum": config.ema}
    if config.weight_decay == 0.0:
        return keras.optimizers.Adam(rate, **options)
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=config.weight_decay, **options
    )
    optimizer.exclude_from_weight_decay(var_names=_NEVER_DECAYED)
    return optimizer


def _learning_rate(config: TrainingConfig, steps: int) -> Any:
    if config.schedule == "constant" and config.warmup_steps == 0:
        return config.learning_rate
    warm = config.warmup_steps
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warm else config.learning_rate,
        decay_steps=max(steps - warm, 1),
        # The share of the rate that is left at the end: all of it is no decay.
        alpha=0.0 if config.schedule == "cosine" else 1.0,
        warmup_target=config.learning_rate if warm else None,
        warmup_steps=warm,
    )
