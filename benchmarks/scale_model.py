"""What each size needs: the cost model of docs/scale.md, from measured constants.

    python benchmarks/scale_model.py
    python benchmarks/scale_model.py --write docs/scale.md --plot docs/images/scale.png

Times and bytes were measured in this project, on two cores, and are read from
benchmarks/README.md (`_scale_constants.py`); operations are counted. What is computed
from them (`_scale_costs.py`) is an estimate, and says from what. `--write` replaces the
tables of the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._pages import replace_tables
from benchmarks._scale_constants import CONSTANTS, Measured, constant
from benchmarks._scale_costs import (
    ANSWERS,
    HISTORY,
    LENGTH,
    MANY,
    NEGATIVES,
    SIZES,
    WIDTH,
    Size,
    data,
    encoder_flop,
    loss_flop,
    scanned,
    serving,
    tower_flop,
    training,
    wire,
)


def quantity(value: float, unit: str = "B") -> str:
    """1.2e9 as "1.2 GB"."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def hours(value: float) -> str:
    if value < 1 / 60:
        return f"{value * 3600:.2g} s"
    if value < 2:
        return f"{value * 60:.3g} min"
    return f"{value:.3g} h" if value < 1e4 else f"{value / 8760:.3g} years"


def between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def count(value: float) -> str:
    return f"{max(1, round(value)):,}"


def shown(measured: Measured) -> str:
    value, unit = measured.value, measured.unit
    return quantity(value, unit) if unit.startswith("B") else f"{value:.3g} {unit}"


def tables() -> Iterator[str]:
    """Every table of the page, in its order."""
    yield _table(
        ("measured, on two cores", "", "section"),
        [
            (each.what, shown(each).strip(), f"{each.section}")
            for each in CONSTANTS.values()
        ],
    )
    bytes_of = wire()
    partitioned = scanned(MANY)
    yield _table(
        ("counted, width 64, two blocks, float32", "", "from"),
        [
            (
                "an event in training, the encoder",
                quantity(encoder_flop(), "FLOP"),
                f"rows of {LENGTH}, forward and backward",
            ),
            (
                "its loss, over all of a million items",
                quantity(loss_flop(MANY), "FLOP"),
                "6 D an item",
            ),
            (
                f"its loss, over {NEGATIVES} negatives",
                quantity(loss_flop(NEGATIVES), "FLOP"),
                "the same",
            ),
            (
                "an item in weights and Adam's moments",
                quantity(12.0 * WIDTH),
                "3 · 4 D; Adam reads and writes it in each step",
            ),
            (
                "an item in the index",
                quantity(4 * WIDTH * constant("index_factor")),
                "4 D, and room in the leaves",
            ),
            (
                "a request, the tower",
                quantity(tower_flop(), "FLOP"),
                f"a history of {HISTORY}",
            ),
            (
                "its exact search of a million items",
                f"{quantity(2 * WIDTH * MANY, 'FLOP')}, {quantity(4 * WIDTH * MANY)}"
                " read",
                "2 D and 4 D an item",
            ),
            (
                "its partitioned search of a million items",
                f"{quantity(2 * WIDTH * partitioned, 'FLOP')}, "
                f"{quantity(4 * WIDTH * partitioned)} read",
                f"{constant('leaves'):.0f} of 8,000 leaves, and their centers",
            ),
            (
                "on the wire, a request and its answer",
                f"{bytes_of['request']:,} B and {bytes_of['answer']:,} B",
                f"gRPC, ids of 10 letters, k {ANSWERS}",
            ),
            (
                "on the wire, to a shard and back",
                f"{bytes_of['to a shard']:,} B and {bytes_of['answer']:,} B",
                "each of them",
            ),
        ],
    )
    yield _table(
        (
            "",
            "events a day",
            "memory to read them at once",
            "`prepare`, two cores",
            "shards on disk",
        ),
        [
            (
                size.name,
                f"{size.events:,.0f}",
                quantity(of["memory"]),
                hours(of["hours"]),
                quantity(of["shard_bytes"]),
            )
            for size, of in _each(data)
        ],
    )
    yield _table(
        (
            "",
            "items",
            "FLOP an event, full softmax",
            "sampled",
            "a day's events, full",
            "sampled",
            "a day's steps of Adam",
            "with a million own ids",
        ),
        [
            (
                size.name,
                f"{size.items:,.0f}",
                quantity(of["full_flop"], "FLOP"),
                quantity(of["sampled_flop"], "FLOP"),
                hours(of["full_hours"]),
                hours(of["sampled_hours"]),
                hours(of["adam_hours"]),
                hours(of["own_adam_hours"]),
            )
            for size, of in _each(training)
        ],
    )
    yield _table(
        (
            "",
            "weights and moments",
            "of them read and written, an event",
            "dense exchange a step",
            "rows a step touches",
        ),
        [
            (
                size.name,
                quantity(of["state_bytes"]),
                quantity(of["adam_bytes"]),
                quantity(of["dense_step_bytes"]),
                quantity(of["sparse_step_bytes"]),
            )
            for size, of in _each(training)
        ],
    )
    yield _table(
        (
            "",
            "requests a second",
            "FLOP a request",
            "read a request",
            "index",
            "shards",
            "cores",
            "of it the tower",
        ),
        [
            (
                size.name,
                f"{size.requests:,.0f}",
                between(*(quantity(of[f"flop_{end}"], "FLOP") for end in _ENDS)),
                between(*(quantity(of[f"scanned_{end}"]) for end in _ENDS)),
                quantity(of["memory"]),
                count(of["shards"]),
                between(*(count(of[f"cores_{end}"]) for end in _ENDS)),
                f"{of['tower_share']:.0%}",
            )
            for size, of in _each(serving)
        ],
    )
    yield _table(
        ("machines", "to prepare", "to train", "to serve"),
        [
            (
                size.name,
                count(data(size)["machines"]),
                count(training(size)["machines"]),
                between(*(count(serving(size)[f"machines_{end}"]) for end in _ENDS)),
            )
            for size in SIZES
        ],
    )


_ENDS = ("low", "high")


def _each(
    of: Callable[[Size], dict[str, float]],
) -> Iterator[tuple[Size, dict[str, float]]]:
    for size in SIZES:
        yield size, of(size)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    text = (f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)
    return "\n".join(text).replace("| --- ", "|---").replace("|--- |", "|---|")


def plot(path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
    items = [size.items for size in SIZES]
    trained = [training(size) for size in SIZES]
    left.plot(items, [of["full_hours"] for of in trained], "-o", label="full softmax")
    left.plot(items, [of["sampled_hours"] for of in trained], "-s", label="256 sampled")
    left.plot(items, [of["adam_hours"] for of in trained], "-^", label="Adam")
    left.plot(
        items,
        [of["own_adam_hours"] for of in trained],
        ":^",
        color="C2",
        label="Adam, a million own ids",
    )
    left.axhline(24, color="gray", linewidth=0.8)
    left.text(items[0], 30, "a day", fontsize=8, color="gray")
    left.set_ylabel("hours for a day of events, two cores")
    served = [serving(size) for size in SIZES]
    low, high = ([of[f"cores_{end}"] for of in served] for end in _ENDS)
    right.fill_between(items, low, high, alpha=0.3, label="root to linear in the items")
    right.plot(items, low, "-o", markersize=4)
    right.set_ylabel("cores that serve, half busy")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("items (events and requests grow along)")
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="the page whose tables these are")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print("\n\n".join(tables()))
    if arguments.write:
        replace_tables(arguments.write, tables())
    if arguments.plot:
        plot(arguments.plot)


if __name__ == "__main__":
    main()
