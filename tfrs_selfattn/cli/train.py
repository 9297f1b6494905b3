"""`tfrs-selfattn train`: an event log in, a run folder out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn._checks import check_choice, check_positive


def train(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option(help="Folder of this run: new, or the one to continue.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Events: a .csv, .tsv, .parquet or .avro file, a folder of them, or a "
            "MovieLens folder."
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(help="In place of --data: a folder written by `prepare`."),
    ] = None,
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
    item_features: Annotated[
        str | None,
        typer.Option(
            help="What is known of items: FILE:COLUMN=KIND,… such as "
            "items.csv:genres=multi,title=text. Kinds: category, multi, number, "
            "bucket, text, vector."
        ),
    ] = None,
    user_features: Annotated[
        str | None,
        typer.Option(
            help="What is known of users, likewise: users.csv:gender=category,"
            "age=bucket. The id column is --user-column."
        ),
    ] = None,
    context_features: Annotated[
        str | None,
        typer.Option(
            help="Columns of the event log that are known when a user asks: "
            "COLUMN:KIND,… such as device:category,hour:category."
        ),
    ] = None,
    event_features: Annotated[
        str | None,
        typer.Option(
            help="Columns of the event log that are known once an event has happened, "
            "such as price:number[log],rating:number."
        ),
    ] = None,
    id_dropout: Annotated[
        float | None,
        typer.Option(
            help="Share of the items that a training step knows by their features "
            "alone.",
            show_default="0.2 with --item-features, else 0",
        ),
    ] = None,
    oov_buckets: Annotated[
        int, typer.Option(min=0, help="Vectors for ids that are new, by their hash.")
    ] = 0,
    own_ids: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Items with a vector of their own id, the most frequent; the others "
            "share --oov-buckets, so that the table of a large catalogue stays small.",
            show_default="all",
        ),
    ] = None,
    share_items: Annotated[
        bool,
        typer.Option(
            "--share-items/--separate-items",
            help="One table of items for histories and candidates, or two.",
        ),
    ] = True,
    min_item_events: Annotated[
        int, typer.Option(min=1, help="Drop items with fewer events.")
    ] = 1,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="What measured best on a public data set, where options say nothing "
            "else: ml-1m, ml-1m-times (with times), amazon-beauty (short histories)."
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="Model: sasrec, gsasrec, esasrec, bert4rec, or hstu, which uses times."
        ),
    ] = "sasrec",
    embedding_dim: Annotated[
        int | None,
        typer.Option(
            min=1, help="Width of item vectors.", show_default="64, or 128 by preset"
        ),
    ] = None,
    num_blocks: Annotated[int, typer.Option(min=1, help="Attention blocks.")] = 2,
    num_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads.", show_default="1 to 4 by preset"),
    ] = None,
    max_length: Annotated[
        int, typer.Option(min=1, help="Newest items of a history that are used.")
    ] = 200,
    dropout: Annotated[
        float | None,
        typer.Option(help="From 0 to below 1.", show_default="0.2, or 0.1 by preset"),
    ] = None,
    time_aware: Annotated[
        bool | None,
        typer.Option(
            "--time-aware/--time-free",
            help="Use the times of items and of the request, or their order only.",
            show_default="by preset",
        ),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize/--no-normalize",
            help="L2-normalize queries and candidates.",
        ),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="What the loss divides scores by.",
            show_default="0.05 with --normalize, else 1",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="full-softmax, best up to some 100,000 items, or one that samples "
            "negatives: sampled-softmax, gbce, bce.",
            show_default="full-softmax, or gbce by preset",
        ),
    ] = None,
    negatives: Annotated[
        str | None,
        typer.Option(
            help="Where sampled-softmax and bce take negatives from: uniform, "
            "popularity, in-batch, or mixed (in-batch and uniform).",
            show_default="uniform",
        ),
    ] = None,
    num_negatives: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Items that a sampled loss draws.",
            show_default="256, or 1 with bce",
        ),
    ] = None,
    shared_by: Annotated[
        str | None,
        typer.Option(
            help="Who shares a draw of negatives: batch (the fastest), row or query.",
            show_default="by loss",
        ),
    ] = None,
    correct_sampling: Annotated[
        bool | None,
        typer.Option(
            "--correct-sampling/--no-correct-sampling",
            help="Whether sampled-softmax estimates the full softmax.",
            show_default="it does",
        ),
    ] = None,
    windows: Annotated[
        str,
        typer.Option(
            help="How histories longer than --max-length are cut: all (end to end), "
            "sliding (overlapping, so that every target sees many items) or newest."
        ),
    ] = "all",
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Items between sliding windows.",
            show_default="half of --max-length",
        ),
    ] = None,
    cut_histories: Annotated[
        float,
        typer.Option(
            help="Share of the training rows of each step whose histories are cut into "
            "pieces, so that users of few events are learned, such as 0.5."
        ),
    ] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without improvement before stopping.")
    ] = 10,
    validation_users: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="At most so many users choose the best epoch.",
            show_default="all, or 100,000 with --shards",
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Packed rows of --max-length items a batch.")
    ] = 32,
    learning_rate: Annotated[
        float, typer.Option(help="Of Adam; the highest one, where it changes.")
    ] = 1e-3,
    schedule: Annotated[
        str,
        typer.Option(
            help="Learning rate: constant, or cosine, which ends at 0 with --epochs."
        ),
    ] = "constant",
    warmup_steps: Annotated[
        int, typer.Option(min=0, help="Batches over which the learning rate rises.")
    ] = 0,
    weight_decay: Annotated[
        float, typer.Option(help="Of AdamW, on kernels only; 0 is Adam.")
    ] = 0.0,
    ema: Annotated[
        float,
        typer.Option(
            help="Average the weights over the steps, such as 0.99; 0 does not."
        ),
    ] = 0.0,
    precision: Annotated[
        str,
        typer.Option(
            help="What layers compute in: float32, mixed_bfloat16 or mixed_float16 "
            "(of use on GPUs). The trained model is float32."
        ),
    ] = "float32",
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed, the same model.")
    ] = 0,
    attention_images: Annotated[
        int,
        typer.Option(
            min=0,
            help="Histories whose attention TensorBoard shows after every epoch.",
        ),
    ] = 0,
    strategy: Annotated[
        str,
        typer.Option(
            help="Where: single, mirrored (all GPUs of this machine), or multi-worker "
            "(the machines of TF_CONFIG; run the command on each, with one --output "
            "that all of them see)."
        ),
    ] = "single",
    cluster_timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the other workers.")
    ] = 300.0,
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
    from tfrs_selfattn.cli._features import asked_features, read_side_information
    from tfrs_selfattn.cli._report import Report, shell
    from tfrs_selfattn.cli._steps import (
        check_images,
        create_run,
        fit,
        one_of,
        prepare,
        start_strategy,
    )
    from tfrs_selfattn.cli._training_options import configurations

    started = time.perf_counter()
    report = Report(as_json)
    asked = asked_features(
        training.FeaturesConfig(
            item_features or "",
            user_features or "",
            context_features or "",
            event_features or "",
        )
    )
    path = one_of(data, shards)
    try:
        # All that shapes the model and its training is read from `context`.
        model_config, training_config = configurations(context)
        check_choice("strategy", strategy, training.STRATEGIES)
        check_positive("cluster_timeout", cluster_timeout)
    except ValueError as error:
        raise InputError(str(error)) from None
    training.check_output(output)
    if strategy == "multi-worker":
        training.Cluster.from_environment()  # before hours of reading
    source = training.DataConfig(
        path=str(path.absolute()),
        user_column=user_column,
        item_column=item_column,
        time_column=time_column,
        min_item_events=min_item_events,
    )
    with report.working():
        prepared = prepare(
            report,
            source,
            items=items,
            title_column=title_column,
            columns=asked.columns,
            training=training_config,
        )
        features, side = read_side_information(report, asked, source, prepared)
        if attention_images:
            check_images(
                report, attention_images, model_config.preset, event_features or ""
            )
        distribution = start_strategy(report, strategy, cluster_timeout)
        folder = create_run(
            report,
            output,
            prepared,
            source,
            model_config,
            training_config,
            features,
            side,
            distribution,
        )
        result = fit(
            report,
            folder,
            side.attach(prepared.split),
            prepared.rows,
            attention_images=attention_images,
            strategy=distribution,
            # Of the whole log, of which shards leave the most on disk.
            item_counts=prepared.train_counts()[1:].tolist() if negatives else None,
        )
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
