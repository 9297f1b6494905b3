"""`tfrs-selfattn explain`: what each item of a history did for a recommendation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._told import EVENT_FEATURE_HELP, FEATURE_HELP, parse_told
from tfrs_selfattn.cli.recommend import split_ids

if TYPE_CHECKING:
    from tfrs_selfattn.cli._reasons import Attention, ExportReasons, RunReasons
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.export import Contribution

_WHAT = {
    "leave_one_out": "What its score loses without",
    "integrated_gradients": "Shares of its score above that of average items",
    "attention_rollout": "Where the model looked, which need not be what counted",
}


def explain(
    base: Annotated[
        Path,
        typer.Argument(help="Folder given to `export --to`, or written by `train`."),
    ],
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
    feature: Annotated[list[str] | None, typer.Option(help=FEATURE_HELP)] = None,
    event_feature: Annotated[
        list[str] | None, typer.Option(help=EVENT_FEATURE_HELP)
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="leave_one_out; of a run folder also integrated_gradients and "
            "attention_rollout."
        ),
    ] = "leave_one_out",
    limit: Annotated[
        int,
        typer.Option(min=1, help="Print so many items, those that count most."),
    ] = 20,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw all of them into a picture, such as why.png."),
    ] = None,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention",
            help="Of a run folder: print where each of the newest items looked.",
        ),
    ] = False,
    attention_plot: Annotated[
        Path | None,
        typer.Option(help="Of a run folder: draw that into a picture."),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Whose attention: 1 looks at the items themselves.",
            show_default="the last",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Say what each item of a history did for a score.

    The number is what the score loses when the item is taken out of the history: exact
    for the model, and no share of a whole. Attention says where the model looked, and
    neither how much that changed nor which way.

    \b
    Example:
        tfrs-selfattn explain models/films --history "50,172,181" --plot why.png
        tfrs-selfattn explain run --history "50,172,181" --attention
    """
    from tfrs_selfattn.cli._reasons import METHODS, reasons
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli.recommend import parse_times

    if method not in METHODS:
        raise InputError(
            f"--method must be one of {', '.join(METHODS)}. Received: {method!r}. Use "
            "leave_one_out, which is exact."
        )
    report = Report(as_json)
    past = split_ids(history)
    given: dict[str, Any] = {"timestamps": [parse_times(times)]} if times else {}
    with report.working():
        source = reasons(report, base)
        given |= parse_told(feature or [], event_feature or [], source.inputs)
        unknown = source.unknown(past)
        if len(unknown) == len(past):
            raise InputError(
                "--history must hold an item that the model knows. Received: "
                f"{history!r}. Without one the most popular items are recommended, for "
                "which no item of the history is the reason."
            )
        item = source.best(past, **given) if item is None else item
        if item is None:
            raise InputError(
                "There must be something to explain. Received: a history after which "
                "nothing is left to recommend. Name an item with --item."
            )
        looks = None
        if attention or attention_plot is not None:
            looks = source.attention(past, block, **given)
        found = source.contributions(past, item, method, **given)
        name = source.title(item) or item
        _print(report, f"Why {name}? {_WHAT[method]}", found, limit)
        if attention and looks is not None:
            _print_attention(report, looks, limit)
        if plot is not None:
            _draw(report, f"Why {name}?", found, plot)
        if attention_plot is not None and looks is not None:
            _draw_attention(report, looks, attention_plot)
    report.result(_result(source, item, found, unknown, method, looks))


def _result(
    source: ExportReasons | RunReasons,
    item: str,
    found: Sequence[Contribution],
    unknown: list[str],
    method: str,
    looks: Attention | None,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "item": {"id": item, "title": source.title(item)},
        "contributions": [
            {"id": one.id, "title": one.title, "contribution": one.contribution}
            for one in found
        ],
        "unknown": unknown,
        "method": method,
    }
    if looks is not None:
        result["attention"] = {
            "block": looks.block,
            "labels": looks.labels,
            "weights": looks.weights.tolist(),
        }
    return result


def _print(
    report: Report, title: str, found: Sequence[Contribution], limit: int
) -> None:
    """The items that count most, in the order of the history, with bars."""
    from tfrs_selfattn.cli._drawing import bar

    report.say(title)
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


def _print_attention(report: Report, looks: Attention, limit: int) -> None:
    """The heat map of the newest items, in characters."""
    from tfrs_selfattn.cli._drawing import shaded_rows

    report.say(f"Where block {looks.block} looked, the mean of its heads")
    report.table(
        ("", "this item looks at …", "… these, oldest first", "most at"),
        shaded_rows(looks.weights, looks.labels, limit),
    )
    if len(looks.labels) > limit:
        report.say(f"The newest {limit} of {len(looks.labels)} items are shown")


def _draw(
    report: Report, title: str, found: Sequence[Contribution], path: Path
) -> None:
    from tfrs_selfattn.explain import bar_plot

    bar_plot(
        [one.contribution for one in found],
        [one.title or one.id for one in found],
        title=title,
        path=path,
    )
    report.say(f"Drawn to {path}")


def _draw_attention(report: Report, looks: Attention, path: Path) -> None:
    from tfrs_selfattn.explain import heat_map

    heat_map(
        looks.weights,
        looks.labels,
        title=f"Where block {looks.block} looked, the mean of its heads",
        path=path,
    )
    report.say(f"Drawn to {path}")
