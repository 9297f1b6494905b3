"""`tfrs-selfattn explain`: what each item of a history did for a recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli.recommend import split_ids

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.export import Contribution, Recommender

_HALF_WIDTH = 16  # of a bar, in characters
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def explain(
    base: Annotated[Path, typer.Argument(help="Folder given to `export --to`.")],
    history: Annotated[
        str, typer.Option(help="Item ids, oldest first, separated by commas.")
    ],
    item: Annotated[
        str | None,
        typer.Option(help="The item to explain.", show_default="the first recommended"),
    ] = None,
    times: Annotated[
        str,
        typer.Option(
            help="Unix times of the history's items, for a time-aware model; the "
            "request is made now."
        ),
    ] = "",
    limit: Annotated[
        int,
        typer.Option(min=1, help="Print so many items, those that count most."),
    ] = 20,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw all of them into a picture, such as why.png."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Say how much each item of a history did for the score of an item.

    The number is what the score loses when the item is taken out of the history: exact
    for the model, and no share of a whole.

    \b
    Example:
        tfrs-selfattn explain models/films --history "50,172,181" --plot why.png
    """
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._tensorflow import start_tensorflow
    from tfrs_selfattn.cli.recommend import parse_times

    report = Report(as_json)
    past = split_ids(history)
    given = {"timestamps": [parse_times(times)]} if times else {}
    with report.working():
        with report.waiting("Loading the export"):
            start_tensorflow()
            from tfrs_selfattn.export import load_recommender

            recommender = load_recommender(str(base))
        if len(recommender.unknown(past)) == len(past):
            raise InputError(
                "--history must hold an item that the model knows. Received: "
                f"{history!r}. Without one the most popular items are recommended, for "
                "which no item of the history is the reason."
            )
        if item is None:
            answer = recommender.recommend([past], **given)[0]
            if not answer:
                raise InputError(
                    "There must be something to explain. Received: a history after "
                    "which nothing is left to recommend. Name an item with --item."
                )
            item = answer[0].id
        (found,) = recommender.explain([past], [item], **given)
        _print(report, recommender, item, found, limit)
        if plot is not None:
            _draw(report, recommender, item, found, plot)
    report.result(
        {
            "item": {"id": item, "title": recommender.title(item)},
            "contributions": [
                {"id": one.id, "title": one.title, "contribution": one.contribution}
                for one in found
            ],
            "unknown": recommender.unknown(past),
            "method": "leave_one_out",
        }
    )


def _print(
    report: Report,
    recommender: Recommender,
    item: str,
    found: Sequence[Contribution],
    limit: int,
) -> None:
    """The items that count most, in the order of the history, with bars."""
    report.say(f"Why {_name(recommender, item)}? What its score loses without")
    strongest = sorted(
        range(len(found)), key=lambda place: -abs(found[place].contribution)
    )[:limit]
    largest = max(abs(one.contribution) for one in found) or 1.0
    rows = [
        (
            one.id,
            one.title or "",
            f"{one.contribution:+.3f}",
            bar(one.contribution / largest),
        )
        for place, one in enumerate(found)
        if place in strongest
    ]
    report.table(("item", "title", "contribution", "against │ for"), rows)
    if len(found) > len(rows):
        rest = sum(one.contribution for one in found) - sum(float(r[2]) for r in rows)
        report.say(
            f"{len(found) - len(rows)} items that count less are not shown; their "
            f"contributions sum to {rest:+.3f}"
        )


def bar(share: float) -> str:
    """A bar for a number from -1 to 1, to the left or to the right of an axis."""
    eighths = round(abs(share) * _HALF_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    if share >= 0:
        return " " * _HALF_WIDTH + "│" + "█" * full + _EIGHTHS[rest].strip()
    # There are no blocks that grow from the right; a half is the nearest.
    left = ("▐" if rest >= 4 else "") + "█" * full
    return f"{left:>{_HALF_WIDTH}}│"


def _draw(
    report: Report,
    recommender: Recommender,
    item: str,
    found: Sequence[Contribution],
    path: Path,
) -> None:
    from tfrs_selfattn.explain import bar_plot

    bar_plot(
        [one.contribution for one in found],
        [one.title or one.id for one in found],
        title=f"Why {_name(recommender, item)}?",
        path=path,
    )
    report.say(f"Drawn to {path}")


def _name(recommender: Recommender, item: str) -> str:
    return recommender.title(item) or item
