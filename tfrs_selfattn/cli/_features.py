"""Side information as `train` is told of it: options in, fitted features out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfrs_selfattn.cli._report import Report
from tfrs_selfattn.data import Split
from tfrs_selfattn.features import (
    FeatureSet,
    FeatureTable,
    parse_features,
    read_feature_table,
)
from tfrs_selfattn.features.movielens import is_movielens
from tfrs_selfattn.training import DataConfig, FeaturesConfig
from tfrs_selfattn.training.side_information import Known, SideInformation


@dataclasses.dataclass(frozen=True)
class Asked:
    """The features that options name, not yet read.

    Args:
        config: the options.
        items: the file of items and its features, or None.
    """

    config: FeaturesConfig
    items: tuple[Path, FeatureSet] | None


def asked_features(items: str | None) -> Asked:
    """What the option asks for; refused at once if misspelt."""
    if items is None:
        return Asked(FeaturesConfig(), None)
    path, features = parse_features(items, "--item-features", with_file=True)
    asked = None if path is None else (path, features)
    return Asked(FeaturesConfig(items=items), asked)


def read_side_information(
    report: Report, asked: Asked, data: DataConfig, split: Split
) -> tuple[FeaturesConfig, SideInformation]:
    """Reads the tables and fits the features to what training shows."""
    sequences = split.sequences
    items = None
    if asked.items is not None:
        ids = list(sequences.vocabulary.ids)
        features, table = _read(report, asked.items, data.item_column, ids, "items")
        items = Known.fit(features, table, split.train_counts()[1:] > 0)
    side = SideInformation(items)
    config = dataclasses.replace(asked.config, fingerprint=side.fingerprint())
    return config, side


def _read(
    report: Report,
    asked: tuple[Path, FeatureSet],
    id_column: str,
    ids: list[str],
    what: str,
) -> tuple[FeatureSet, FeatureTable]:
    path, features = asked
    if is_movielens(path):
        id_column = {"items": "item_id", "users": "user_id"}[what]
    with report.waiting(f"Reading what is known of {what}"):
        table = read_feature_table(path, features, id_column=id_column)
        table, absent = table.align(ids, features)
    if absent:
        report.say(
            f"  {len(absent):,} of {len(ids):,} {what} are not in {path}, the first "
            f"is {absent[0]!r}: nothing is known of them beside their id"
        )
    return features, table
