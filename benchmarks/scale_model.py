"""What each size needs: the cost model of docs/scale.md, from measured constants.

    python benchmarks/scale_model.py
    python benchmarks/scale_model.py --plot docs/images/scale.png

Every constant was measured in this project, on two cores; benchmarks/README.md says
with which command. What is computed from them is an estimate, and says from what.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

# Measured: benchmarks/README.md, the sections named.
WIDTH = 64  # D, of all of them
STEP_US = 518e3 / 25_600  # a slot of a training step, N 3,416, two cores ("Data path")
FULL_SOFTMAX_US = 118e3 / 12_800  # of it, the loss over 3,416 items ("Losses")
SAMPLED_SOFTMAX_US = 17e3 / 12_800  # the loss over 256 shared negatives ("Losses")
SEQUENCES_BYTES = 4.54e9 / 100e6  # peak memory an event, log to sequences ("Data path")
SEQUENCES_US = 58e6 / 100e6  # its time an event, two cores ("Data path")
SHARD_BYTES = 2.41e9 / 100e6  # on disk, an event with times ("Data path")
QUERY_MS = 0.89  # the query tower, batch 1 ("Serving")
QUERY_MS_BATCHED = 5.9 / 32  # in batches of 32 ("Serving")
EXACT_MS = 24.72  # one thread, 1 million items ("Index")
PARTITIONED_MS = 1.39  # one thread, recall .98, 1 million items ("Index")
BYTES_A_SECOND = 256e6 / 24.72e-3  # of memory, one thread: that search ("Index")
INDEX_FACTOR = 1.38  # memory of int8 with originals, of the float32 matrix ("Index")
# The measured sizes.
FEW, MANY = 3_416, 1e6

# Assumed, and to be replaced by your own: what a machine is, and how busy it may be.
CORES, MEMORY, BUSY = 32, 128e9, 0.5
REPLICAS = 2  # of every shard, so that one may fail
BATCH_SLOTS = 25_600


@dataclass(frozen=True)
class Size:
    """A size of a service: events a day, items, requests a second."""

    name: str
    events: float
    items: float
    requests: float


SIZES = (
    Size("laptop", 1e5, 3.4e3, 1),
    Size("one server", 1e6, 1e5, 1e2),
    Size("several servers", 1e7, 1e6, 1e3),
    Size("a small cluster", 1e8, 1e7, 1e4),
    Size("internet", 1e9, 1e8, 1e5),
)


def full_softmax_flop(size: Size) -> float:
    """A target: scores, and the gradients of both sides, 2 D N each."""
    return 6.0 * WIDTH * size.items


def training(size: Size) -> dict[str, float | str]:
    """One pass over a day of events, on two cores as measured."""
    rest = STEP_US - FULL_SOFTMAX_US
    full = rest + FULL_SOFTMAX_US * size.items / FEW
    sampled = rest + SAMPLED_SOFTMAX_US
    table = size.items * WIDTH * 4.0
    # Rows that a step touches: inputs and targets, each once at most, and negatives.
    touched = min(2.0 * BATCH_SLOTS + 256, size.items) * (WIDTH * 4.0 + 8.0)
    return {
        "full_hours": size.events * full / 3.6e9,
        "sampled_hours": size.events * sampled / 3.6e9,
        "state_bytes": 3.0 * table,  # weights and both moments of Adam
        # Legacy Keras' Adam lets the moments of all rows decay: three tables, read and
        # written, on the cores that the table is on.
        "adam_seconds": 6.0 * table / BYTES_A_SECOND,
        "dense_step_bytes": 2.0 * table,  # a worker, ring of many: each way once
        "sparse_step_bytes": touched,
        "flop": full_softmax_flop(size),
    }


def data(size: Size) -> dict[str, float]:
    """A day of events, read at once on one machine."""
    return {
        "memory": size.events * SEQUENCES_BYTES,
        "minutes": size.events * SEQUENCES_US / 6e7,
        "shard_bytes": size.events * SHARD_BYTES,
    }


def serving(size: Size) -> dict[str, float]:
    """Cores and machines for the requests.

    Exact search is linear in the items. How a partitioned one at equal recall grows was
    not measured: between the root of their number (leaves grow with it) and linear.
    """
    few = size.items <= 1e5
    scale = size.items / MANY
    low = EXACT_MS * scale if few else PARTITIONED_MS * scale**0.5
    high = EXACT_MS * scale if few else PARTITIONED_MS * max(scale, scale**0.5)
    tower = QUERY_MS if size.requests < 1e3 else QUERY_MS_BATCHED
    memory = size.items * WIDTH * 4.0 * (1.0 if few else INDEX_FACTOR)
    # Twice, because a new version is loaded beside the old one.
    shards = max(1.0, -(-2.0 * memory // MEMORY))
    cores = [size.requests * (tower + each) / 1e3 / BUSY for each in (low, high)]
    by_memory = shards * REPLICAS if size.requests >= 1e2 else 1.0
    machines = [max(by_memory, -(-each // CORES)) for each in cores]
    return {
        "memory": memory,
        "shards": shards,
        "cores_low": cores[0],
        "cores_high": cores[1],
        "machines_low": machines[0],
        "machines_high": machines[1],
        "tower_share": tower / (tower + low),
    }


def quantity(value: float, unit: str = "B") -> str:
    """1.2e9 as "1.2 GB"."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def hours(value: float) -> str:
    if value < 1 / 60:
        return f"{value * 3600:.2g} s"
    if value < 2:
        return f"{value * 60:.2g} min"
    return f"{value:.3g} h" if value < 1e4 else f"{value / 8760:.3g} years"


def between(low: float, high: float) -> str:
    low, high = max(1, round(low)), max(1, round(high))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def tables() -> None:
    print("| | events a day | memory to read them | minutes | shards on disk |")
    print("|---|---|---|---|---|")
    for size in SIZES:
        of = data(size)
        print(
            f"| {size.name} | {size.events:,.0f} | {quantity(of['memory'])} | "
            f"{of['minutes']:.2g} | {quantity(of['shard_bytes'])} |"
        )
    print()
    print(
        "| | items | full softmax, FLOP an event | a day's events, full | sampled | "
        "weights and Adam | Adam a step | dense exchange a step | rows a step touches |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        of = training(size)
        print(
            f"| {size.name} | {size.items:,.0f} | {quantity(of['flop'], 'FLOP')} | "
            f"{hours(of['full_hours'])} | {hours(of['sampled_hours'])} | "
            f"{quantity(of['state_bytes'])} | {hours(of['adam_seconds'] / 3600)} | "
            f"{quantity(of['dense_step_bytes'])} | "
            f"{quantity(of['sparse_step_bytes'])} |"
        )
    print()
    print(
        "| | requests a second | index | shards | cores | machines | of it the tower |"
    )
    print("|---|---|---|---|---|---|---|")
    for size in SIZES:
        of = serving(size)
        print(
            f"| {size.name} | {size.requests:,.0f} | {quantity(of['memory'])} | "
            f"{of['shards']:.0f} | {between(of['cores_low'], of['cores_high'])} | "
            f"{between(of['machines_low'], of['machines_high'])} | "
            f"{of['tower_share']:.0%} |"
        )


def plot(path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
    items = [size.items for size in SIZES]
    trained = [training(size) for size in SIZES]
    left.plot(items, [of["full_hours"] for of in trained], "-o", label="full softmax")
    left.plot(items, [of["sampled_hours"] for of in trained], "-s", label="256 sampled")
    left.axhline(24, color="gray", linewidth=0.8)
    left.text(items[0], 30, "a day", fontsize=8, color="gray")
    left.set_ylabel("hours for a day of events, two cores")
    served = [serving(size) for size in SIZES]
    low, high = ([of[name] for of in served] for name in ("cores_low", "cores_high"))
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
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    tables()
    if arguments.plot:
        plot(arguments.plot)


if __name__ == "__main__":
    main()
