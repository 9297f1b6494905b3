"""What more machines cost, measured on one: a worker more, a shard more.

    python benchmarks/scale.py workers
    python benchmarks/scale.py shards --output shards.json

`workers` trains the same batches in one process and in two, by
`MultiWorkerMirroredStrategy` over loopback, and prints the time of a step, that of an
exchange of as many numbers as there are weights, and the peak memory of a process. On
two cores no speed-up is owed. `shards` exports one catalogue whole and in shards,
serves each form by a model server of its own (the stock one, else the stand-in of the
tests), and asks one request at a time. Vectors and events are synthetic.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

ITEMS, WIDTH, LENGTH, BATCH = 3_416, 64, 100, 32
STEPS, WARM = 12, 4


def worker() -> None:
    """Trains some steps, and prints the median time of one and the peak of memory."""
    import tensorflow as tf

    from tfrs_selfattn import data, training
    from tfrs_selfattn.models import presets
    from tfrs_selfattn.training.replicas import Replicas

    kind = "multi-worker" if "TF_CONFIG" in os.environ else "single"
    replicas = Replicas.of(training.make_strategy(kind))
    tf.keras.utils.set_random_seed(0)
    log = data.generate_events(2_000, ITEMS, 100.0, seed=0)
    split = data.leave_one_out(data.build_sequences(data.events_from_frame(log)))
    rows = data.pack_rows(split, row_length=LENGTH)
    with replicas.scope():
        model = presets.sasrec(
            len(split.sequences.vocabulary),
            embedding_dim=WIDTH,
            max_length=LENGTH,
            dropout=0.0,
        )
        model.compile(tf.keras.optimizers.Adam(1e-3))
    part = {"worker": replicas.worker, "num_workers": replicas.num_workers}
    batches = data.training_dataset(rows, batch_size=BATCH, seed=0, **part)
    seconds = []

    class Clock(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            seconds.append(time.perf_counter() - self.started)

    model.fit(
        replicas.distribute(batches),
        steps_per_epoch=STEPS + WARM,
        verbose=0,
        callbacks=[Clock()],
    )
    weights = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    exchange = 0.0
    if replicas.num_workers > 1:
        gradients = tf.ones([weights])

        def add_up() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

        run = tf.function(lambda: replicas.strategy.run(add_up))
        took = []
        for _ in range(30):
            started = time.perf_counter()
            run()[0].numpy()
            took.append(time.perf_counter() - started)
        exchange = float(np.median(took[5:]))
    measured = {
        "step": float(np.median(seconds[WARM:])),
        "weights": weights,
        "exchange": exchange,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(measured))


def workers() -> None:
    from tests.ports import free_ports

    def run(count: int) -> dict[str, float]:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        started = []
        for index in range(count):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            more = {"TF_CONFIG": config} if count > 1 else {}
            started.append(
                subprocess.Popen(
                    [sys.executable, __file__, "worker"],
                    env={**os.environ, "PYTHONPATH": str(REPOSITORY), **more},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        outputs = [process.communicate()[0] for process in started]
        seen = [json.loads(output.splitlines()[-1]) for output in outputs]
        return {**seen[0], "peak_gb": max(each["peak_gb"] for each in seen)}

    one, two = run(1), run(2)
    print(
        f"weights: {one['weights']:,}, {one['weights'] * 4 / 1e6:.2f} MB of gradients"
    )
    print("| workers | ms a step of 32 rows of 100 | peak memory of a process |")
    print("|---|---|---|")
    for label, seen in (("1", one), ("2, on the same two cores", two)):
        print(f"| {label} | {seen['step'] * 1e3:.0f} | {seen['peak_gb']:.2f} GB |")
    exchange = two["exchange"]
    print(
        f"\nAn exchange of the gradients alone: {exchange * 1e3:.1f} ms, "
        f"{exchange / two['step']:.0%} of a step."
    )


@contextlib.contextmanager
def serving(base: Path, models: dict[str, Path], prefix: str) -> Iterator[Any]:
    """A server of the models whose names begin so."""
    from tests.serving import model_server

    chosen = {name: path for name, path in models.items() if name.startswith(prefix)}
    server = model_server.ModelServer(base, chosen)
    try:
        server.wait(*chosen)
        yield server
    finally:
        server.stop()


def memory_of(server: Any) -> float:
    """Resident memory of a server, in GB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(row for row in status.splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 2**20


def shards(items: int, requests: int, output: Path | None) -> None:
    import tensorflow as tf

    from tests.serving import model_server
    from tfrs_selfattn.client import Client, ShardedClient
    from tfrs_selfattn.data import Vocabulary
    from tfrs_selfattn.export import export_recommender, export_shards
    from tfrs_selfattn.models import presets

    tf.keras.utils.set_random_seed(0)
    model = presets.sasrec(num_items=items, embedding_dim=WIDTH, max_length=50, seed=0)
    names = tuple(f"item-{number}" for number in range(items))
    vocabulary = Vocabulary(names, np.arange(items, 0, -1))
    draw = np.random.default_rng(0)
    histories = [
        [[names[row] for row in draw.integers(0, items, 50)]] for _ in range(requests)
    ]

    def times(ask) -> list[float]:
        found = []
        for history in histories:
            started = time.perf_counter()
            ask(history)
            found.append((time.perf_counter() - started) * 1e3)
        return found[len(found) // 5 :]

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        options = {"vocabulary": vocabulary, "k": 100, "verify": False}
        export_recommender(model, base / "whole", **options)
        models = {"whole": base / "whole"}
        for count in (1, 2, 4):
            export_shards(model, base / str(count), num_shards=count, **options)
            for path in (base / str(count)).iterdir():
                models[f"{count}-{path.name}"] = path
        measured = {"items": items, "cores": os.cpu_count(), "runs": []}
        with serving(base, models, "whole") as server:
            with Client(server.address, model="whole", timeout=60) as client:
                measured["whole_ms"] = times(client.recommend)
            measured["whole_gb"] = memory_of(server)
        for count in (1, 2, 4):
            with serving(base, models, f"{count}-") as server:
                run: dict[str, object] = {"shards": count}
                at = f"{server.address}/{count}-"
                places = [f"{at}shard-{n}-of-{count}" for n in range(count)]
                with ShardedClient.connect(f"{at}query", places, timeout=60) as client:
                    run["merged_ms"] = times(client.recommend)
                with Client(server.address, model=f"{count}-query", timeout=60) as one:
                    alone = times(one.embed_query)
                    run["query_ms"] = float(np.median(alone))
                with ShardedClient.connect(
                    f"{at}query", places[:1], timeout=60
                ) as client:
                    first = np.array(times(client.recommend))
                run["one_shard_ms"] = (first - run["query_ms"]).clip(0.01).tolist()
                run["gb"] = memory_of(server)
                measured["runs"].append(run)
    kind = "stock server" if model_server.STOCK else "STAND-IN server (Python)"
    print(f"{items:,} items x {WIDTH}, exact, {kind}, one request at a time, ms\n")
    print("| | p50 | p99 | beside the whole index, p50 | memory of the server |")
    print("|---|---|---|---|---|")
    whole = np.percentile(measured["whole_ms"], [50, 99])
    print(
        f"| whole index | {whole[0]:.2f} | {whole[1]:.2f} | "
        f"| {measured['whole_gb']:.2f} GB |"
    )
    for run in measured["runs"]:
        p50, p99 = np.percentile(run["merged_ms"], [50, 99])
        label = f"query model, and shards: {run['shards']}"
        beside = f"{p50 - whole[0]:+.2f} | {run['gb']:.2f} GB"
        print(f"| {label} | {p50:.2f} | {p99:.2f} | {beside} |")
    if output:
        output.write_text(json.dumps(measured))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["workers", "shards", "worker"])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "shards":
        shards(arguments.items, arguments.requests, arguments.output)
    elif arguments.what == "workers":
        workers()
    else:
        worker()


if __name__ == "__main__":
    main()
