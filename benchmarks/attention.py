"""Our attention beside `MultiHeadAttention` of both Keras versions, in one run.

    python benchmarks/attention.py                # the whole table, about 15 minutes
    python benchmarks/attention.py --lengths 200  # a part of it

Prints medians and ratios and writes `attention.json` and `attention.png` (extra
`plot`) into `--output`. Layers take turns within a process, so that a drift of the
machine's speed meets both; each Keras has a process of its own. Four parts:

- layers: forward and training (forward + backward), padded causal rows;
- encoder: a training step of the `sasrec` encoder beside the same encoder composed from
  `tf_keras` layers;
- memory: peak resident memory of a training step against T, short form and blockwise;
- peak: what this machine's matrix product reaches, as a scale.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, WIDTH = 128, 64
HEADS = (1, 2, 4)
LENGTHS = (50, 200, 1024)
DROPOUT = 0.1
MEMORY_LENGTHS = (512, 1024, 2048, 4096, 8192)
MEMORY_LIMIT_GB = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--heads", type=int, nargs="+", default=HEADS)
    parser.add_argument(
        "--repeats", type=int, default=9, help="more of them below T = 512"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["layers", "encoder", "memory"],
        choices=["layers", "encoder", "memory"],
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker.partition(":")[0]](options)))
        return

    results: dict[str, Any] = {"load_before": os.getloadavg()}
    results["peak_gflops"] = run("peak", options)["gflops"]
    print(f"matrix product peak: {results['peak_gflops']:.0f} GFLOP/s")
    if "layers" in options.parts:
        results["layers"] = []
        for keras in ("legacy", "keras3"):
            for length in options.lengths:
                for heads in options.heads:
                    row = run(f"layer:{length}:{heads}", options, keras=keras)
                    results["layers"].append(row)
                    print_layer(row, results["peak_gflops"])
    if "encoder" in options.parts:
        results["encoder"] = run("encoder", options)
        if "failed" not in results["encoder"]:
            print_pair("sasrec encoder, training step", results["encoder"])
    if "memory" in options.parts:
        results["memory"] = measure_memory(options)
    results["load_after"] = os.getloadavg()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "attention.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(results, options.output / "attention.png")


def run(worker: str, options: argparse.Namespace, keras: str = "legacy") -> Any:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--worker", worker]
    command += ["--repeats", str(options.repeats)]
    env = os.environ | {
        "TF_USE_LEGACY_KERAS": "1" if keras == "legacy" else "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"failed": done.returncode, "worker": worker, "keras": keras}
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each step; the steps alternate."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):  # trace, then touch all memory
            step()
    for _ in range(repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_worker(options: argparse.Namespace) -> Any:
    import tensorflow as tf

    size = 2048
    left, right = (tf.random.normal([size, size]) for _ in range(2))
    product = tf.function(lambda: tf.matmul(left, right), autograph=False)
    times = take_turns({"product": lambda: product().numpy()}, options.repeats)
    return {"gflops": 2 * size**3 / times["product"] / 1e6}


def layer_worker(options: argparse.Namespace) -> Any:
    import tensorflow as tf

    from tfrs_selfattn._keras import KERAS_3, keras
    from tfrs_selfattn.layers import MultiHeadSelfAttention

    length, heads = (int(part) for part in options.worker.split(":")[1:])
    inputs, mask = padded_rows(length)
    row: dict[str, Any] = {
        "keras": "Keras 3" if KERAS_3 else "tf_keras",
        "T": length,
        "H": heads,
    }
    for dropout in (0.0, DROPOUT):
        ours = MultiHeadSelfAttention(heads, WIDTH // heads, dropout=dropout)
        theirs = keras.layers.MultiHeadAttention(heads, WIDTH // heads, dropout=dropout)
        calls = {
            "ours": (ours, {"mask": mask}),
            "theirs": (
                lambda x, layer=theirs, **options: layer(x, x, **options),
                {"attention_mask": mask[:, tf.newaxis], "use_causal_mask": True},
            ),
        }
        variables = {}
        for name, layer in (("ours", ours), ("theirs", theirs)):
            call, arguments = calls[name]
            call(inputs, **arguments)
            variables[name] = weights_of(layer)
        steps = {}
        for name, (call, arguments) in calls.items():
            if dropout == 0.0:
                steps[f"{name}/forward"] = forward(call, arguments, inputs)
            steps[f"{name}/train"] = training(call, arguments, inputs, variables[name])
        # A short step says as much only when it is taken more often.
        times = take_turns(steps, options.repeats * max(1, 512 // length))
        for step in ("forward", "train"):
            if f"ours/{step}" in times:
                label = step if dropout == 0.0 else f"{step}, dropout {dropout}"
                row[label] = {
                    "ours_ms": times[f"ours/{step}"],
                    "theirs_ms": times[f"theirs/{step}"],
                    "ratio": times[f"theirs/{step}"] / times[f"ours/{step}"],
                }
    return row


def padded_rows(length: int) -> tuple[Any, Any]:
    """Random inputs and a left-padded mask; histories fill half of a row on average."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    inputs = tf.constant(random.normal(size=[BATCH, length, WIDTH]), tf.float32)
    real = random.integers(1, length + 1, size=BATCH)
    return inputs, tf.constant(np.arange(length) >= length - real[:, None])


def weights_of(layer: Any) -> list[Any]:
    """Trainable variables as `tf.Variable`s, whichever Keras made them."""
    return [
        getattr(weight, "value", weight) if hasattr(weight, "path") else weight
        for weight in layer.trainable_variables
    ]


def forward(call: Any, arguments: Any, inputs: Any) -> Callable[[], Any]:
    import tensorflow as tf

    graph = tf.function(lambda x: call(x, training=False, **arguments), autograph=False)
    return lambda: graph(inputs).numpy()


def training(
    call: Any, arguments: Any, inputs: Any, variables: list[Any]
) -> Callable[[], Any]:
    """Forward and backward pass, for the inputs and all weights."""
    import tensorflow as tf

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(call(x, training=True, **arguments) ** 2)
        gradients = tape.gradient(loss, [x, *variables])
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    graph = tf.function(step, autograph=False)
    return lambda: [gradient.numpy() for gradient in graph(inputs)]


def encoder_worker(options: argparse.Namespace) -> Any:
    """The sasrec encoder, ours and from `tf_keras` layers, d 64, 2 blocks, T 200."""
    import tensorflow as tf

    from tfrs_selfattn._keras import keras
    from tfrs_selfattn.layers import encoders

    length, rate = 200, 0.2
    inputs, mask = padded_rows(length)
    ours = encoders.sasrec(WIDTH, max_length=length, dropout=rate)

    class Peer(keras.Model):  # type: ignore[misc]
        """The same structure: query-only norms, ReLU, residuals, learned positions."""

        def __init__(self) -> None:
            super().__init__()
            layers = keras.layers
            self.positions = layers.Embedding(length, WIDTH)
            self.drop = layers.Dropout(rate)
            self.blocks = [
                {
                    "norm_1": layers.LayerNormalization(epsilon=1e-6),
                    "attention": layers.MultiHeadAttention(1, WIDTH, dropout=rate),
                    "drop": layers.Dropout(rate),
                    "norm_2": layers.LayerNormalization(epsilon=1e-6),
                    "expand": layers.Dense(WIDTH, "relu"),
                    "drop_1": layers.Dropout(rate),
                    "contract": layers.Dense(WIDTH),
                    "drop_2": layers.Dropout(rate),
                }
                for _ in range(2)
            ]
            self.norm = layers.LayerNormalization(epsilon=1e-6)

        def call(self, x: Any, mask: Any = None, training: Any = None) -> Any:
            x = x * WIDTH**0.5 + self.positions(tf.range(length)[::-1])
            x = self.drop(x, training=training)
            for block in self.blocks:
                query = block["norm_1"](x)
                change = block["attention"](
                    query,
                    x,
                    attention_mask=mask[:, tf.newaxis],
                    use_causal_mask=True,
                    training=training,
                )
                x = block["norm_2"](query + block["drop"](change, training=training))
                hidden = block["drop_1"](block["expand"](x), training=training)
                x += block["drop_2"](block["contract"](hidden), training=training)
            return self.norm(x)

    theirs = Peer()
    steps = {}
    for name, encoder in (("ours", ours), ("theirs", theirs)):
        encoder(inputs, mask=mask)
        variables = encoder.trainable_variables
        steps[name] = training(encoder, {"mask": mask}, inputs, variables)
    times = take_turns(steps, options.repeats)
    return {
        "ours_ms": times["ours"],
        "theirs_ms": times["theirs"],
        "ratio": times["theirs"] / times["ours"],
    }


def memory_worker(options: argparse.Namespace) -> Any:
    """Peak memory and seconds of one training step, H 4, D 64, one row."""
    form, length = options.worker.split(":")[1:]
    import tensorflow as tf

    from tfrs_selfattn.layers import MultiHeadSelfAttention

    block_size = {"short": None, "blockwise": 512}[form]
    layer = MultiHeadSelfAttention(4, WIDTH // 4, block_size=block_size)
    layer(tf.zeros([1, 8, WIDTH]))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inputs = tf.random.normal([BATCH_OF_LONG, int(length), WIDTH])
    step = training(layer, {}, inputs, layer.trainable_variables)
    started = time.perf_counter()
    step()
    return {
        "form": form,
        "T": int(length),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "base_gb": base / 2**20,
        "seconds": time.perf_counter() - started,
    }


BATCH_OF_LONG = 8


def measure_memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The curve of both forms; the short one stops where it no longer fits."""
    rows = []
    print(f"memory of a training step, {BATCH_OF_LONG} rows, H 4, D {WIDTH}")
    for length in MEMORY_LENGTHS:
        for form in ("short", "blockwise"):
            row = run(f"memory:{form}:{length}", options)
            row = {"form": form, "T": length} | row
            rows.append(row)
            if "failed" in row:
                print(f"  T {length:5}  {form:9}  failed ({row['failed']})")
            else:
                print(
                    f"  T {length:5}  {form:9}  {row['peak_gb']:6.2f} GB"
                    f"  {row['seconds']:6.2f} s"
                )
    return rows


def print_layer(row: dict[str, Any], peak: float) -> None:
    if "failed" in row:
        print(f"{row['worker']} ({row['keras']}) failed with {row['failed']}")
        return
    label = f"{row['keras']:8} T {row['T']:4}  H {row['H']}"
    for step, figures in row.items():
        if isinstance(figures, dict):
            share = flops(row["T"], backward=step != "forward") / figures["ours_ms"]
            print_pair(f"{label}  {step}", figures, f"  {share / 1e6 / peak:4.0%} peak")


def flops(length: int, *, backward: bool) -> float:
    """Operations of a causal layer: projections, and half of the T * T products."""
    projections = 2 * BATCH * length * WIDTH * WIDTH * 4
    products = 2 * BATCH * length * length * WIDTH * 2 / 2
    return (projections + products) * (3 if backward else 1)


def print_pair(label: str, figures: dict[str, float], note: str = "") -> None:
    print(
        f"{label:45} ours {figures['ours_ms']:8.1f} ms  "
        f"theirs {figures['theirs_ms']:8.1f} ms  {figures['ratio']:5.2f} x{note}",
        flush=True,
    )


def draw(results: dict[str, Any], path: Path) -> None:
    """Ratios on the left, memory on the right; needs matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: pip install 'tfrs-selfattn[plot]'")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    rows = [row for row in results.get("layers", []) if "train" in row]
    labels = [f"{row['keras']}\nT {row['T']}\nH {row['H']}" for row in rows]
    for offset, step in ((-0.2, "forward"), (0.2, "train")):
        ratios = [row[step]["ratio"] for row in rows]
        positions = [index + offset for index in range(len(rows))]
        left.bar(positions, ratios, width=0.4, label=step)
    left.axhline(1, color="black", linewidth=0.8)
    left.set_xticks(range(len(rows)), labels, fontsize=6)
    left.set_ylabel("times as fast as MultiHeadAttention")
    left.set_title(f"Padded causal self-attention, B {BATCH}, D {WIDTH}, CPU")
    left.legend()
    for form in ("short", "blockwise"):
        points = [
            (row["T"], row["peak_gb"])
            for row in results.get("memory", [])
            if row["form"] == form and "peak_gb" in row
        ]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", label=form)
    right.axhline(MEMORY_LIMIT_GB, color="grey", linestyle=":", label="4 GB")
    right.set_xlabel("T")
    right.set_ylabel("peak resident memory, GB")
    right.set_title(f"A training step of {BATCH_OF_LONG} rows, H 4, D {WIDTH}")
    right.set_yscale("log")
    right.legend()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


WORKERS = {
    "encoder": encoder_worker,
    "layer": layer_worker,
    "memory": memory_worker,
    "peak": peak_worker,
}

if __name__ == "__main__":
    main()
