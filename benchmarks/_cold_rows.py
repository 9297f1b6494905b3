"""What `cold_start.py` measured: rows of a table, and their summary."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("cold_start.csv")
# A method that has rows of this is measured.
KEY = ("dataset", "seed", "method", "features", "settings")
_METRICS = ("hr@10", "ndcg@10")
# What is aimed at, as ratios: a case, and the methods whose better one is the measure.
_AIMS = (
    ("cold, all", ("popularity", "content neighbours")),
    ("cold, new", ("popularity", "content neighbours")),
    ("cold, new", ("popularity, told",)),
    ("warm", ("ids",)),
    ("warm, 1 event", ("item-to-item",)),
)
MODELS = ("ids", "content", "users", "vectors")


def read_rows() -> list[dict[str, str]]:
    """All rows, of every run of the benchmark."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_rows(rows: list[dict[str, Any]]) -> None:
    """Adds rows; those that are there stay, whatever came of them."""
    new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def print_summary(dataset: str, asked: dict[str, tuple[str, str]]) -> None:
    """A table of HR / NDCG with the spread over seeds behind each.

    Args:
        dataset: whose rows.
        asked: the methods, each with the `features` and `settings` of its rows.
    """
    rows = [
        row
        for row in read_rows()
        if row["dataset"] == dataset
        and (row["features"], row["settings"]) == asked.get(row["method"])
    ]
    methods = [name for name in asked if any(r["method"] == name for r in rows)]
    for settings in dict.fromkeys(settings for _, settings in asked.values()):
        under = [name for name in methods if asked[name][1] == settings]
        if under and settings != "{}":
            print(f"\n{dataset}, {', '.join(under)}: {settings}")
    print("\n| | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for case in dict.fromkeys(row["case"] for row in rows):
        cells = []
        for method in methods:
            mine = [r for r in rows if (r["method"], r["case"]) == (method, case)]
            cells.append(" / ".join(_mean(mine, name) for name in _METRICS))
        print(f"| {case} | " + " | ".join(cells) + " |")
    print(f"\nseeds {sorted({row['seed'] for row in rows})}")
    models = [name for name in MODELS if name in methods]
    if models:
        print(f"\n| each seed's ratio | {' | '.join(models)} |")
        print("|---" * (len(models) + 1) + "|")
        for case, measures in _AIMS:
            cells = [
                " / ".join(
                    _spread(ratios(rows, case, model, measures, name), 2)
                    for name in _METRICS
                )
                for model in models
            ]
            against = " and ".join(measures)
            better = "the better of " if len(measures) > 1 else ""
            print(f"| {case}, of {better}{against} | {' | '.join(cells)} |")


def ratios(
    rows: list[dict[str, str]],
    case: str,
    method: str,
    measures: tuple[str, ...],
    metric: str,
) -> list[float]:
    """A method's metric as a multiple of the better of others, for each seed.

    A seed of which a row is missing has none, and so has one where the others are at 0.
    """
    by_seed: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["case"] == case:
            mine = by_seed.setdefault(row["seed"], {})
            mine[row["method"]] = float(row[metric])
    found = []
    for mine in by_seed.values():
        if {method, *measures} <= mine.keys():
            best = max(mine[name] for name in measures)
            if best > 0:
                found.append(mine[method] / best)
    return found


def _mean(rows: list[dict[str, str]], name: str) -> str:
    return _spread([float(row[name]) for row in rows], 4)


def _spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation; of one value no deviation."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
