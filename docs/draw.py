"""Draws `docs/images/`: the flow of data, and the tables of the benchmarks.

    python docs/draw.py

Every number is read from `benchmarks/README.md`, where it stands with its date, machine
and command. Needs matplotlib, the extra `docs`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

matplotlib.rcParams["svg.hashsalt"] = "tfrs_selfattn"  # the same file every time

REPOSITORY = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
INK, BLUE, RED, GREY = "#222222", "#3f6fb5", "#c8553d", "#8a8a8a"

# Where a box stands (column, row), its title, and what it is.
BOXES = {
    "events": (0, 1, "events", "who, what, when"),
    "data": (1, 1, "data", "sequences, splits,\npacked rows"),
    "query": (2, 2, "query tower", "self-attention over\nthe history"),
    "items": (2, 0, "candidate tower", "ids and features\nof items"),
    "evaluation": (3, 1, "evaluation", "all items ranked,\nbaselines beside"),
    "index": (3, 0, "index", "top k, exact\nor partitioned"),
    "export": (4, 1, "export", "one SavedModel:\nids in, ids out"),
    "server": (5, 1, "model server", "stock TensorFlow\nServing"),
}
ARROWS = (
    ("events", "data"),
    ("data", "query"),
    ("data", "items"),
    ("query", "evaluation"),
    ("items", "evaluation"),
    ("items", "index"),
    ("query", "export"),
    ("index", "export"),
    ("export", "server"),
)
WIDTH, HEIGHT = 1.62, 0.72


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    text = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
    data_flow().savefig(IMAGES / "data_flow.svg", metadata={"Date": None})
    for draw, section, head in (
        (attention, "## Attention", "| Keras | T |"),
        (attention_memory, "## Attention", "| T | short |"),
        (index, "## Index", "| index | recall"),
        (explanations, "## Explanations", "| deleted |"),
    ):
        rows = table(text, section, head)
        # What it was drawn of, by which a test knows that it is not out of date.
        metadata = {"Date": None, "Description": json.dumps(rows)}
        draw(rows).savefig(IMAGES / f"{draw.__name__}.svg", metadata=metadata)


def table(text: str, section: str, head: str) -> list[list[str]]:
    """The rows of a Markdown table below a heading, without head and rule."""
    start = text.index(head, text.index(section))
    lines = text[start:].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def data_flow() -> Figure:
    figure = Figure(figsize=(11.4, 3.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.2, 11.75)
    axes.set_ylim(-0.35, 3.2)
    middle = {}
    for name, (column, row, title, what) in BOXES.items():
        x, y = 0.05 + 1.98 * column, 0.05 + 1.1 * row
        color = BLUE if name in ("query", "items", "index") else GREY
        shape = FancyBboxPatch(
            (x, y),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0.02,rounding_size=0.08",
            facecolor="white",
            edgecolor=color,
            linewidth=1.6,
        )
        axes.add_patch(shape)
        middle[name] = (x + WIDTH / 2, y + HEIGHT / 2)
        axes.text(
            *(x + WIDTH / 2, y + HEIGHT - 0.07, title),
            **{"ha": "center", "va": "top", "fontsize": 11, "fontweight": "bold"},
            color=INK,
        )
        axes.text(
            *(x + WIDTH / 2, y + 0.05, what),
            **{"ha": "center", "va": "bottom", "fontsize": 8.5, "color": INK},
        )
    for start, end in ARROWS:
        (x, y), (u, v) = middle[start], middle[end]
        to = (u - WIDTH / 2 - 0.03, v + 0.15 * (y > v) - 0.15 * (y < v))
        if end == "export":  # from above and from below
            to = (u - 0.3, v + (HEIGHT / 2 + 0.04) * (1 if y > v else -1))
        axes.add_patch(
            FancyArrowPatch(
                (x + WIDTH / 2 + 0.03, y + 0.15 * (v > y) - 0.15 * (v < y)),
                to,
                arrowstyle="-|>",
                mutation_scale=13,
                color=INK,
                linewidth=1.1,
            )
        )
    return figure


def attention(rows: list[list[str]]) -> Figure:
    """How many times as fast, of histories of 200 items."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    kinds = ("forward", "training", "training, dropout 0.1")
    shown = [row for row in rows if row[1] == "200"]
    for number, (kind, color) in enumerate(zip(kinds, (GREY, BLUE, RED), strict=True)):
        ratios = [
            float(re.findall(r"\*\*([\d.]+)\*\*", row[3 + number])[0]) for row in shown
        ]
        places = [place + 0.27 * (number - 1) for place in range(len(shown))]
        axes.bar(places, ratios, width=0.25, color=color, label=kind)
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.set_xticks(
        range(len(shown)), [f"{row[0]}\nH = {row[2]}" for row in shown], fontsize=8
    )
    axes.set_ylabel("times as fast")
    axes.set_title(
        "MultiHeadSelfAttention beside MultiHeadAttention, T = 200",
        loc="left",
        fontsize=10,
    )
    return _finished(figure, axes)


def attention_memory(rows: list[list[str]]) -> Figure:
    """Gigabytes of a training step over the length of the histories."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    lengths = [int(row[0].replace(",", "")) for row in rows]
    for column, (name, color) in enumerate(
        (("short form, the default", GREY), ("block_size=512", BLUE)), start=1
    ):
        gigabytes = [float(row[column].split()[0]) for row in rows]
        axes.plot(lengths, gigabytes, marker="o", color=color, label=name)
        axes.annotate(
            f"{gigabytes[-1]:.2f}",
            (lengths[-1], gigabytes[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            **{"ha": "center", "fontsize": 8, "color": color},
        )
    axes.set_xticks(lengths, [row[0] for row in rows], fontsize=8, rotation=45)
    axes.set_ylim(0, 8.5)
    axes.set_xlabel("T, items of a history")
    axes.set_ylabel("GB, the process included")
    axes.set_title(
        "Peak memory of a training step, 8 rows, H = 4, D = 64",
        loc="left",
        fontsize=10,
    )
    return _finished(figure, axes)


def index(rows: list[list[str]]) -> Figure:
    """Milliseconds of one query at each recall; a logarithmic axis."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    name, found = "", []
    for row in rows:
        name = row[0].replace("`", "") or name
        found.append((f"{name}, recall {row[1]}", float(row[2].split("/")[0])))
    found.reverse()
    names, values = zip(*found, strict=True)
    ours = [
        BLUE if name.startswith(("Partitioned", "the same", "Exact")) else GREY
        for name in names
    ]
    bars = axes.barh(range(len(values)), values, color=ours)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(right=max(values) * 2)
    axes.set_xlabel("milliseconds a query, median, one thread")
    axes.set_title("One of a million candidates × 64", loc="left", fontsize=10)
    return _finished(figure, axes, legend=False)


def explanations(rows: list[list[str]]) -> Figure:
    """What deleting the named items costs, beside random ones."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    names = ("leave-one-out", "integrated gradients", "attention roll-out", "at random")
    for number, (name, color) in enumerate(
        zip(names, (BLUE, RED, "#d9a441", GREY), strict=True)
    ):
        cells = [re.findall(r"-?[\d.]+", row[1 + number]) for row in rows]
        means, errors = ([float(cell[place]) for cell in cells] for place in (0, 1))
        places = [place + 0.2 * (number - 1.5) for place in range(len(rows))]
        axes.bar(places, means, yerr=errors, width=0.19, color=color, label=name)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.set_xticks(range(len(rows)), [f"{row[0]} deleted" for row in rows])
    axes.set_ylabel("score lost, mean of users")
    axes.set_title(
        "MovieLens-1M: deleting what an explanation names", loc="left", fontsize=10
    )
    return _finished(figure, axes)


def _finished(figure: Figure, axes: object, *, legend: bool = True) -> Figure:
    if legend:
        axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
