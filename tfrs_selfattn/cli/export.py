"""`tfrs-selfattn export`: a run in, a SavedModel for TensorFlow Serving out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.export import Export
    from tfrs_selfattn.models import SequenceRetrieval
    from tfrs_selfattn.training import RunFolder


def export(
    run: Annotated[Path, typer.Argument(help="Folder written by `train`.")],
    to: Annotated[
        Path, typer.Option(help="Base folder; the export becomes a new version in it.")
    ],
    k: Annotated[int, typer.Option(min=1, help="Items in every answer.")] = 100,
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Recommend items of the history too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Write the best model of a run as one SavedModel.

    The index is inside. A new version appears whole or not at all, so a server that
    watches the base folder never loads half of one.

    \b
    Example:
        tfrs-selfattn export run --to models/films --k 100
    """
    from tfrs_selfattn import training
    from tfrs_selfattn.cli._report import Report, shell
    from tfrs_selfattn.cli._steps import load_best

    report = Report(as_json)
    folder = training.RunFolder.open(run)
    with report.working():
        model = load_best(report, folder)
        done = export_run(report, folder, model, to, k=k, keep_seen=keep_seen)
    report.say()
    report.commands(
        {
            "Ask it": shell("tfrs-selfattn", "recommend", to, "--history", "ID,ID"),
            "Serve it": serve_command(to),
        }
    )
    report.result(
        {
            "run": str(run),
            "export": str(done.path),
            "version": done.version,
            "k": k,
            "keep_seen": keep_seen,
            "seconds": round(done.seconds, 1),
        }
    )


def export_run(
    report: Report,
    folder: RunFolder,
    model: SequenceRetrieval,
    base: Path,
    *,
    k: int,
    keep_seen: bool = False,
) -> Export:
    """Exports the model of a run folder, checked in a process of its own."""
    from tfrs_selfattn.export import export_recommender

    metrics = folder.metrics()
    with report.waiting("Exporting, and asking the export in a process of its own"):
        done = export_recommender(
            model,
            base,
            vocabulary=folder.vocabulary(),
            k=k,
            keep_seen=keep_seen,
            titles=folder.titles(),
            metrics={name: metrics.get(name) for name in ("validation", "test")},
            source={"run": folder.path.name, "data": folder.config.data.fingerprint},
        )
    report.say(
        f"Exported version {done.version} to {done.path}: answers in a process with "
        "TensorFlow alone equal the trained model's"
    )
    return done


def serve_command(base: Path) -> str:
    """A command that serves an export with the stock image of TensorFlow Serving."""
    from tfrs_selfattn.cli._report import shell

    ports = ("-p", "8500:8500", "-p", "8501:8501")
    mount = f"{base.absolute()}:/models/recommender"
    name = "MODEL_NAME=recommender"
    return shell(
        "docker", "run", "--rm", *ports, "-e", name, "-v", mount, "tensorflow/serving"
    )
