"""Whether data and rows are those that a run can be trained on."""

from __future__ import annotations

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data.shards import ShardedRows
from tfrs_selfattn.data.side import EVENT, PARTS, QUERY
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.data.windows import training_windows
from tfrs_selfattn.training.config import RunConfig
from tfrs_selfattn.training.run_folder import RunFolder
from tfrs_selfattn.training.side_information import SideInformation


def check_rows(rows: ShardedRows, config: RunConfig) -> None:
    """Checks, before a run folder is made, that rows on disk are made as its own are.

    Raises:
        InputError: when they are not.
    """
    wanted = {
        "max_length": config.model.max_length,
        "windows": config.training.windows,
        "stride": config.training.stride,
        "starts": config.features.starts,
    }
    found = {
        "max_length": rows.row_length,
        "windows": rows.options["windows"],
        "stride": rows.options["stride"],
        "starts": rows.options.get("starts", False),
    }
    if config.model.time_aware and "timestamps" not in rows.columns:
        raise InputError(
            "Shards of a time-aware model must have times. Received: "
            f"{rows.path}, which has none. Prepare the events with --times."
        )
    features = config.features
    for name, asked in ((QUERY, features.starts), (EVENT, bool(features.events))):
        if asked != (f"{name}/{PARTS[0]}" in rows.columns):
            raise InputError(
                "Shards must have the features of users, requests and events that the "
                f"run has, and no others. Received: {rows.path}, "
                f"{'without' if asked else 'with'} {name}. What `prepare` writes has "
                "none: train from the event log itself, or leave the features out."
            )
    different = [name for name in wanted if wanted[name] != found[name]]
    if different:
        raise InputError(
            "Shards must be made as the run is: "
            + ", ".join(f"{name}={wanted[name]}" for name in different)
            + f". Received: {rows.path}, with "
            + ", ".join(f"{name}={found[name]}" for name in different)
            + ". Prepare the events anew, or train with the options of the shards."
        )


def check_sides(side: SideInformation, split: Split) -> None:
    """Checks that a split carries the features that a run knows beside ids.

    Raises:
        InputError: when it does not.
    """
    needed = {QUERY: side.query, EVENT: side.events}
    missing = [
        name
        for name, features in needed.items()
        if features is not None and name not in split.sequences.sides
    ]
    if missing:
        raise InputError(
            "`split` must carry the features of the run. Received: a split without "
            f"{', '.join(missing)}. Pass `folder.side().attach(split)`, of a log read "
            "with the columns of the features."
        )


def check_times(split: Split, folder: RunFolder) -> None:
    """Checks that a split holds out what the run has held out.

    Raises:
        InputError: when it does not.
    """
    if split.times != folder.config.data.times:
        raise InputError(
            "`split` must be the one of the run: what it holds out would else be "
            f"trained on. Received: times={split.times}, where {folder.path} has "
            f"{folder.config.data.times}. Split the same way, or make the run with "
            "`DataConfig(…).at(split.times)`."
        )


def check_split(split: Split, rows: ShardedRows | None = None) -> None:
    """Checks, before a run folder is made, that there is something to train on.

    Args:
        split: what is trained and validated on.
        rows: the training rows, if they are in shards. Defaults to `None`.

    Raises:
        InputError: when no user is left to validate on, or to learn from.
    """
    if not len(split.validation):
        raise InputError(
            "At least one user with 3 or more events is needed, to validate on. "
            f"Received: none among {split.sequences.num_users} users. Use a log with "
            "longer histories, or lower --min-item-events."
        )
    if rows is not None:
        learned = rows.num_targets
    else:
        learned = len(training_windows(split, row_length=1))
    if not learned:
        raise InputError(
            "At least one user with 4 or more events is needed, to learn from: the "
            f"last two are held out. Received: none among {split.sequences.num_users} "
            "users. Use a log with longer histories, or lower --min-item-events."
        )
