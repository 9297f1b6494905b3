"""`tfrs-selfattn evaluate`: a run's test metrics beside the baselines."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._report import Report
from tfrs_selfattn.cli._steps import (
    evaluate_all,
    metrics_json,
    prepare,
    print_metrics,
)


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
    """Rank the whole catalogue for every user's last item.

    Example:

        tfrs-selfattn evaluate run
    """
    from tfrs_selfattn import training

    started = time.perf_counter()
    report = Report(as_json)
    folder = training.RunFolder.open(run)
    source = folder.config.data
    if data is not None:
        source = dataclasses.replace(source, path=str(data.absolute()))
    with report.working():
        prepared = prepare(report, source)
        if training.fingerprint(prepared.sequences) != source.fingerprint:
            raise InputError(
                f"The events of {source.path} must be those that {run} was trained on. "
                "Received: other events. Pass the original ones with --data, or train "
                "again."
            )
        model = training.load_model(folder)
        results = evaluate_all(report, model, prepared.split, filter_seen=filter_seen)
        print_metrics(report, results, prepared.split, filter_seen)
    content = {
        "metrics": metrics_json(results),
        "users": len(prepared.split.test),
        "filter_seen": filter_seen,
    }
    folder.write_metrics({**folder.metrics(), "test": content})
    seconds = round(time.perf_counter() - started, 1)
    report.result({"run": str(run), **content, "seconds": seconds})
