"""`tfrs-selfattn train`: an event log in, a run folder out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tfrs_selfattn import InputError


def train(
    data: Annotated[
        Path,
        typer.Option(
            help="Events: a .csv, .tsv or .parquet file, a folder of them, or a "
            "MovieLens folder."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder of this run: new, or the one to continue.")
    ],
    user_column: Annotated[str, typer.Option(help="Column of users.")] = "user_id",
    item_column: Annotated[
        str, typer.Option(help="Column of items, in --items too.")
    ] = "item_id",
    time_column: Annotated[
        str, typer.Option(help="Column of times: Unix seconds or ISO dates.")
    ] = "timestamp",
    items: Annotated[
        Path | None, typer.Option(help="File with the titles of items.")
    ] = None,
    title_column: Annotated[
        str, typer.Option(help="Column of titles in --items.")
    ] = "title",
    min_item_events: Annotated[
        int, typer.Option(min=1, help="Drop items with fewer events.")
    ] = 1,
    preset: Annotated[str, typer.Option(help="Model: sasrec.")] = "sasrec",
    embedding_dim: Annotated[
        int, typer.Option(min=1, help="Width of item vectors.")
    ] = 64,
    num_blocks: Annotated[int, typer.Option(min=1, help="Attention blocks.")] = 2,
    num_heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 1,
    max_length: Annotated[
        int, typer.Option(min=1, help="Newest items of a history that are used.")
    ] = 200,
    dropout: Annotated[float, typer.Option(help="From 0 to below 1.")] = 0.2,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without improvement before stopping.")
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Packed rows of --max-length items a batch.")
    ] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed, the same model.")
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Train a two-tower model on an event log.

    Stops when the validation NDCG@10 no longer improves and keeps the best epoch. A
    killed run continues when the same command is repeated.

    \b
    Example:
        tfrs-selfattn train --data events.csv --user-column visitor \\
            --item-column article --time-column time --output run
    """
    from tfrs_selfattn import training
    from tfrs_selfattn.cli._report import Report, shell
    from tfrs_selfattn.cli._steps import create_run, fit, prepare

    started = time.perf_counter()
    report = Report(as_json)
    try:
        model_config = training.ModelConfig(
            preset=preset,
            embedding_dim=embedding_dim,
            num_blocks=num_blocks,
            num_heads=num_heads,
            max_length=max_length,
            dropout=dropout,
        )
        training_config = training.TrainingConfig(
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    training.check_output(output)
    source = training.DataConfig(
        path=str(data.absolute()),
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        min_item_events=min_item_events,
    )
    with report.working():
        prepared = prepare(report, source, items=items, title_column=title_column)
        folder = create_run(
            report, output, prepared, source, model_config, training_config
        )
        result = fit(report, folder, prepared.split)
    report.say()
    report.commands(
        {
            "Evaluate it": shell("tfrs-selfattn", "evaluate", output),
            "Export it": shell(
                "tfrs-selfattn", "export", output, "--to", f"{output}-export"
            ),
            "Watch it": shell("tensorboard", "--logdir", folder.tensorboard),
        }
    )
    summary = prepared.summary
    report.result(
        {
            "run": str(output),
            "users": summary.users,
            "items": summary.items,
            "events": summary.events,
            "duplicate_events": summary.duplicate_events,
            "one_event_users": summary.one_event_users,
            "items_without_title": prepared.untitled,
            "epochs": result.epochs,
            "resumed_from": result.resumed_from,
            "best_epoch": result.best_epoch,
            "validation": result.validation,
            "seconds": round(time.perf_counter() - started, 1),
        }
    )
