"""Serving end to end: raw history of 50 ids in, 100 ids out.

    python benchmarks/serving.py --sizes 3000 100000 1000000
    python benchmarks/serving.py --run RUN --sizes 3416 100000 1000000
    python benchmarks/serving.py --profile

Exports one model per catalogue with an exact index, with a partitioned one, and beside
them the same towers with TFRS BruteForce (which leaves no seen items out). Each is
asked in a process of its own that imports only TensorFlow, and through a model server:
the stock one if there is one, else the stand-in of the tests, which is Python and says
so. Vectors are synthetic: unit vectors around √N centers; the tower is not trained.

With `--run RUN`, a folder that `train` wrote, towers and items are the trained ones and
histories those of its test users; what is beyond the items of the run are items beside
them, in directions near theirs, as a refresh adds them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

from benchmarks._serving_world import (  # noqa: E402
    K,
    export_brute_force,
    export_ours,
    newest,
    synthetic_world,
    trained_world,
)

THREADS = 8

# In a process of its own: what a server would hold, and no more.
ASK = """
import json, sys, time
started = time.perf_counter()
import tensorflow as tf
imported = time.perf_counter()
folder, repeats = sys.argv[1], int(sys.argv[3])
histories = json.load(open(sys.argv[2]))
ask = tf.saved_model.load(folder).signatures["serving_default"]
loaded = time.perf_counter()
result = {"load_s": loaded - imported}
for size in (1, 32):
    rows = [[histories[(n + r) % len(histories)] for r in range(size)]
            for n in range(16)]
    rows = [tf.constant(row) for row in rows]
    first = time.perf_counter()
    ask(history=rows[0])
    result[f"first_{size}"] = 1e3 * (time.perf_counter() - first)
    times = []
    for n in range(repeats if size == 1 else max(repeats // 4, 20)):
        begun = time.perf_counter()
        ask(history=rows[n % 16])["ids"].numpy()
        times.append(1e3 * (time.perf_counter() - begun))
    times.sort()
    if size == 32:
        answers = [ask(history=row)["ids"].numpy() for row in rows[:4]]
        result["ids"] = [[i.decode() for i in row] for a in answers for row in a]
    result[f"p50_{size}"] = times[len(times) // 2]
    result[f"p99_{size}"] = times[int(len(times) * 0.99)]
# Of this process alone: `ru_maxrss` starts with what its parent had at the fork.
peak = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
result["rss_mb"] = int(peak.split()[1]) / 1024
print(json.dumps(result))
"""


def in_process(path, histories, repeats):
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(path), str(histories), str(repeats)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


class Served:
    """A server with one model, and histories to ask it about."""

    def __init__(self, base, histories, folder):
        from tests.serving import model_server
        from tfrs_selfattn.client import Client, Retry

        self.histories = histories
        started = time.perf_counter()
        self.server = model_server.ModelServer(
            folder,
            {"recommender": base},
            enable_batching="false",
            xla_cpu_compilation_enabled="true",  # for "partitioned xla", else unused
        )
        self.server.wait("recommender")
        self.start_s = time.perf_counter() - started
        self.client = Client(
            self.server.address,
            timeout=60.0,
            retry=Retry(attempts=1),
            examples=False,
        )

    def _history(self, number):
        return self.histories[number % len(self.histories)]

    def latencies(self, size, repeats):
        times = []
        for number in range(repeats):
            rows = [self._history(number + r) for r in range(size)]
            begun = time.perf_counter()
            self.client.recommend(rows)
            times.append(1e3 * (time.perf_counter() - begun))
        return sorted(times)

    def saturate(self, seconds):
        """Requests a second from 8 clients that ask all the time."""
        ends = time.perf_counter() + seconds

        def ask(number):
            count = 0
            while time.perf_counter() < ends:
                self.client.recommend([self._history(number + count)])
                count += 1
            return count

        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(ask, range(THREADS))) / seconds

    def at_rate(self, rate, seconds):
        """Latencies of requests at random moments, from when each was due."""
        draw, times, asked = random.Random(1), [], []
        with ThreadPoolExecutor(4 * THREADS) as pool:
            started, due = time.perf_counter(), 0.0

            def ask(number, due):
                self.client.recommend([self._history(number)])
                times.append(1e3 * (time.perf_counter() - started - due))

            for number in range(int(rate * seconds)):
                due += draw.expovariate(rate)
                time.sleep(max(started + due - time.perf_counter(), 0.0))
                asked.append(pool.submit(ask, number, due))
        for future in asked:
            future.result()  # raises what the server refused
        return sorted(times)

    def memory_mb(self):
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def close(self):
        self.client.close()
        self.server.stop()


def percentile(times, share):
    return times[min(int(len(times) * share), len(times) - 1)]


def through_server(base, histories, folder, repeats, seconds):
    served = Served(base, histories, folder)
    try:
        first = served.latencies(1, 1)[0]
        result = {"start_s": served.start_s, "first_1": first}
        for size in (1, 32):
            times = served.latencies(size, repeats if size == 1 else repeats // 4)
            result |= {
                f"p50_{size}": percentile(times, 0.5),
                f"p99_{size}": percentile(times, 0.99),
            }
        result["per_s"] = served.saturate(seconds)
        half = served.at_rate(result["per_s"] / 2, seconds)
        result["half_p50"] = percentile(half, 0.5)
        result["half_p99"] = percentile(half, 0.99)
        result["rss_mb"] = served.memory_mb()
        return result
    finally:
        served.close()


def profile(path, history, repeats=200):
    """What each kind of operation of `embed_query` costs at batch 1."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2

    # Without the eager runtime and Python's wrapper: as a server runs it.
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        signature = meta.signature_def["embed_query"]
        options = config_pb2.CallableOptions(
            feed=[signature.inputs["history"].name],
            fetch=[signature.outputs["embedding"].name],
        )
        ask = session._make_callable_from_options(options)
        row = np.array([[item.encode() for item in history]], object)
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            ask(row)
            times.append(1e3 * (time.perf_counter() - begun))
        times = sorted(times[20:])
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        length = len(history)
        print(f"embed_query, batch 1, T {length}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        costs, counts = {}, {}
        for _ in range(20):
            metadata = tf.compat.v1.RunMetadata()
            session.run(
                signature.outputs["embedding"].name,
                {signature.inputs["history"].name: row},
                tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE),
                metadata,
            )
            for device in metadata.step_stats.dev_stats:
                for node in device.node_stats:
                    kind = node.timeline_label.split("= ")[-1].split("(")[0]
                    kind = kind or node.node_name.split("/")[-1]
                    spent = node.op_end_rel_micros - node.op_start_rel_micros
                    costs[kind] = costs.get(kind, 0) + spent
                    counts[kind] = counts.get(kind, 0) + 1
    print("of which, traced (µs a call, times a call):")
    for kind in sorted(costs, key=costs.get, reverse=True)[:15]:
        print(f"  {kind:<28} {costs[kind] / 20:8.0f} {counts[kind] / 20:6.0f}")
    print(f"  all {sum(costs.values()) / 20:.0f} µs in {sum(counts.values()) / 20:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[3_000, 100_000])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--run", type=Path, help="of `train`: its towers and histories")
    parser.add_argument(
        "--indexes",
        nargs="+",
        default=["exact", "partitioned", "partitioned xla", "brute force"],
    )
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--no-server", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--keep", help="folder of exports, made there once and reused")
    parser.add_argument("--export-only", action="store_true")
    options = parser.parse_args()
    from tests.serving import model_server

    kind = "stock server" if model_server.STOCK else "STAND-IN server (Python)"
    print(
        f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, load {os.getloadavg()[0]:.1f}, "
        f"{os.cpu_count()} cores, towers of {options.run or 'nobody, not trained'}, "
        f"TF_ENABLE_ONEDNN_OPTS={os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'not set')}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            folder = Path(options.keep or scratch) / str(size)
            folder.mkdir(parents=True, exist_ok=True)
            world, answers = None, {}
            asked = folder / "histories.json"
            bases = {i: folder / i.replace(" ", "-") for i in options.indexes}
            whole = asked.exists() and all(map(newest, bases.values()))
            if options.profile or not whole:
                world = (
                    synthetic_world(size, options.width)
                    if options.run is None
                    else trained_world(options.run, size)
                )
                asked.write_text(json.dumps(world.histories))
                size = len(world.ids)
            histories = json.loads(asked.read_text())
            if options.profile:
                profile(export_ours(world, folder / "profile", "exact"), histories[0])
                continue
            for index, base in bases.items():
                path = newest(base)
                if path is None:
                    begun = time.perf_counter()
                    if index == "brute force":
                        path = export_brute_force(world, base)
                    else:
                        path = export_ours(world, base, index)
                    took = time.perf_counter() - begun
                    print(
                        f"{size:>9,} {index:<12} exported in {took:.1f} s", flush=True
                    )
                if options.export_only:
                    continue
                result = in_process(path, asked, options.repeats)
                answers[index] = result.pop("ids")
                if "exact" in answers and index.startswith("partitioned"):
                    result["recall"] = overlap(answers["exact"], answers[index])
                show(size, index, "in process", result)
                if not options.no_server:
                    result = through_server(
                        base, histories, folder, options.repeats, options.seconds
                    )
                    show(size, index, kind, result)


def overlap(right, found):
    """The share of the right ids that were found."""
    pairs = zip(right, found, strict=True)
    return sum(len(set(a) & set(b)) for a, b in pairs) / (K * len(right))


def show(size, index, where, result):
    figures = "  ".join(f"{name} {value:.4g}" for name, value in result.items())
    now = time.strftime("%H:%M:%S")
    print(f"{now} {size:>9,} {index:<12} {where}: {figures}", flush=True)


if __name__ == "__main__":
    main()
