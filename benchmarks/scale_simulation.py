"""How long a request waits that needs all shards of a catalogue: a simulation.

    python benchmarks/scale_simulation.py --plot docs/images/fan-out.png
    python benchmarks/scale_simulation.py --check shards.json  # beside measurements

Each request asks every shard, on one of its replicas, and is done with the last
answer. A replica serves first come, first served, with one thread. Times of service are
lognormal; a small share of them are stragglers, some times as long (a pause, a
neighbour, a version being loaded). A hedge asks a second replica after a while and
takes whichever answer is first; what lost is not cancelled. Requests arrive at random.
No network beyond one constant, and no failures: the numbers are lower bounds of a real
deployment.

`--check` takes what `benchmarks/scale.py shards` wrote. There, all shards and the
client share one machine, so its shards share as many threads as it has cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

SEED = 0


@dataclass(frozen=True)
class Deployment:
    """What is simulated; times in milliseconds.

    `median` and `sigma` are of the lognormal time of a search, `load` the share of time
    that a replica would be busy without hedges, `stragglers` the share of searches that
    take `slowdown` times as long, `hedge` when a second replica is asked (None: never),
    `overhead` and `overhead_shard` what a request costs once and for each shard.
    """

    shards: int
    replicas: int = 2
    median: float = 4.0
    sigma: float = 0.25
    load: float = 0.25
    stragglers: float = 0.005
    slowdown: float = 10.0
    hedge: float | None = None
    overhead: float = 0.5
    overhead_shard: float = 0.0

    @property
    def mean(self) -> float:
        """Of one search, stragglers included."""
        usual = self.median * np.exp(self.sigma**2 / 2)
        return float(usual * (1 + self.stragglers * (self.slowdown - 1)))


def services(
    deployment: Deployment, count: int, draw: np.random.Generator
) -> list[float]:
    """Times that searches take once they have a thread."""
    times = deployment.median * np.exp(deployment.sigma * draw.normal(size=count))
    slow = draw.random(count) < deployment.stragglers
    return (times * np.where(slow, deployment.slowdown, 1.0)).tolist()


def one_shard(
    deployment: Deployment, arrivals: np.ndarray, draw: np.random.Generator
) -> tuple[np.ndarray, int]:
    """When a shard has answered each request, after its arrival, and its hedges."""
    num = len(arrivals)
    free = [0.0] * deployment.replicas
    times = services(deployment, 2 * num, draw)
    chosen = draw.integers(deployment.replicas, size=num).tolist()
    other = draw.integers(1, max(deployment.replicas, 2), size=num).tolist()
    done = np.empty(num)
    waiting: list[tuple[float, int]] = []  # hedges to come
    hedges = 0

    def ask(moment: float, replica: int, service: float) -> float:
        free[replica] = max(moment, free[replica]) + service
        return free[replica]

    def hedge(moment: float, request: int) -> None:
        replica = (chosen[request] + other[request]) % deployment.replicas
        done[request] = min(done[request], ask(moment, replica, times[num + request]))

    for request, moment in enumerate(arrivals.tolist()):
        while waiting and waiting[0][0] <= moment:
            hedge(*heapq.heappop(waiting))
        done[request] = ask(moment, chosen[request], times[request])
        wait = deployment.hedge
        late = wait is not None and done[request] > moment + wait
        if late and deployment.replicas > 1:
            heapq.heappush(waiting, (moment + wait, request))
            hedges += 1
    while waiting:
        hedge(*heapq.heappop(waiting))
    return done - arrivals, hedges


def simulate(
    deployment: Deployment, requests: int, seed: int = SEED
) -> dict[str, float]:
    """Latencies of requests in milliseconds, and the share of searches asked twice."""
    draw = np.random.default_rng(seed)
    gap = deployment.mean / deployment.load / deployment.replicas
    arrivals = np.cumsum(draw.exponential(gap, requests))
    latest, hedges = np.zeros(requests), 0
    for _ in range(deployment.shards):
        waits, asked = one_shard(deployment, arrivals, draw)
        latest, hedges = np.maximum(latest, waits), hedges + asked
    latest += deployment.overhead + deployment.overhead_shard * deployment.shards
    settled = latest[requests // 10 :]  # the queues are empty at first
    p50, p99, p999 = np.percentile(settled, [50, 99, 99.9])
    return {
        "p50": float(p50),
        "p99": float(p99),
        "p99.9": float(p999),
        "hedged": hedges / requests / deployment.shards,
    }


def one_at_a_time(
    search: list[float], shards: int, cores: int, overhead: float, requests: int
) -> np.ndarray:
    """Latencies of one client that asks again when it is answered; shards share cores.

    Args:
        search: measured times of one search alone, milliseconds; drawn from.
        shards: int.
        cores: int. Searches that run at the same time.
        overhead: float. What a request costs beside its searches.
        requests: int.
    """
    draw = np.random.default_rng(SEED)
    times = draw.choice(search, [requests, shards])
    free = np.zeros([requests, cores])
    for shard in range(shards):
        first = free.argmin(axis=1)
        free[np.arange(requests), first] += times[:, shard]
    return free.max(axis=1) + overhead


def check(path: Path) -> None:
    """Predicts the fan-out to several shards from the measurement of one of them."""
    measured = json.loads(path.read_text())
    print("| shards | measured p50 | simulated p50 | measured p99 | simulated p99 |")
    print("|---|---|---|---|---|")
    for run in measured["runs"]:
        simulated = one_at_a_time(
            run["one_shard_ms"],
            run["shards"],
            measured["cores"],
            run["query_ms"],
            20_000,
        )
        ours = np.percentile(simulated, [50, 99])
        theirs = np.percentile(run["merged_ms"], [50, 99])
        cells = (theirs[0], ours[0], theirs[1], ours[1])
        print(f"| {run['shards']} | " + " | ".join(f"{c:.2f}" for c in cells) + " |")


def table(requests: int) -> list[tuple[int, Deployment, dict[str, float]]]:
    """Shards, with and without hedges, at one load."""
    rows = []
    for shards in (1, 4, 16, 64):
        plain = Deployment(shards)
        # After what all but stragglers and their queues take: 1 search of 50 is late.
        hedged = replace(plain, hedge=15.0)
        calm = replace(plain, stragglers=0.0)
        for deployment in (calm, plain, hedged):
            rows.append((shards, deployment, simulate(deployment, requests)))
    return rows


def show(rows: list[tuple[int, Deployment, dict[str, float]]]) -> None:
    print("| shards | stragglers | hedge after | p50 | p99 | p99.9 | asked twice |")
    print("|---|---|---|---|---|---|---|")
    for shards, deployment, found in rows:
        hedge = "–" if deployment.hedge is None else f"{deployment.hedge:g} ms"
        slow = f"{deployment.stragglers:.1%}"
        print(
            f"| {shards} | {slow} | {hedge} | {found['p50']:.1f} | "
            f"{found['p99']:.1f} | {found['p99.9']:.1f} | {found['hedged']:.1%} |"
        )


def plot(rows: list[tuple[int, Deployment, dict[str, float]]], path: Path) -> None:
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
        chosen = [(s, found) for s, each, found in rows if of_kind(each)]
        shards = [s for s, _ in chosen]
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
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--check", type=Path, help="of benchmarks/scale.py shards")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
        return
    rows = table(arguments.requests)
    show(rows)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
