"""What several commands do: read the data, train, evaluate beside the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._report import Report
from tfrs_selfattn.cli._tensorflow import start_tensorflow
from tfrs_selfattn.data import (
    EventSummary,
    Sequences,
    Split,
    build_sequences,
    find_titles,
    leave_one_out,
    read_events,
    read_titles,
    summarize,
)
from tfrs_selfattn.training import (
    DataConfig,
    ModelConfig,
    RunConfig,
    RunFolder,
    TrainingConfig,
)

if TYPE_CHECKING:
    from tfrs_selfattn.evaluation import RankingResult
    from tfrs_selfattn.models import SequenceRetrieval
    from tfrs_selfattn.training import TrainingResult

METRICS = ("hr@10", "ndcg@10")
_LABELS = {
    "popularity": "most popular",
    "item_to_item": "item-to-item transitions",
    "model": "model",
}


@dataclass(frozen=True)
class Prepared:
    """An event log, read and split."""

    sequences: Sequences
    split: Split
    summary: EventSummary
    titles: dict[str, str]

    @property
    def untitled(self) -> int:
        """Items of the log that have no title."""
        return sum(item not in self.titles for item in self.sequences.vocabulary.ids)


def prepare(
    report: Report,
    data: DataConfig,
    *,
    items: Path | None = None,
    title_column: str = "title",
) -> Prepared:
    """Reads the events, orders them by user, holds out the last two of each."""
    path = Path(data.path)
    titles: dict[str, str] = {}
    if items is not None:
        titles = read_titles(
            items, item_column=data.item_column, title_column=title_column
        )
    elif path.is_dir():
        titles = find_titles(path)
    events = read_events(
        path,
        user_column=data.user_column,
        item_column=data.item_column,
        time_column=data.time_column,
    )
    with report.waiting("Reading events"):
        sequences = build_sequences(events, min_item_events=data.min_item_events)
    summary = summarize(sequences)
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
    prepared = Prepared(sequences, leave_one_out(sequences), summary, titles)
    if titles or items is not None:
        untitled = prepared.untitled
        if untitled:
            report.say(f"  {untitled:,} items have no title")
    return prepared


def create_run(
    report: Report,
    output: Path,
    prepared: Prepared,
    data: DataConfig,
    model: ModelConfig,
    training: TrainingConfig,
) -> RunFolder:
    """Creates the run folder, or opens the one that is there, and starts TensorFlow."""
    with report.waiting("Starting TensorFlow"):
        start_tensorflow()
        from tfrs_selfattn.training import check_split

    check_split(prepared.split)
    config = RunConfig.for_sequences(prepared.sequences, data, model, training)
    vocabulary = prepared.sequences.vocabulary
    return RunFolder.create(output, config, vocabulary, prepared.titles)


def fit(report: Report, folder: RunFolder, split: Split) -> TrainingResult:
    """Trains the run with Keras' progress bar, or goes on with it."""
    from tfrs_selfattn import training

    known = folder.metrics()
    done = len(known.get("epochs", []))
    if done and not known.get("finished"):
        report.say(f"Continuing {folder.path} after {done} epochs")
    result = training.train(folder, split, verbose=report.keras_verbosity)
    if result.epochs == result.resumed_from:
        report.say(f"{folder.path} is trained already: nothing left to do")
    report.say(
        f"Best epoch: {result.best_epoch} of {result.epochs}, validation "
        + ", ".join(f"{name} {result.validation[name]:.4f}" for name in METRICS)
    )
    return result


def load_best(report: Report, folder: RunFolder) -> SequenceRetrieval:
    """Starts TensorFlow and loads the model of a run's best epoch."""
    with report.waiting("Loading the model"):
        start_tensorflow()
        from tfrs_selfattn.training import load_model

        return load_model(folder)


def evaluate_all(
    report: Report, model: SequenceRetrieval, split: Split, *, filter_seen: bool
) -> dict[str, RankingResult]:
    """Test metrics of the most popular items, item-to-item transitions, the model."""
    import tensorflow as tf

    from tfrs_selfattn.evaluation import ItemToItem, MostPopular, evaluate_ranking

    if not len(split.test):
        raise InputError(
            "At least one user with 3 or more events is needed, to evaluate on. "
            "Received: none. Use a log with longer histories."
        )
    signature = [tf.TensorSpec([None, None], tf.int32)]
    scorers: dict[str, Any] = {
        "popularity": MostPopular(split),
        "item_to_item": ItemToItem(split),
        "model": tf.function(model.score, input_signature=signature),
    }
    results = {}
    for name, score in scorers.items():
        with report.progress(f"Evaluating {_LABELS[name]}") as progress:
            results[name] = evaluate_ranking(
                score, split.test, filter_seen=filter_seen, progress=progress
            )
    return results


def print_metrics(
    report: Report, results: dict[str, RankingResult], split: Split, filter_seen: bool
) -> None:
    """The one table: every model, HR@10 and NDCG@10, and under which protocol."""
    items = len(split.sequences.vocabulary)
    report.table(
        ("", "HR@10", "NDCG@10"),
        [
            (_LABELS[name], *(f"{result.metrics[metric]:.4f}" for metric in METRICS))
            for name, result in results.items()
        ],
    )
    seen = "left out" if filter_seen else "kept in"
    report.say(
        f"Leave-one-out test of {len(split.test):,} users, ranked among all {items:,} "
        f"items, seen items {seen}, ties counted against the model."
    )


def metrics_json(results: dict[str, RankingResult]) -> dict[str, dict[str, float]]:
    """The metrics of every model as plain numbers."""
    return {
        name: {metric: result.metrics[metric] for metric in METRICS}
        for name, result in results.items()
    }
