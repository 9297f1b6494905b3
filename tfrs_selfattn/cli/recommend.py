"""`tfrs-selfattn recommend`: asks an exported SavedModel, and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.export import Recommendation, Recommender


def recommend(
    base: Annotated[Path, typer.Argument(help="Folder given to `export --to`.")],
    history: Annotated[
        str,
        typer.Option(
            help="Item ids, oldest first, separated by commas; quote an id that holds "
            "one: '\"a,b\",c'."
        ),
    ],
    exclude: Annotated[
        str, typer.Option(help="Item ids to leave out, separated by commas.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="Print at most so many.")] = 10,
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
    """Recommend the next items for a history, from an export alone.

    Ids that the model does not know are passed over; when it knows none of them, the
    answer is the most popular items.

    \b
    Example:
        tfrs-selfattn recommend models/films --history "50,172,181"
    """
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._tensorflow import start_tensorflow
    from tfrs_selfattn.data import read_titles

    report = Report(as_json)
    titles = None
    if items is not None:
        titles = read_titles(items, item_column=item_column, title_column=title_column)
    with report.working():
        with report.waiting("Loading the export"):
            start_tensorflow()
            from tfrs_selfattn.export import load_recommender

            recommender = load_recommender(base, titles=titles)
        past = split_ids(history)
        answers = recommender.recommend([past], exclude=[split_ids(exclude)])[0][:limit]
        print_answer(report, recommender, past, answers)
    unknown = recommender.unknown(past)
    report.result(
        {
            "history": past,
            "unknown": unknown,
            "most_popular": len(unknown) == len(past),
            "recommendations": [
                {"id": item.id, "score": item.score, "title": item.title}
                for item in answers
            ],
        }
    )


def split_ids(text: str) -> list[str]:
    """Splits ids at commas, as a line of CSV, and drops the blanks around them."""
    row: list[str] = next(csv.reader([text], skipinitialspace=True), [])
    return [item.strip() for item in row if item.strip()]


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
        report.say("No item of the history is known: these are the most popular items")
    if history:
        report.table(
            ("last items", "title"),
            [(item, recommender.title(item) or "") for item in history[-last:]],
        )
    report.table(
        ("recommended", "title", "score"),
        [(item.id, item.title or "", f"{item.score:.3f}") for item in answers],
    )
