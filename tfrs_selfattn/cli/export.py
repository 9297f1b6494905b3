"""`tfrs-selfattn export`: a run in, a SavedModel for TensorFlow Serving out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfrs_selfattn import InputError

INDEXES = ("exact", "partitioned")
SERVER_IMAGE = "tensorflow/serving:2.20.0"

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
    index: Annotated[
        str, typer.Option(help="exact, or partitioned for a large catalogue.")
    ] = "exact",
    target_recall: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1.0,
            help="Tune a partitioned index to find this share of the right items, on "
            "the validation histories of the run.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The events of the run for that, if they have moved."),
    ] = None,
    xla: Annotated[
        bool,
        typer.Option(
            "--xla",
            help="Let XLA compile a partitioned index, for a server that runs with "
            "--xla_cpu_compilation_enabled.",
        ),
    ] = False,
    query_only: Annotated[
        bool,
        typer.Option(
            "--query-only", help="The query tower alone: a history in, a vector out."
        ),
    ] = False,
    index_only: Annotated[
        bool,
        typer.Option(
            "--index-only",
            help="The items alone: a vector in, ids out. All vectors in "
            "assets.extra/embeddings.parquet too.",
        ),
    ] = False,
    card_notes: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file that the model card ends with: who answers for the "
            "model, its licence, what else must be known."
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="One query model and so many models of a part of the items each, for "
            "a catalogue larger than one server.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Write the best model of a run as one SavedModel.

    The index is inside. A new version appears whole or not at all, so a server that
    watches the base folder never loads half of one. A model card lies in its
    assets.extra/model_card.md.

    \b
    Example:
        tfrs-selfattn export run --to models/films --k 100
    """
    from tfrs_selfattn import training
    from tfrs_selfattn.cli._provenance import read_notes
    from tfrs_selfattn.cli._report import Report, shell
    from tfrs_selfattn.cli._steps import load_best, source_of_run

    report = Report(as_json)
    if query_only and index_only:
        raise InputError(
            "At most one of --query-only and --index-only may be given. Received: "
            "both. Leave out both to export tower and index together."
        )
    if index not in INDEXES:
        raise InputError(
            f"--index must be one of {', '.join(INDEXES)}. Received: {index!r}. Leave "
            "it out for an exact one."
        )
    if xla and index != "partitioned":
        raise InputError(
            "--xla must come with --index partitioned, whose search it makes faster. "
            "Received: --xla with an exact index. Leave it out, or add the other."
        )
    if query_only and index != "exact":
        raise InputError(
            "--index must be left out with --query-only, which exports no items. "
            f"Received: --index {index}. Give it to the export with --index-only."
        )
    if keep_seen and (query_only or index_only):
        raise InputError(
            "--keep-seen must come without --query-only and --index-only. Received: "
            "both. Whoever asks the index says what it leaves out."
        )
    if shards is not None and (query_only or index_only or keep_seen):
        raise InputError(
            "--shards must come without --query-only, --index-only and --keep-seen. "
            "Received: both. It exports the query tower and the items apart, and who "
            "asks says whether seen items count."
        )
    if target_recall is not None and (
        index != "partitioned" or query_only or shards is not None
    ):
        raise InputError(
            "--target-recall must come with --index partitioned, and without "
            "--query-only and --shards. Received: "
            f"{_given(index, query_only, shards)}. It says how much of one index is "
            "searched."
        )
    parts = "query" if query_only else "index" if index_only else "all"
    notes = None if card_notes is None else read_notes(card_notes)
    folder = training.RunFolder.open(run)
    if shards is not None:
        _export_shards(
            report, run, folder, to, shards, k=k, index=index, xla=xla, notes=notes
        )
        return
    source = None if target_recall is None else source_of_run(folder, data)
    with report.working():
        model = load_best(report, folder)
        searched: Any = index
        if source is not None and target_recall is not None:
            from tfrs_selfattn.cli._tuning import tuned_index

            searched = tuned_index(
                report, folder, model, source, target_recall=target_recall, k=k, xla=xla
            )
        done = export_run(
            report,
            folder,
            model,
            to,
            k=k,
            keep_seen=keep_seen,
            index=searched,
            xla=xla,
            parts=parts,
            notes=notes,
        )
    report.say()
    commands = {"Serve it": serve_command(to)}
    if parts == "all":
        ask = shell("tfrs-selfattn", "recommend", to, "--history", "ID,ID")
        commands = {"Ask it": ask, **commands}
    report.commands(commands)
    report.result(
        {
            "run": str(run),
            "export": str(done.path),
            "version": done.version,
            "k": k,
            "keep_seen": keep_seen,
            "index": index,
            "parts": parts,
            "seconds": round(done.seconds, 1),
        }
    )


def _given(index: str, query_only: bool, shards: int | None) -> str:
    words = [f"--index {index}"]
    if query_only:
        words.append("--query-only")
    if shards is not None:
        words.append(f"--shards {shards}")
    return " ".join(words)


def _export_shards(
    report: Report,
    run: Path,
    folder: RunFolder,
    base: Path,
    shards: int,
    *,
    k: int,
    index: str,
    xla: bool,
    notes: str | None,
) -> None:
    from tfrs_selfattn.cli._provenance import facts_of
    from tfrs_selfattn.cli._steps import load_best

    with report.working():
        model = load_best(report, folder)
        from tfrs_selfattn.export import export_shards

        with report.waiting("Exporting, and asking each in a process of its own"):
            query, *parts = export_shards(
                model,
                base,
                num_shards=shards,
                k=k,
                index=index,
                xla=xla,
                notes=notes,
                **facts_of(folder),
            )
        report.say(
            f"Exported version {query.version}: {query.path.parent} and {shards} "
            f"shards of {min(part.manifest['items'] for part in parts):,} items or more"
        )
    report.result(
        {
            "run": str(run),
            "version": query.version,
            "k": k,
            "index": index,
            "query": str(query.path),
            "shards": [str(part.path) for part in parts],
            "seconds": round(sum(each.seconds for each in (query, *parts)), 1),
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
    index: Any = "exact",
    xla: bool = False,
    parts: str = "all",
    notes: str | None = None,
) -> Export:
    """Exports the model of a run folder, checked in a process of its own."""
    from tfrs_selfattn.cli._provenance import facts_of
    from tfrs_selfattn.export import export_recommender

    with report.waiting("Exporting, and asking the export in a process of its own"):
        done = export_recommender(
            model,
            base,
            k=k,
            keep_seen=keep_seen,
            index=index,
            xla=xla,
            parts=parts,
            notes=notes,
            **facts_of(folder),
        )
    report.say(
        f"Exported version {done.version} to {done.path}: answers in a process with "
        "TensorFlow alone equal the trained model's"
    )
    if index != "exact" and parts != "query":
        recall = done.manifest["index"]["recall"]
        report.say(f"  of the right items, the index found {recall:.1%} in the samples")
    return done


def serve_command(base: Path) -> str:
    """A command that serves an export with the stock image of TensorFlow Serving."""
    from tfrs_selfattn.cli._report import shell

    ports = ("-p", "8500:8500", "-p", "8501:8501")
    mount = f"{base.absolute()}:/models/recommender"
    name = "MODEL_NAME=recommender"
    return shell("docker", "run", "--rm", *ports, "-e", name, "-v", mount, SERVER_IMAGE)
