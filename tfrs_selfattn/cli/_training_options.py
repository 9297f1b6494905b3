"""What the options of `train` come to."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from tfrs_selfattn.cli._steps import validation_bound
from tfrs_selfattn.training import ModelConfig, TrainingConfig
from tfrs_selfattn.training.recipes import recipe

_ID_DROPOUT = 0.2


def configurations(context: typer.Context) -> tuple[ModelConfig, TrainingConfig]:
    """The model and the training that the command line asks for.

    Options that were typed come first, then `--recipe`, then the options' defaults.

    Raises:
        ValueError: when one is out of range, or some do not go together.
    """
    asked = context.params
    kinds = (ModelConfig, TrainingConfig)
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    options: dict[str, Any] = {
        name: value
        for name, value in asked.items()
        if name in names and (asked["recipe"] is None or _is_typed(context, name))
    }
    if options.get("id_dropout") is None:
        options["id_dropout"] = 0.0 if asked["item_features"] is None else _ID_DROPOUT
    if options.get("validation_users") is None:
        options["validation_users"] = validation_bound(asked["shards"])
    return recipe(asked["recipe"], options)


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
