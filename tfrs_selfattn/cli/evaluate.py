"""`tfrs-selfattn evaluate`: a run's test metrics beside the baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfrs_selfattn import InputError

if TYPE_CHECKING:
    from tfrs_selfattn.training import RunFolder


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder written by `train`.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The events of the run, if they have moved."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Another run on the same events, for a paired test."),
    ] = None,
    filter_seen: Annotated[
        bool,
        typer.Option(
            "--filter-seen/--keep-seen",
            help="Leave a user's own items out of the ranking, or keep them in.",
        ),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Rank the whole catalogue for the last item of every user.

    Of events that `prepare` split by the clock: for each user's first item after it.
    Prints HR, NDCG, MRR, MAP, coverage and novelty at 10 of the run's best epoch and
    of four baselines: most popular items, item-to-item transitions, item-KNN and EASE.
    Then the run's by length of history and popularity of the target. Notes the metrics
    in the run's metrics.json.

    \b
    Example:
        tfrs-selfattn evaluate run
        tfrs-selfattn evaluate run --against other-run
    """
    from tfrs_selfattn import evaluation, training
    from tfrs_selfattn.cli import _evaluation as shared
    from tfrs_selfattn.cli._features import asked_features, side_of_run
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._steps import (
        load_best,
        prepare,
        prepare_again,
        source_of_run,
    )

    started = time.perf_counter()
    report = Report(as_json)
    folder = training.RunFolder.open(run)
    other = None if against is None else training.RunFolder.open(against)
    if other is not None:
        _check_same_events(folder, other)
    source = source_of_run(folder, data)
    asked = asked_features(folder.config.features)
    with report.working():
        model = load_best(report, folder)
        other_model = None if other is None else load_best(report, other)
        prepared = prepare_again(report, folder, source)
        split = side_of_run(folder, prepared.split).attach(prepared.split)
        results = shared.evaluate_all(report, model, split, filter_seen=filter_seen)
        ranks = results["model"].ranks
        intervals = evaluation.bootstrap_intervals(ranks)
        groups = {
            "history length": evaluation.by_history_length(ranks, split.test),
            "target's popularity": evaluation.by_item_popularity(
                ranks, split.test, split.train_counts()[1:]
            ),
        }
        shared.print_metrics(report, results, split, filter_seen)
        shared.print_intervals(report, intervals)
        shared.print_groups(report, groups)
        comparison = None
        if other is not None and other_model is not None:
            # Read again, since other columns may be needed; the cases are the same.
            columns = asked_features(other.config.features).columns
            if columns.keys() != asked.columns.keys():
                prepared = prepare(report, source, columns=columns)
            split = side_of_run(other, prepared.split).attach(prepared.split)
            compared = shared.evaluate_one(
                report, f"{against}", other_model.scorer(), split, filter_seen
            )
            comparison = evaluation.compare(compared.ranks, ranks)
            shared.print_comparison(report, comparison)
    content = {
        "metrics": shared.metrics_json(results),
        "intervals": shared.plain(intervals),
        "users": len(split.test),
        "filter_seen": filter_seen,
        "split": shared.split_json(split.times),
    }
    try:
        folder.write_metrics({**folder.metrics(), "test": content})
    except OSError as error:  # A run may be read-only; its metrics are printed anyway.
        report.say(f"Not noted in {folder.path}: {error.strerror}")
    report.result(
        {
            "run": str(run),
            **content,
            "groups": shared.plain(groups),
            "against": None if against is None else str(against),
            "comparison": None if comparison is None else shared.plain(comparison),
            "seconds": round(time.perf_counter() - started, 1),
        }
    )


def _check_same_events(folder: RunFolder, other: RunFolder) -> None:
    if folder.config.data.fingerprint != other.config.data.fingerprint:
        raise InputError(
            f"--against must name a run on the same events as {folder.path}. Received: "
            f"{other.path}, which was trained on others. Runs can be compared user by "
            "user only on the same users."
        )
    one, another = folder.config.data.times, other.config.data.times
    if one != another:
        from tfrs_selfattn.cli._evaluation import split_of

        raise InputError(
            f"--against must name a run with the same split as {folder.path}, "
            f"{split_of(one)}. Received: {other.path}, with {split_of(another)}. Runs "
            "can be compared on what both held out only: train one of them again."
        )
