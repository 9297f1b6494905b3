"""Recall against latency of our indexes and of their peers, on the same data.

    python benchmarks/index.py --scann-python PATH --faiss-python PATH

Every index runs in a process of its own, with 1 and with 2 threads, over the same
candidates and queries. Peers whose interpreter is not named are left out, and the table
says so. What was built is kept in --cache, so a second run measures only.

Data, all from a seed: (a) `clustered`, 5,000 directions with Zipf weights (exponent
.8), candidates around them with log-normal lengths (sigma .25), queries from the same
mixture; (b) `isotropic`, normal vectors, the hard case; (c) `--run RUN`, a folder that
`train` wrote: the vectors of its items, and of the histories of its test users.

Times are of one call of a concrete function (TensorFlow) or of `search` (FAISS). The
overhead of a call that does nothing but return is measured beside it and shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _trained_run import read_run
from index_workers import BATCHES, WORKERS, K, faiss, ours

TARGETS = (0.95, 0.98)
CLUSTERS, ZIPF, SPREAD, LENGTHS = 5_000, 0.8, 0.5, 0.25
INSTALL = {
    "scann": "pip install 'tensorflow-cpu==2.20.*' 'tf-keras==2.20.*' scann, then "
    "pip install --no-deps tensorflow-recommenders",
    "faiss": "pip install faiss-cpu",
}


def make_data(kind: str, size: int, width: int, seed: int) -> tuple[Any, Any]:
    """Candidates float32 `[N, D]` and 500 queries `[500, D]` that are none of them."""
    draw = np.random.default_rng(seed)
    if kind == "isotropic":
        return tuple(
            draw.standard_normal((rows, width), dtype=np.float32)
            for rows in (size, 500)
        )
    centers = draw.standard_normal((CLUSTERS, width), dtype=np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    weights = 1 / np.arange(1, CLUSTERS + 1) ** ZIPF
    weights /= weights.sum()

    def around(rows: int) -> Any:
        vectors = draw.standard_normal((rows, width), dtype=np.float32)
        vectors *= np.float32(SPREAD / width**0.5)
        vectors += centers[draw.choice(CLUSTERS, rows, p=weights)]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    lengths = np.exp(draw.normal(0, LENGTHS, (size, 1))).astype(np.float32)
    return around(size) * lengths, around(500)


def trained(run: Path) -> tuple[Any, Any]:
    """The items `[N, D]` of a trained model, and 500 of its users `[500, D]`."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    model, _, test = read_run(run)
    some = np.random.default_rng(0).choice(len(test), 500, replace=False)
    length = model.query_tower.max_length
    queries = [
        model.query_tower(test.padded_histories(case, case + 1)[:, -length:])
        for case in np.sort(some)
    ]
    return model.candidate_tower.catalogue().numpy(), np.concatenate(queries)


def true_best(candidates: Any, queries: Any) -> Any:
    """Rows of the K best candidates `[B, K]`, in no order."""
    parts = []
    for start in range(0, len(queries), 20):
        scores = queries[start : start + 20] @ candidates.T
        parts.append(np.argpartition(-scores, K, axis=1)[:, :K])
    return np.concatenate(parts)


def run(python: str, folder: Path, name: str, threads: int) -> list[dict[str, Any]]:
    """The lines of a worker in a process of its own."""
    repository = Path(__file__).resolve().parents[1]
    worker = str(Path(__file__).with_name("index_workers.py"))
    command = [python, worker, name, str(threads), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        print(f"{name} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
    return [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")
    ]


def fastest(points: list[dict[str, Any]], target: float, batch: int) -> Any:
    """The point with the least median among those that reach a recall, or None."""
    good = [point for point in points if point["recall"] >= target]
    return min(good, key=lambda point: point["median"][str(batch)], default=None)


def print_table(points: list[dict[str, Any]], threads: int) -> None:
    """The best setting of every index for each target recall, as Markdown."""
    print(
        f"\n{threads} thread(s); median / p99 ms of a call, its overhead in brackets\n"
    )
    print("| index | recall ≥ | batch 1 | batch 32 | recall seen | setting |")
    print("|---|---|---|---|---|---|")
    mine = [point for point in points if point["threads"] == threads]
    for name in WORKERS:
        for target in TARGETS:
            own = [point for point in mine if point["index"] == name]
            if not own:
                continue
            cells, seen, settings = [], [], []
            for batch in BATCHES:
                best = fastest(own, target, batch)
                if best is None:
                    cells.append("not reached")
                    continue
                key = str(batch)
                cells.append(
                    f"{best['median'][key]:.2f} / {best['p99'][key]:.2f} "
                    f"({best['overhead'][key]:.2f})"
                )
                seen.append(f"{best['recall']:.3f}")
                settings.append(best["setting"])
            settings = list(dict.fromkeys(settings))
            print(
                f"| {name} | {target} | {' | '.join(cells)} | "
                f"{', '.join(dict.fromkeys(seen))} | {'; '.join(settings)} |"
            )


def plot(points: list[dict[str, Any]], path: Path, title: str) -> None:
    """Recall against the median of one thread, batch 1 and 32, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(BATCHES), figsize=(13, 5), sharey=True)
    for axis, batch in zip(axes, BATCHES, strict=True):
        for name in WORKERS:
            own = [p for p in points if p["index"] == name and p["threads"] == 1]
            own.sort(key=lambda point: point["recall"])
            times = [point["median"][str(batch)] for point in own]
            axis.plot(times, [p["recall"] for p in own], "o-", ms=3, label=name)
        axis.set(xscale="log", xlabel=f"ms a call, batch {batch}", ylim=(0.8, 1.005))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"recall@{K}")
    axes[0].legend(fontsize=7)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--kind", choices=("clustered", "isotropic"), default="clustered"
    )
    parser.add_argument("--run", type=Path, help="of `train`, in place of --kind")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scann-python", help="interpreter with TFRS and ScaNN")
    parser.add_argument("--faiss-python", help="interpreter with faiss-cpu")
    parser.add_argument(
        "--only", nargs="+", choices=list(WORKERS), default=list(WORKERS)
    )
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("build/index-benchmark"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    title = f"{arguments.kind}-{arguments.size}-{arguments.width}"
    if arguments.run:
        title = f"run-{arguments.run.resolve().name}"
    folder = arguments.cache / title
    if not (folder / "best.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.run:
            candidates, queries = trained(arguments.run)
        else:
            candidates, queries = make_data(
                arguments.kind, arguments.size, arguments.width, arguments.seed
            )
        np.save(folder / "candidates.npy", np.asarray(candidates, np.float32))
        np.save(folder / "queries.npy", np.asarray(queries, np.float32))
        np.save(folder / "best.npy", true_best(candidates, queries))
    pythons = {"scann": arguments.scann_python, "faiss": arguments.faiss_python}
    points = []
    for name in arguments.only:
        python: str | None = sys.executable
        for peer, path in pythons.items():
            if peer in name.lower():
                python = path
                if path is None:
                    print(f"{name}: left out. {INSTALL[peer]}; then --{peer}-python.")
        if python is None:
            continue
        built = folder / f"{name.replace(' ', '_')}.built.json"
        if WORKERS[name] in (ours, faiss) and not built.exists():
            built.write_text(json.dumps(run(python, folder, name, 0)))
        if built.exists():
            print(f"{name}: {built.read_text()}")
        for threads in [] if arguments.build_only else arguments.threads:
            found = run(python, folder, name, threads)
            saved = folder / f"{name.replace(' ', '_')}.{threads}.json"
            saved.write_text(json.dumps(found))
            points += found
    if points:
        for threads in arguments.threads:
            print_table(points, threads)
        plot(points, folder / "recall.png", title)
        print(f"\n{folder / 'recall.png'}")


if __name__ == "__main__":
    main()
