"""`tfrs-selfattn evaluate`: a run's test metrics beside the baselines."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from tfrs_selfattn import InputError


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder written by `train`.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The events of the run, if they have moved."),
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

    Prints HR@10 and NDCG@10 of the run's best epoch, of the most popular items and of
    item-to-item transitions, and notes them in the run's metrics.json.

    \b
    Example:
        tfrs-selfattn evaluate run
    """
    from tfrs_selfattn import training
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._steps import (
        evaluate_all,
        load_best,
        metrics_json,
        prepare,
        print_metrics,
    )

    started = time.perf_counter()
    report = Report(as_json)
    folder = training.RunFolder.open(run)
    source = folder.config.data
    if data is not None:
        source = dataclasses.replace(source, path=str(data.absolute()))
    elif not Path(source.path).exists():
        raise InputError(
            f"The events that {run} was trained on are needed. Received: "
            f"{source.path}, which does not exist any more. Say where they are with "
            "--data."
        )
    with report.working():
        model = load_best(report, folder)
        prepared = prepare(report, source)
        if training.fingerprint(prepared.sequences) != source.fingerprint:
            raise InputError(
                f"The events of {source.path} must be those that {run} was trained on. "
                "Received: other events. Pass the original ones with --data, or train "
                "again."
            )
        results = evaluate_all(report, model, prepared.split, filter_seen=filter_seen)
        print_metrics(report, results, prepared.split, filter_seen)
    content = {
        "metrics": metrics_json(results),
        "users": len(prepared.split.test),
        "filter_seen": filter_seen,
    }
    try:
        folder.write_metrics({**folder.metrics(), "test": content})
    except OSError as error:  # A run may be read-only; its metrics are printed anyway.
        report.say(f"Not noted in {folder.path}: {error.strerror}")
    seconds = round(time.perf_counter() - started, 1)
    report.result({"run": str(run), **content, "seconds": seconds})
