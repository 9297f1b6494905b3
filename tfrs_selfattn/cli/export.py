"""`tfrs-selfattn export`: a run in, a SavedModel for TensorFlow Serving out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfrs_selfattn.cli._report import Report

if TYPE_CHECKING:
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
    """Write the run's best model as one SavedModel with its index inside.

    Example:

        tfrs-selfattn export run --to models/films --k 100
    """
    from tfrs_selfattn import training

    report = Report(as_json)
    folder = training.RunFolder.open(run)
    with report.working():
        model = training.load_model(folder)
        done = export_run(report, folder, model, to, k=k, keep_seen=keep_seen)
    report.say()
    report.say(f'Ask it:    tfrs-selfattn recommend {to} --history "ID,ID"')
    report.say(f"Serve it:  {serve_command(to)}")
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
    return (
        "docker run --rm -p 8500:8500 -p 8501:8501 -e MODEL_NAME=recommender "
        f'-v "{base.absolute()}:/models/recommender" tensorflow/serving'
    )
