"""Side information as `train` is told of it: options in, fitted features out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._report import Report
from tfrs_selfattn.data import Split
from tfrs_selfattn.features import (
    FeatureSet,
    FeatureTable,
    parse_features,
    read_feature_table,
)
from tfrs_selfattn.features.columns import column_readers
from tfrs_selfattn.features.feature_set import check_distinct
from tfrs_selfattn.features.movielens import is_movielens
from tfrs_selfattn.training import DataConfig, FeaturesConfig
from tfrs_selfattn.training.side_information import Known, SideInformation

if TYPE_CHECKING:
    from tfrs_selfattn.cli._steps import Prepared
    from tfrs_selfattn.data.side import ReadColumn
    from tfrs_selfattn.training import RunFolder


@dataclasses.dataclass(frozen=True)
class Asked:
    """The features that options name, not yet read.

    Args:
        config: the options.
        items: the file of items and its features, or None.
        users: likewise of users.
        context: features of requests, or None.
        events: features of events, or None.
    """

    config: FeaturesConfig
    items: tuple[Path, FeatureSet] | None = None
    users: tuple[Path, FeatureSet] | None = None
    context: FeatureSet | None = None
    events: FeatureSet | None = None

    @property
    def columns(self) -> dict[str, ReadColumn]:
        """The columns of the event log that are needed, and how they are read."""
        return column_readers(self.context, self.events)


def asked_features(config: FeaturesConfig) -> Asked:
    """What options ask for; refused at once if misspelt."""
    asked = Asked(
        config,
        _of_table(config.items, "--item-features"),
        _of_table(config.users, "--user-features"),
        _of_log(config.context, "--context-features"),
        _of_log(config.events, "--event-features"),
    )
    users = None if asked.users is None else asked.users[1]
    check_distinct(users, asked.context, asked.events)
    return asked


def _of_table(text: str, option: str) -> tuple[Path, FeatureSet] | None:
    if not text:
        return None
    path, features = parse_features(text, option, with_file=True)
    return None if path is None else (path, features)


def _of_log(text: str, option: str) -> FeatureSet | None:
    if not text:
        return None
    _, features = parse_features(text, option, with_file=False)
    for feature in features:
        if feature.kind == "vector":
            raise InputError(
                f"{option} must have kinds that a column of the event log can hold. "
                f"Received: {feature.name}:vector. Give vectors to items or users."
            )
    return features


def read_side_information(
    report: Report, asked: Asked, data: DataConfig, prepared: Prepared
) -> tuple[FeaturesConfig, SideInformation]:
    """Reads the tables and fits the features to what training shows."""
    split, sequences = prepared.split, prepared.sequences
    items = users = None
    if asked.items is not None:
        ids = list(sequences.vocabulary.ids)
        features, table = _read(report, asked.items, data.item_column, ids, "items")
        items = Known.fit(features, table, prepared.train_counts()[1:] > 0)
    if asked.users is not None:
        if prepared.rows is not None:
            raise InputError(
                "Features of users need the event log itself. Received: "
                f"--user-features, and {data.path}, which `prepare` wrote without "
                "them. Train with --data, or leave the features out."
            )
        ids = sequences.user_ids.to_list()
        features, table = _read(report, asked.users, data.user_column, ids, "users")
        users = Known.fit(features, table, split.train_stop > sequences.offsets[:-1])
    shown = split.in_training()
    raw = {name: values[shown] for name, values in sequences.columns.items()}
    context, events = (
        None if each is None else each.fit(raw, data.path)
        for each in (asked.context, asked.events)
    )
    side = SideInformation(items, users, context, events)
    fingerprint = side.fingerprint(sequences.columns)
    return dataclasses.replace(asked.config, fingerprint=fingerprint), side


def side_of_run(folder: RunFolder, split: Split) -> SideInformation:
    """What a run knows beside ids, if the log still tells the same.

    Args:
        folder: `RunFolder`.
        split: of the log, read with the columns that the run's options name.
    """
    side: SideInformation = folder.side()
    config = folder.config.features
    if side.fingerprint(split.sequences.columns) != config.fingerprint:
        raise InputError(
            f"The columns {', '.join(split.sequences.columns)} of the event log must "
            f"hold what {folder.path} was trained on. Received: other values. Pass the "
            "original log with --data, or train again."
        )
    return side


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
