"""What several commands do: read the data, train, load what was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.cli._evaluation import SHORT, split_of
from tfrs_selfattn.cli._report import Report
from tfrs_selfattn.cli._tensorflow import start_tensorflow
from tfrs_selfattn.data import (
    EventSummary,
    PreparedLog,
    Sequences,
    ShardedRows,
    Split,
    build_sequences,
    find_titles,
    leave_one_out,
    read_events,
    read_prepared,
    read_titles,
    summarize,
)
from tfrs_selfattn.data.prepared import is_prepared
from tfrs_selfattn.training import (
    DataConfig,
    ModelConfig,
    RunConfig,
    RunFolder,
    TrainingConfig,
)
from tfrs_selfattn.training.config import FeaturesConfig
from tfrs_selfattn.training.side_information import SideInformation

if TYPE_CHECKING:
    from tfrs_selfattn.data.side import ReadColumn
    from tfrs_selfattn.models import SequenceRetrieval
    from tfrs_selfattn.training import TrainingResult


# Users that training on shards validates on, unless told otherwise: enough to tell
# models apart, and bounded, as memory is.
_VALIDATION = 100_000


@dataclass(frozen=True)
class Prepared:
    """An event log, read and split.

    Args:
        log: all of it, in memory or in the files that `prepare` wrote.
        split: of all of it, or of those alone who are held out.
        summary: of all of it.
        titles: of its items.
        rows: the training rows, if they are in shards.
    """

    log: Sequences | PreparedLog
    split: Split
    summary: EventSummary
    titles: dict[str, str]
    rows: ShardedRows | None = None

    @property
    def sequences(self) -> Sequences:
        return self.split.sequences

    @property
    def untitled(self) -> int:
        """Items of the log that have no title."""
        return sum(item not in self.titles for item in self.log.vocabulary.ids)

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Training events of each item of the whole log, as `Split.train_counts`."""
        of = self.log if isinstance(self.log, PreparedLog) else self.split
        counts: npt.NDArray[np.int64] = of.train_counts()
        return counts


def one_of(data: Path | None, shards: Path | None) -> Path:
    """The events, however they are given."""
    if (data is None) == (shards is None):
        raise InputError(
            "One of --data and --shards must be given. Received: "
            f"{'neither' if data is None else 'both'}. Name the events, or the folder "
            "that `prepare` made of them."
        )
    if shards is not None:
        read_prepared(shards)  # Says what is wrong with it.
    return data or shards or Path()


def validation_bound(shards: Path | None) -> int | None:
    """How many users validate if nobody says so; None for all there are."""
    if shards is None or read_prepared(shards).manifest["validation"] <= _VALIDATION:
        return None
    return _VALIDATION


def prepare(
    report: Report,
    data: DataConfig,
    *,
    items: Path | None = None,
    title_column: str = "title",
    columns: Mapping[str, ReadColumn] | None = None,
    training: TrainingConfig | None = None,
) -> Prepared:
    """Reads the events, orders them by user, holds out the last two of each.

    `columns` are further ones of the log to read. For `training` alone, of a folder
    that `prepare` wrote only those are read who are validated on.
    """
    path = Path(data.path)
    titles: dict[str, str] = {}
    if items is not None:
        titles = read_titles(
            items, item_column=data.item_column, title_column=title_column
        )
    elif path.is_dir():
        titles = find_titles(path)
    rows = None
    if is_prepared(path):
        if columns:
            raise InputError(
                "Features of requests and events must be columns of the event log. "
                f"Received: {', '.join(columns)}, for {path}, which `prepare` wrote "
                "with users, items and times alone. Train from the event log itself."
            )
        with report.waiting("Reading what was prepared"):
            log: Sequences | PreparedLog = (prepared_log := read_prepared(path))
            if training is None:
                split = prepared_log.split()
            else:
                rows = prepared_log.rows()
                split = prepared_log.held_out(
                    training.validation_users, seed=training.seed
                )
            summary = prepared_log.summary()
    else:
        events = read_events(
            path,
            user_column=data.user_column,
            item_column=data.item_column,
            time_column=data.time_column,
        )
        with report.waiting("Reading events"):
            log = build_sequences(
                events, min_item_events=data.min_item_events, columns=columns
            )
            split, summary = leave_one_out(log), summarize(log)
    report.say(
        f"{summary.events:,} events of {summary.users:,} users with "
        f"{summary.items:,} items"
    )
    if summary.duplicate_events:
        report.say(
            f"  {summary.duplicate_events:,} events repeat another one (same user, "
            "item and time); they are kept"
        )
    if summary.one_event_users:
        report.say(
            f"  {summary.one_event_users:,} users have one event only; they count "
            "for the vocabulary and are not trained on"
        )
    prepared = Prepared(log, split, summary, titles, rows)
    if titles or items is not None:
        untitled = prepared.untitled
        if untitled:
            report.say(f"  {untitled:,} items have no title")
    return prepared


def source_of_run(folder: RunFolder, data: Path | None = None) -> DataConfig:
    """Where the events of a run are: `data` if given, else where they were."""
    source = folder.config.data
    if data is not None:
        return dataclasses.replace(source, path=str(data.absolute()))
    if not Path(source.path).exists():
        raise InputError(
            f"The events that {folder.path} was trained on are needed. Received: "
            f"{source.path}, which does not exist any more. Say where they are with "
            "--data."
        )
    return source


def prepare_again(report: Report, folder: RunFolder, source: DataConfig) -> Prepared:
    """Reads the events of a run once more, with the columns that it needs."""
    from tfrs_selfattn.cli._features import asked_features
    from tfrs_selfattn.training import fingerprint

    columns = asked_features(folder.config.features).columns
    prepared = prepare(report, source, columns=columns)
    if fingerprint(prepared.sequences) != source.fingerprint:
        raise InputError(
            f"The events of {source.path} must be those that {folder.path} was trained "
            "on. Received: other events. Pass the original ones with --data, or train "
            "again."
        )
    times = prepared.split.times
    if times != source.times:
        raise InputError(
            f"The events of {source.path} must be split as {folder.path} was: some "
            "that it was trained on would be tested. Received: "
            f"{split_of(times)}, where the run has {split_of(source.times)}. Pass the "
            "original ones with --data, or train again."
        )
    return prepared


def create_run(
    report: Report,
    output: Path,
    prepared: Prepared,
    data: DataConfig,
    model: ModelConfig,
    training: TrainingConfig,
    features: FeaturesConfig | None = None,
    side: SideInformation | None = None,
    strategy: Any = None,
) -> RunFolder:
    """Creates the run folder, or opens the one that is there, and starts TensorFlow.

    Of several workers the first one does, and the others join it.
    """
    with report.waiting("Starting TensorFlow"):
        start_tensorflow()
        from tfrs_selfattn.training import check_split
        from tfrs_selfattn.training.checking import check_rows
        from tfrs_selfattn.training.replicas import Replicas

    check_split(prepared.split, prepared.rows)
    data = data.at(prepared.split.times)
    config = RunConfig.for_sequences(prepared.log, data, model, training, features)
    if prepared.rows is not None:
        check_rows(prepared.rows, config)
    vocabulary = prepared.log.vocabulary
    replicas = Replicas.of(strategy)
    if replicas.is_chief:
        folder = RunFolder.create(output, config, vocabulary, prepared.titles, side)
    replicas.meet()
    return folder if replicas.is_chief else RunFolder.join(output, config)


def start_strategy(report: Report, name: str, cluster_timeout: float) -> Any:
    """Starts TensorFlow and meets the other workers; returns the strategy or None."""
    with report.waiting("Starting TensorFlow"):
        start_tensorflow()
        from tfrs_selfattn.training import make_strategy
    if name != "multi-worker":
        return make_strategy(name)
    with report.waiting("Waiting for the other workers of TF_CONFIG"):
        return make_strategy(name, cluster_timeout=cluster_timeout)


def check_images(report: Report, count: int, preset: str, events: str) -> None:
    """Before a run folder is made: can these pictures be drawn?"""
    with report.waiting("Starting TensorFlow"):
        start_tensorflow()
        from tfrs_selfattn.training.tensorboard import check_attention_images

        check_attention_images(count, preset, events)


def fit(
    report: Report,
    folder: RunFolder,
    split: Split,
    rows: ShardedRows | None = None,
    *,
    attention_images: int = 0,
    strategy: Any = None,
    item_counts: Sequence[int] | None = None,
) -> TrainingResult:
    """Trains the run with Keras' progress bar, or goes on with it."""
    from tfrs_selfattn import training
    from tfrs_selfattn.training.progress import RunProgress
    from tfrs_selfattn.training.replicas import Replicas

    callbacks = []
    if Replicas.of(strategy).is_chief:
        callbacks.append(RunProgress(folder.config.training.epochs, report.say))
    known = folder.metrics()
    done = len(known.get("epochs", []))
    if done and not known.get("finished"):
        report.say(f"Continuing {folder.path} after {done} epochs")
    result = training.train(
        folder,
        split,
        rows=rows,
        callbacks=callbacks,
        attention_images=attention_images,
        verbose=report.keras_verbosity,
        strategy=strategy,
        item_counts=item_counts,
    )
    if result.epochs == result.resumed_from:
        report.say(f"{folder.path} is trained already: nothing left to do")
    report.say(
        f"Best epoch: {result.best_epoch} of {result.epochs}, validation "
        + ", ".join(f"{name} {result.validation[name]:.4f}" for name in SHORT)
    )
    return result


def load_best(report: Report, folder: RunFolder) -> SequenceRetrieval:
    """Starts TensorFlow and loads the model of a run's best epoch."""
    with report.waiting("Loading the model"):
        start_tensorflow()
        from tfrs_selfattn.training import load_model

        return load_model(folder)
