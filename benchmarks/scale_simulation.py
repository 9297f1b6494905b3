"""How long a request waits that needs all shards of a catalogue: a simulation.

    python benchmarks/scale_simulation.py --write docs/scale.md --plot fan-out.png
    python benchmarks/scale_simulation.py --shards 16 --replicas 3 --load 0.5 --hedge 15
    python benchmarks/scale_simulation.py --check  # beside what was measured

Each request asks every shard, on one of its replicas, and is done with the last
answer. A replica serves first come, first served, with one thread. Times of service are
lognormal; a small share of them are stragglers, some times as long (a pause, a
neighbour, a version being loaded). A hedge asks a second replica after a while and
takes whichever answer is first; what lost is not cancelled. Requests arrive at random.
No network beyond one constant, and no failures: the numbers are lower bounds of a real
deployment.

`--check` simulates, by the same function, what `benchmarks/scale.py shards --output`
has measured (`scale_shards.json`). There one client asked again when it was answered,
and shards, query model and client shared the cores of one machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._pages import replace_tables

SEED = 0
REQUESTS = 20_000
MEASURED = Path(__file__).parent / "scale_shards.json"
HEDGE = 15.0  # After what all but stragglers and their queues take: 1 of 50 is late.


@dataclass(frozen=True)
class Deployment:
    """What is simulated; times in milliseconds.

    `median` and `sigma` are of the lognormal time of a search, or `search` has times to
    draw from. `load` is the share of time that a replica would be busy without hedges,
    None for one client that asks again when it is answered. `stragglers` is the share
    of searches that take `slowdown` times as long, `hedge` when a second replica is
    asked (None: never). `cores` threads are shared by all shards (None: one thread for
    each replica). A request costs `overhead` beside its searches.
    """

    shards: int
    replicas: int = 2
    median: float = 4.0
    sigma: float = 0.25
    search: tuple[float, ...] = ()
    load: float | None = 0.25
    stragglers: float = 0.005
    slowdown: float = 10.0
    hedge: float | None = None
    cores: int | None = None
    overhead: float = 0.5

    @property
    def mean(self) -> float:
        """Of one search, stragglers included."""
        usual = self.median * np.exp(self.sigma**2 / 2)
        if self.search:
            usual = np.mean(self.search)
        return float(usual * (1 + self.stragglers * (self.slowdown - 1)))


class Threads:
    """What searches wait for: until when each thread is taken.

    Args:
        deployment: whose shards they serve.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._replicas = deployment.replicas
        self._shared = deployment.cores is not None
        count = deployment.cores or deployment.shards * deployment.replicas
        self._free = [0.0] * count

    def ask(self, moment: float, shard: int, replica: int, service: float) -> float:
        """When a search ends that is asked for now."""
        free = self._free
        if self._shared:
            place = min(range(len(free)), key=free.__getitem__)
        else:
            place = shard * self._replicas + replica
        free[place] = max(moment, free[place]) + service
        return free[place]


def services(
    deployment: Deployment, count: int, draw: np.random.Generator
) -> np.ndarray:
    """Times that searches take once they have a thread, `[count, S]`."""
    shape = (count, deployment.shards)
    if deployment.search:
        times = draw.choice(deployment.search, shape)
    else:
        times = deployment.median * np.exp(deployment.sigma * draw.normal(size=shape))
    slow = draw.random(shape) < deployment.stragglers
    return times * np.where(slow, deployment.slowdown, 1.0)


def simulate(
    deployment: Deployment, requests: int = REQUESTS, seed: int = SEED
) -> dict[str, float]:
    """Latencies of requests in milliseconds, and the share of searches asked twice."""
    draw = np.random.default_rng(seed)
    gaps = np.zeros(requests)
    if deployment.load is not None:
        gap = deployment.mean / deployment.load / deployment.replicas
        gaps = draw.exponential(gap, requests)
    first, second = (services(deployment, requests, draw).tolist() for _ in range(2))
    replicas = deployment.replicas
    shape = (requests, deployment.shards)
    chosen = draw.integers(replicas, size=shape).tolist()
    other = draw.integers(1, max(replicas, 2), size=shape).tolist()
    threads, wait = Threads(deployment), deployment.hedge
    waiting: list[tuple[float, int, int]] = []  # hedges to come
    done = np.empty(shape)
    arrivals = np.empty(requests)
    hedges, moment = 0, 0.0

    def hedge(moment: float, request: int, shard: int) -> None:
        replica = (chosen[request][shard] + other[request][shard]) % replicas
        answered = threads.ask(moment, shard, replica, second[request][shard])
        done[request, shard] = min(done[request, shard], answered)

    for request, gap in enumerate(gaps.tolist()):
        moment += gap
        while waiting and waiting[0][0] <= moment:
            hedge(*heapq.heappop(waiting))
        arrivals[request] = moment
        for shard, service in enumerate(first[request]):
            ended = threads.ask(moment, shard, chosen[request][shard], service)
            done[request, shard] = ended
            if wait is not None and replicas > 1 and ended > moment + wait:
                heapq.heappush(waiting, (moment + wait, request, shard))
                hedges += 1
        if deployment.load is None:  # The next one comes when this one is answered.
            while waiting:
                hedge(*heapq.heappop(waiting))
            moment = float(done[request].max())
    while waiting:
        hedge(*heapq.heappop(waiting))
    latencies = done.max(axis=1) - arrivals + deployment.overhead
    settled = latencies[requests // 10 :]  # the queues are empty at first
    p50, p99, p999 = np.percentile(settled, [50, 99, 99.9])
    return {
        "p50": float(p50),
        "p99": float(p99),
        "p99.9": float(p999),
        "hedged": hedges / requests / deployment.shards,
    }


def check(path: Path = MEASURED) -> Iterator[tuple[int, dict[str, tuple[float, ...]]]]:
    """Predicts what was measured of several shards from the times of one search.

    Yields the number of shards, and for p50 and p99: measured, simulated, and how much
    too high the latter is.
    """
    measured = json.loads(path.read_text(encoding="utf-8"))
    for run in measured["runs"]:
        deployment = Deployment(
            run["shards"],
            replicas=1,
            search=tuple(run["one_shard_ms"]),
            load=None,
            stragglers=0.0,
            cores=measured["cores"],
            overhead=run["query_ms"],
        )
        found = simulate(deployment)
        theirs = np.percentile(run["merged_ms"], [50, 99]).tolist()
        yield (
            run["shards"],
            {
                name: (real, found[name], found[name] / real - 1)
                for name, real in zip(("p50", "p99"), theirs, strict=True)
            },
        )


def check_table() -> str:
    rows = [
        "| shards | p50, ms | simulated | off by | p99, ms | simulated | off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for shards, found in check():
        cells = [
            f"{real:.1f} | {ours:.1f} | {error:+.0%}"
            for real, ours, error in found.values()
        ]
        rows.append(f"| {shards} | {' | '.join(cells)} |")
    return "\n".join(rows)


Row = tuple[Deployment, dict[str, float]]


def fan_out(shards: tuple[int, ...] = (1, 4, 16, 64)) -> list[Row]:
    """By the number of shards: calm, with stragglers, with hedges too, at one load."""
    rows = []
    for count in shards:
        plain = Deployment(count)
        for deployment in (
            replace(plain, stragglers=0.0),
            plain,
            replace(plain, hedge=HEDGE),
        ):
            rows.append((deployment, simulate(deployment)))
    return rows


def fan_out_table(rows: list[Row]) -> str:
    lines = [
        "| shards | stragglers | hedge after | p50 | p99 | p99.9 | asked twice |",
        "|---|---|---|---|---|---|---|",
    ]
    for deployment, found in rows:
        hedge = "–" if deployment.hedge is None else f"{deployment.hedge:g} ms"
        lines.append(
            f"| {deployment.shards} | {deployment.stragglers:.1%} | {hedge} | "
            f"{found['p50']:.1f} | {found['p99']:.1f} | {found['p99.9']:.1f} | "
            f"{found['hedged']:.1%} |"
        )
    return "\n".join(lines)


LOADS = (0.25, 0.4, 0.6)


def replicas_table(
    shards: int = 16, replicas: tuple[int, ...] = (1, 2, 3), head: bool = True
) -> str:
    """p99 by replicas and load, without hedges and with them."""
    lines = [
        "| replicas | " + " | ".join(f"{load:.0%} busy" for load in LOADS) + " |",
        "|---|" + "---|" * len(LOADS),
    ]
    for count in replicas:
        cells = []
        for load in LOADS:
            plain = Deployment(shards, replicas=count, load=load)
            found = f"{simulate(plain)['p99']:.0f}"
            if count > 1:
                hedged = simulate(replace(plain, hedge=HEDGE))["p99"]
                # Where hedges ask for more than there is, queues grow with time.
                found += f", hedged {hedged:.0f}" if hedged < 1000 else ", hedged ∞"
            cells.append(found)
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines if head else lines[2:])


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    kinds = (
        ("no stragglers", lambda d: d.stragglers == 0.0),
        ("0.5 % stragglers", lambda d: d.stragglers > 0.0 and d.hedge is None),
        ("0.5 % stragglers, hedged", lambda d: d.hedge is not None),
    )
    for (label, of_kind), color in zip(kinds, ("C0", "C1", "C2"), strict=True):
        chosen = [(each.shards, found) for each, found in rows if of_kind(each)]
        shards = [count for count, _ in chosen]
        axes.plot(shards, [f["p99"] for _, f in chosen], "-o", color=color, label=label)
        axes.plot(shards, [f["p50"] for _, f in chosen], ":", color=color)
    axes.set_xscale("log", base=2)
    axes.set_xticks(shards, map(str, shards))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("shards that each request asks")
    axes.set_ylabel("ms until the last has answered")
    axes.set_title("Fan-out, simulated: p99 (lines) and p50 (dotted)", fontsize=10)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, help="simulate one deployment")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--load", type=float, default=0.25)
    parser.add_argument("--hedge", type=float, help="milliseconds")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", type=Path, help="the page whose tables these are")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        print(check_table())
        return
    if arguments.shards:
        asked = {name: getattr(arguments, name) for name in ("replicas", "load")}
        one = Deployment(arguments.shards, hedge=arguments.hedge, **asked)
        print(fan_out_table([(one, simulate(one))]))
        return
    rows = fan_out()
    tables = [fan_out_table(rows), replicas_table(), check_table()]
    print("\n\n".join(tables))
    if arguments.write:
        replace_tables(arguments.write, tables)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
