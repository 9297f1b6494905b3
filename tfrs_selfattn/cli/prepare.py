"""`tfrs-selfattn prepare`: event logs in, a folder to train from out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._beam import Runner, check_beam, refuse_more

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report


def prepare(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="Events: a .csv, .tsv, .parquet or .avro file or a folder of them; "
            "with --runner also a pattern such as gs://bucket/events/*.parquet."
        ),
    ],
    output: Annotated[
        str, typer.Option(help="Folder to write: new, or prepared before.")
    ],
    user_column: Annotated[str, typer.Option(help="Column of users.")] = "user_id",
    item_column: Annotated[str, typer.Option(help="Column of items.")] = "item_id",
    time_column: Annotated[
        str, typer.Option(help="Column of times: Unix seconds or ISO dates.")
    ] = "timestamp",
    max_length: Annotated[
        int, typer.Option(min=1, help="Items of a training row; that of `train`.")
    ] = 200,
    num_shards: Annotated[
        int,
        typer.Option(
            min=1, help="Files of the result; a million events each are well."
        ),
    ] = 16,
    windows: Annotated[
        str, typer.Option(help="As of `train`: all, sliding or newest.")
    ] = "all",
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Items between sliding windows.",
            show_default="half of --max-length",
        ),
    ] = None,
    times: Annotated[
        bool,
        typer.Option(
            "--times/--no-times", help="Write times too, for a time-aware model."
        ),
    ] = False,
    min_item_events: Annotated[
        int, typer.Option(min=1, help="Drop items with fewer events.")
    ] = 1,
    max_user_events: Annotated[
        int, typer.Option(min=1, help="Keep the newest so many events of a user.")
    ] = 10_000,
    validation_time: Annotated[
        int | None,
        typer.Option(
            help="Unix time at which training ends, with --test-time.",
            show_default="hold out the last two events of every user",
        ),
    ] = None,
    test_time: Annotated[
        int | None, typer.Option(help="Unix time at which validation ends.")
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(help="Share of the rows that may be unreadable.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same rows.")] = 0,
    runner: Runner = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Prepare an event log for training: vocabulary, sequences, splits, packed rows.

    For logs that are larger than memory, or shared by many runs: `train --shards`
    streams the rows of the folder. Rows that cannot be read are written to its folder
    `rejected`, with the reason. Repeating the command replaces the result at once.

    \b
    Example:
        tfrs-selfattn prepare --data events/ --output prepared
        tfrs-selfattn train --shards prepared --output run
    """
    from tfrs_selfattn.cli._report import Report, shell

    started = time.perf_counter()
    report = Report(as_json)
    columns = {
        "user_column": user_column,
        "item_column": item_column,
        "time_column": time_column,
    }
    options: dict[str, Any] = {
        "row_length": max_length,
        "num_shards": num_shards,
        "windows": windows,
        "stride": stride,
        "times": times,
        "seed": seed,
        "min_item_events": min_item_events,
        "max_user_events": max_user_events,
        "validation_time": validation_time,
        "test_time": test_time,
        "max_rejected": max_rejected,
    }
    with report.working():
        if runner is None:
            refuse_more(context)
            manifest = _in_process(report, data, output, columns, options)
        else:
            manifest = _on_beam(
                report, data, output, columns, options, runner, context.args
            )
    _describe(report, manifest, output)
    report.say()
    report.commands(
        {"Train on it": shell("tfrs-selfattn", "train", "--shards", output)}
    )
    seconds = round(time.perf_counter() - started, 1)
    counts = {
        name: value
        for name, value in manifest.items()
        if name not in ("format", "kind", "options", "files")
    }
    report.result({"prepared": output, **counts, "seconds": seconds})


def _in_process(
    report: Report,
    data: str,
    output: str,
    columns: dict[str, str],
    options: dict[str, Any],
) -> dict[str, Any]:
    from tfrs_selfattn.data import prepare_events, read_events

    events = read_events(data, **columns)
    with report.progress("Preparing") as progress:
        try:
            log = prepare_events(events, output, progress=progress, **options)
        except ValueError as error:
            raise InputError(str(error)) from None
    manifest: dict[str, Any] = log.manifest
    return manifest


def _on_beam(
    report: Report,
    data: str,
    output: str,
    columns: dict[str, str],
    options: dict[str, Any],
    runner: str,
    arguments: list[str],
) -> dict[str, Any]:
    from tfrs_selfattn.data import read_events
    from tfrs_selfattn.data._preparation import PrepareOptions

    check_beam()
    from tfrs_selfattn.beam.prepare import Source, prepare_on_beam

    try:
        prepared = PrepareOptions(**options)
    except ValueError as error:
        raise InputError(str(error)) from None
    if "://" in data:
        source = Source.of_pattern(data, **columns)
    else:
        source = Source.of_events(read_events(Path(data).absolute(), **columns))
    with report.waiting(f"Preparing on {runner}"):
        manifest: dict[str, Any] = prepare_on_beam(
            source, output, prepared, runner=runner, arguments=arguments
        )
    return manifest


def _describe(report: Report, manifest: dict[str, Any], output: str) -> None:
    report.say(
        f"{manifest['events']:,} events of {manifest['users']:,} users with "
        f"{manifest['items']:,} items: {manifest['train_rows']:,} training rows, "
        f"{manifest['validation']:,} validation and {manifest['test']:,} test cases"
    )
    left_out = {
        "rejected": f"rows could not be read; see {output}/{manifest['generation']}"
        "/rejected",
        "beyond_newest": "older events of users with more than --max-user-events",
        "rare": "events of items with fewer than --min-item-events",
        "duplicate_events": "events repeat another one (same user, item and time); "
        "they are kept",
    }
    for name, text in left_out.items():
        if manifest[name]:
            report.say(f"  {manifest[name]:,} {text}")
