"""What `evaluate` and `quickstart` measure, print and note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._clock import moment
from tfrs_selfattn.cli._report import Report

if TYPE_CHECKING:
    from tfrs_selfattn.data import Split
    from tfrs_selfattn.evaluation import Comparison, Group, Interval, RankingResult
    from tfrs_selfattn.models import SequenceRetrieval

# In the order of the table, whose columns `quickstart` cuts after the second.
METRICS = ("hr@10", "ndcg@10", "mrr", "map@10", "coverage@10", "novelty@10")
SHORT = METRICS[:2]
_HEADS = {
    "hr@10": "HR@10",
    "ndcg@10": "NDCG@10",
    "mrr": "MRR",
    "map@10": "MAP@10",
    "coverage@10": "cover@10",
    "novelty@10": "novel@10",
}
_LABELS = {
    "popularity": "most popular",
    "item_to_item": "item-to-item transitions",
    "item_knn": "item-KNN",
    "ease": "EASE",
    "model": "model",
}
QUICK_BASELINES = ("popularity", "item_to_item")
ALL_BASELINES = (*QUICK_BASELINES, "item_knn", "ease")
# Beyond these numbers of items, fitting takes minutes.
_MAX_ITEMS = {"item_knn": 50_000, "ease": 5_000}


def evaluate_all(
    report: Report,
    model: SequenceRetrieval,
    split: Split,
    *,
    filter_seen: bool,
    baselines: Sequence[str] = ALL_BASELINES,
) -> dict[str, RankingResult]:
    """Test metrics of the baselines and of the model, which comes last."""
    if not len(split.test):
        raise InputError(
            "At least one user with 3 or more events is needed, to evaluate on. "
            "Received: none. Use a log with longer histories."
        )
    num_items = len(split.sequences.vocabulary)
    results = {}
    for name in baselines:
        if num_items > _MAX_ITEMS.get(name, num_items):
            report.say(
                f"Without {_LABELS[name]}, which takes long for more than "
                f"{_MAX_ITEMS[name]:,} items"
            )
            continue
        with report.waiting(f"Fitting {_LABELS[name]}"):
            score = _fit_baseline(name, split)
        results[name] = evaluate_one(report, name, score, split, filter_seen)
        del score  # EASE holds N × N weights.
    results["model"] = evaluate_one(report, "model", model.scorer(), split, filter_seen)
    return results


def _fit_baseline(name: str, split: Split) -> Callable[..., Any]:
    from tfrs_selfattn import evaluation

    classes: dict[str, Callable[[Split], Callable[..., Any]]] = {
        "popularity": evaluation.MostPopular,
        "item_to_item": evaluation.ItemToItem,
        "item_knn": evaluation.ItemKNN,
        "ease": evaluation.EASE,
    }
    return classes[name](split)


def evaluate_one(
    report: Report,
    name: str,
    score: Callable[..., Any],
    split: Split,
    filter_seen: bool,
) -> RankingResult:
    """Test metrics of one scoring function, behind a progress bar."""
    from tfrs_selfattn.evaluation import evaluate_ranking

    with report.progress(f"Evaluating {_LABELS.get(name, name)}") as progress:
        return evaluate_ranking(
            score,
            split.test,
            filter_seen=filter_seen,
            item_counts=split.train_counts()[1:],
            progress=progress,
        )


def print_metrics(
    report: Report,
    results: dict[str, RankingResult],
    split: Split,
    filter_seen: bool,
    metrics: Sequence[str] = METRICS,
) -> None:
    """The one table: every model, its metrics, and under which protocol."""
    items = len(split.sequences.vocabulary)
    report.table(
        ("", *(_HEADS[metric] for metric in metrics)),
        [
            (_LABELS[name], *(_shown(metric, result.metrics) for metric in metrics))
            for name, result in results.items()
        ],
    )
    seen = "left out" if filter_seen else "kept in"
    report.say(
        f"{split_of(split.times)[0].upper()}{split_of(split.times)[1:]}: test of "
        f"{len(split.test):,} users, ranked among all {items:,} items, seen items "
        f"{seen}, ties counted against the model."
    )
    if "novelty@10" in metrics:
        report.say(
            "With one target a user MAP@10 is MRR@10. cover@10: share of the items "
            "that anybody was recommended; novel@10: their mean self-information, bits."
        )


def split_of(times: tuple[int, int] | None) -> str:
    """What was held out, in words; of `Split.times`."""
    if times is None:
        return "leave-one-out"
    validation, test = times
    return (
        f"split by the clock (training before {moment(validation)}, test from "
        f"{moment(test)} on)"
    )


def split_json(times: tuple[int, int] | None) -> dict[str, Any]:
    """The same for machines."""
    if times is None:
        return {"kind": "leave-one-out"}
    return {"kind": "clock", "validation_time": times[0], "test_time": times[1]}


def print_intervals(report: Report, intervals: dict[str, Interval]) -> None:
    """How far the model's metrics would move with other users."""
    parts = [
        f"{_HEADS[metric]} {interval.low:.4f}–{interval.high:.4f}"
        for metric, interval in intervals.items()
    ]
    report.say(f"Model, 95 % intervals over users: {', '.join(parts)}.")


def print_groups(report: Report, groups: dict[str, Sequence[Group]]) -> None:
    """The model's metrics by what cases have in common, in one table."""
    shown = METRICS[:4]
    report.table(
        ("model, users by", "", "users", *(_HEADS[metric] for metric in shown)),
        [
            (
                title if number == 0 else "",
                group.label,
                f"{group.cases}",
                *(_shown(metric, group.metrics) for metric in shown),
            )
            for title, members in groups.items()
            for number, group in enumerate(members)
        ],
    )


def print_comparison(report: Report, comparison: dict[str, Comparison]) -> None:
    """The model beside that of another run, with what chance would do."""
    report.table(
        ("paired test", "other run", "this run", "difference", "95 % interval", "p"),
        [
            (
                _HEADS[metric],
                f"{found.a:.4f}",
                f"{found.b:.4f}",
                f"{found.difference:+.4f}",
                f"{found.low:+.4f} to {found.high:+.4f}",
                f"{found.p_value:.4f}",
            )
            for metric, found in comparison.items()
        ],
    )


def metrics_json(
    results: dict[str, RankingResult], metrics: Sequence[str] = METRICS
) -> dict[str, dict[str, float]]:
    """The metrics of every model as plain numbers."""
    return {
        name: {metric: result.metrics[metric] for metric in metrics}
        for name, result in results.items()
    }


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Named dataclasses, or lists of them, as JSON takes them."""
    return {
        name: [asdict(one) for one in value]
        if isinstance(value, list | tuple)
        else asdict(value)
        for name, value in values.items()
    }


def _shown(metric: str, metrics: dict[str, float]) -> str:
    return f"{metrics[metric]:.{2 if metric.startswith('novelty') else 4}f}"
