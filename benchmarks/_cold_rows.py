"""What `cold_start.py` measured: rows of a table, and their summary."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("cold_start.csv")
# A method that has rows of this is measured.
KEY = ("dataset", "seed", "method", "features", "settings")


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


def print_summary(dataset: str, settings: str, features: dict[str, str]) -> None:
    """A table of HR / NDCG with the spread over seeds behind each."""
    rows = [
        row
        for row in read_rows()
        if (row["dataset"], row["settings"]) == (dataset, settings)
        and row["features"] == features.get(row["method"])
    ]
    methods = [name for name in features if any(r["method"] == name for r in rows)]
    print(f"\n{dataset}, {settings}\n\n| | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 1) + "|")
    for case in dict.fromkeys(row["case"] for row in rows):
        cells = []
        for method in methods:
            mine = [r for r in rows if (r["method"], r["case"]) == (method, case)]
            cells.append(" / ".join(_mean(mine, name) for name in ("hr@10", "ndcg@10")))
        print(f"| {case} | " + " | ".join(cells) + " |")
    print(f"\nseeds {sorted({row['seed'] for row in rows})}")


def _mean(rows: list[dict[str, str]], name: str) -> str:
    values = [float(row[name]) for row in rows]
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"
