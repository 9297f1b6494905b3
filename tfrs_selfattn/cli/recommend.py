"""`tfrs-selfattn recommend`: asks an exported SavedModel, or a server that has it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._asked import (
    BaseArgument,
    ModelOption,
    ModelVersionOption,
    ServerOption,
    as_version,
    check_asked,
)
from tfrs_selfattn.cli._told import EVENT_FEATURE_HELP, FEATURE_HELP, parse_told

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.export import Recommendation, Recommender

_SECONDS = 5.0  # for the answer of a server


def recommend(
    base: BaseArgument = None,
    history: Annotated[
        str,
        typer.Option(
            help="Item ids, oldest first, separated by commas; quote an id that holds "
            "one: '\"a,b\",c'."
        ),
    ] = ...,  # type: ignore[assignment]
    exclude: Annotated[
        str, typer.Option(help="Item ids to leave out, separated by commas.")
    ] = "",
    times: Annotated[
        str,
        typer.Option(
            help="Unix times of the history's items, for a time-aware model; the "
            "request is made now."
        ),
    ] = "",
    feature: Annotated[list[str] | None, typer.Option(help=FEATURE_HELP)] = None,
    event_feature: Annotated[
        list[str] | None, typer.Option(help=EVENT_FEATURE_HELP)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most so many.")] = 10,
    server: ServerOption = None,
    model: ModelOption = "recommender",
    model_version: ModelVersionOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds for the server's answer, all attempts together; 5 unless "
            "told.",
        ),
    ] = None,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            help="Of an `export --shards`, a server of items as HOST:PORT/MODEL, each "
            "in its order; --server and --model then name the query model."
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Answer without the shards that do not, and say which.",
        ),
    ] = False,
    items: Annotated[
        Path | None,
        typer.Option(help="File with titles, in place of those in the export."),
    ] = None,
    item_column: Annotated[
        str, typer.Option(help="Column of items in --items.")
    ] = "item_id",
    title_column: Annotated[
        str, typer.Option(help="Column of titles in --items.")
    ] = "title",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Recommend the next items, from an export or from a server.

    Ids that the model does not know are passed over; when it knows none of them, the
    answer is the most popular items.

    \b
    Example:
        tfrs-selfattn recommend models/films --history "50,172,181"
        tfrs-selfattn recommend --server localhost:8500 --history "50,172,181"
    """
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.data import read_titles

    if (shard or partial) and (server is None or not shard):
        raise InputError(
            "--shard must come with --server, which names the query model, and "
            "--partial with --shard. Received: one without the other. Name all of them."
        )
    check_asked(base, server)
    if server is None and (model_version is not None or timeout is not None):
        raise InputError(
            "--model-version and --timeout must come with --server. Received: no "
            "--server. Name it, or leave them out."
        )
    report = Report(as_json)
    titles: dict[str, str] = {}
    if items is not None:
        titles = read_titles(items, item_column=item_column, title_column=title_column)
    past, left_out = split_ids(history), split_ids(exclude)
    given: dict[str, Any] = {"timestamps": [parse_times(times)]} if times else {}
    told = (feature or [], event_feature or [])
    if server is not None:
        sharding = (shard or [], partial)
        how = {
            "timeout": _SECONDS if timeout is None else timeout,
            "version": as_version(model_version),
        }
        _ask_server(
            report,
            server,
            model,
            how,
            sharding,
            past,
            left_out,
            given,
            told,
            titles,
            limit,
        )
    else:
        _ask_export(report, base, past, left_out, given, told, titles, limit)


def _ask_export(
    report: Report,
    base: Path | None,
    past: list[str],
    left_out: list[str],
    times: dict[str, Any],
    told: tuple[list[str], list[str]],
    titles: dict[str, str],
    limit: int,
) -> None:
    from tfrs_selfattn.cli._tensorflow import start_tensorflow

    with report.working():
        with report.waiting("Loading the export"):
            start_tensorflow()
            from tfrs_selfattn.export import load_recommender

            recommender = load_recommender(str(base), titles=titles)
        times |= parse_told(*told, recommender.inputs)
        answers = recommender.recommend([past], [left_out], **times)[0][:limit]
        print_answer(report, recommender, past, answers)
    unknown = recommender.unknown(past)
    report.result(
        {
            "history": past,
            "unknown": unknown,
            "most_popular": len(unknown) == len(past) and not recommender.knows_users,
            "recommendations": [
                {"id": item.id, "score": item.score, "title": item.title}
                for item in answers
            ],
        }
    )


def _ask_server(
    report: Report,
    server: str,
    model: str,
    how: dict[str, Any],
    sharding: tuple[list[str], bool],
    past: list[str],
    left_out: list[str],
    times: dict[str, Any],
    told: tuple[list[str], list[str]],
    titles: dict[str, str],
    limit: int,
) -> None:
    from tfrs_selfattn.client import ShardedClient, connect

    shards, partial = sharding
    missing: tuple[int, ...] = ()
    if shards:
        with ShardedClient.connect(
            f"{server}/{model}", shards, partial=partial, **how
        ) as many:
            if any(told):
                times |= parse_told(*told, many.inputs())
            (answer,) = many.recommend([past], exclude=[left_out], **times)
        missing = answer.missing
    else:
        with connect(server, model=model, **how) as client:
            if any(told):
                times |= parse_told(*told, client.inputs())
            (answer,) = client.recommend([past], exclude=[left_out], **times)
    if missing:
        report.say(
            "A partial answer, without the items of shard "
            + ", ".join(shards[number] for number in missing)
        )
    items = answer.items[:limit]
    if answer.version is not None:
        report.say(f"Version {answer.version} of {model} answers")
    report.table(
        ("recommended", "title", "score"),
        [(item.id, titles.get(item.id, ""), f"{item.score:.3f}") for item in items],
    )
    report.result(
        {
            "history": past,
            "version": answer.version,
            **({"missing_shards": list(missing)} if shards else {}),
            "recommendations": [
                {"id": item.id, "score": item.score, "title": titles.get(item.id)}
                for item in items
            ],
        }
    )


def split_ids(text: str) -> list[str]:
    """Splits ids at commas, as a line of CSV, and drops the blanks around them."""
    row: list[str] = next(csv.reader([text], skipinitialspace=True), [])
    return [item.strip() for item in row if item.strip()]


def parse_times(text: str) -> list[int]:
    """The Unix seconds of `--times`."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            "--times must hold Unix seconds, whole numbers between commas. Received: "
            f"{text!r}. Give one for each item of --history."
        ) from None


def print_answer(
    report: Report,
    recommender: Recommender,
    history: Sequence[str],
    answers: Sequence[Recommendation],
    last: int = 5,
) -> None:
    """The end of a history and what is recommended after it, with titles."""
    unknown = recommender.unknown(history)
    if unknown:
        report.say(f"Unknown to the model and ignored: {', '.join(unknown)}")
    if len(unknown) == len(history):
        report.say(
            "No item of the history is known: what else is known answers, if anything"
            if recommender.knows_users
            else "No item of the history is known: these are the most popular items"
        )
    if history:
        report.table(
            ("last items", "title"),
            [(item, recommender.title(item) or "") for item in history[-last:]],
        )
    report.table(
        ("recommended", "title", "score"),
        [(item.id, item.title or "", f"{item.score:.3f}") for item in answers],
    )
