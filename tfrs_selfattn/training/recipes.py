"""What measured best on public data sets, by name: `train --recipe` takes it whole.

Chosen by validation metrics alone; `benchmarks/quality.py` trains from this table, and
`benchmarks/README.md` says what came of each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrs_selfattn._checks import check_choice
from tfrs_selfattn.training.config import ModelConfig, TrainingConfig

# The learning rate falls to 0 by the last epoch, and that ends the run, no patience.
_SCHEDULE = {"schedule": "cosine", "patience": 1000}
# Values of `ModelConfig` and `TrainingConfig` that are not their defaults, or are told
# apart by the data set.
RECIPES: dict[str, dict[str, Any]] = {
    "ml-1m": {
        **_SCHEDULE,
        "preset": "esasrec",
        "max_length": 200,
        "batch_size": 64,
        "epochs": 40,
        "warmup_steps": 300,
    },
    "ml-1m-times": {
        **_SCHEDULE,
        "preset": "hstu",
        "embedding_dim": 128,
        "num_blocks": 4,
        "num_heads": 4,
        "max_length": 200,
        "dropout": 0.1,
        "normalize": True,
        "batch_size": 64,
        "epochs": 26,
        "warmup_steps": 300,
    },
    "amazon-beauty": {
        **_SCHEDULE,
        "preset": "sasrec",
        "embedding_dim": 128,
        "max_length": 50,
        "dropout": 0.4,
        "cut_histories": 0.5,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "epochs": 25,
        "warmup_steps": 100,
    },
}


def recipe(
    name: str | None, changes: dict[str, Any] | None = None
) -> tuple[ModelConfig, TrainingConfig]:
    """The configurations of a recipe.

    Args:
        name: str, a key of `RECIPES`: "ml-1m" (dense histories, no times),
            "ml-1m-times" (the same with times) or "amazon-beauty" (short histories).
            None is the defaults.
        changes: fields of `ModelConfig` and `TrainingConfig` that take the place of the
            recipe's. Defaults to `None`.

    Returns:
        `(ModelConfig, TrainingConfig)`.

    Raises:
        ValueError: when there is no such recipe or field, or a value is out of range.
    """
    values: dict[str, Any] = {}
    if name is not None:
        values |= RECIPES[check_choice("recipe", name, tuple(RECIPES))]
    values |= changes or {}
    model, training = (
        {key: values.pop(key) for key in _fields(kind) & values.keys()}
        for kind in (ModelConfig, TrainingConfig)
    )
    if values:
        raise ValueError(
            "`changes` must be fields of ModelConfig or TrainingConfig. Received: "
            f"{', '.join(values)}. Correct the names."
        )
    return ModelConfig(**model), TrainingConfig(**training)


def _fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
