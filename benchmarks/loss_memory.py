"""Memory and speed of the losses, forward and backward.

    python benchmarks/loss_memory.py            # 25,000 queries by 500,000 candidates
    python benchmarks/loss_memory.py --speed    # each loss, sizes of ML-1M and Beauty

The first runs `FullSoftmax` in a process of its own and prints that process's peak of
resident memory and the time of the step. The second prints the time of a step of every
loss, and what share of the speed of a 2048³ matrix product the full softmax reaches.
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
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WIDTH = 64
# Rows of a batch and real items of each, as packed ML-1M and packed Beauty give them.
BATCHES = {"ml-1m": (64, 200, 3_416), "amazon-beauty": (256, 50, 12_101)}
LIMIT_GB = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=25_000)
    parser.add_argument("--candidates", type=int, default=500_000)
    parser.add_argument("--block-rows", type=int, help="queries scored at a time")
    parser.add_argument("--speed", action="store_true", help="time every loss instead")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--step", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speed:
        for name, shape in BATCHES.items():
            measure_speed(name, *shape, options.repeats)
        return 0
    if options.step:
        print(json.dumps(measure_memory(options)))
        return 0
    # A process of its own: what it holds is the loss and TensorFlow, nothing else.
    command = [sys.executable, __file__, *sys.argv[1:], "--step"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{options.queries:,} queries x {options.candidates:,} candidates x {WIDTH}: "
        f"peak {result['peak_gb']:.2f} GB (TensorFlow alone {result['idle_gb']:.2f}), "
        f"{result['seconds']:.1f} s, {result['gflops']:.0f} GFLOP/s; "
        f"the scores alone would take {result['scores_gb']:.0f} GB"
    )
    return int(result["peak_gb"] >= LIMIT_GB)


def measure_memory(options: argparse.Namespace) -> dict[str, float]:
    import tensorflow as tf

    from tfrs_selfattn.losses import FullSoftmax

    shape = [options.queries, options.candidates]
    draw = tf.random.stateless_normal
    queries = draw([shape[0], WIDTH], [0, 1])
    candidates = draw([shape[1], WIDTH], [0, 2], stddev=0.3)
    targets = tf.random.stateless_uniform(shape[:1], [0, 3], 0, shape[1], tf.int32)
    idle = peak_gb()
    step = training_step(FullSoftmax(block_rows=options.block_rows))
    start = time.perf_counter()
    loss, *gradients = step(queries, candidates, targets)
    assert all(bool(tf.math.is_finite(tf.reduce_sum(x))) for x in (loss, *gradients))
    seconds = time.perf_counter() - start
    return {
        "idle_gb": idle,
        "peak_gb": peak_gb(),
        "seconds": seconds,
        "gflops": 6e-9 * shape[0] * shape[1] * WIDTH / seconds,
        "scores_gb": 4e-9 * shape[0] * shape[1],
    }


def peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6


def training_step(loss, **options):
    import tensorflow as tf

    @tf.function(autograph=False)
    def step(queries, candidates, targets):
        with tf.GradientTape() as tape:
            tape.watch([queries, candidates])
            value = loss(queries, candidates, targets, **options)
        gradients = tape.gradient(value, [queries, candidates])
        return value, *(tf.convert_to_tensor(gradient) for gradient in gradients)

    return step


def measure_speed(name: str, rows: int, length: int, num: int, repeats: int) -> None:
    import numpy as np
    import tensorflow as tf

    from tfrs_selfattn import losses

    random = np.random.default_rng(0)
    # A popularity of the shape of real ones, and segments of a quarter of a row.
    counts = np.maximum(1, 3e4 / np.arange(1, num + 1) ** 0.8).astype(int)
    history = random.choice(num, [rows, length], p=counts / counts.sum()) + 1
    targets = np.roll(history, -1, axis=1)
    segments = np.repeat(np.arange(1, 5), -(-length // 4))[:length] + 0 * history
    context = losses.batch_context(history, targets, segments)
    queries = tf.constant(random.normal(size=[rows * length, WIDTH]), tf.float32)
    table = tf.constant(0.3 * random.normal(size=[num, WIDTH]), tf.float32)
    aims = tf.constant(targets.reshape(-1) - 1, tf.int32)

    uniform, popular = losses.UniformNegatives, losses.PopularityNegatives
    in_batch = losses.InBatchNegatives(counts)
    sampled = losses.SampledSoftmax
    subjects = {
        "FullSoftmax": losses.FullSoftmax(),
        "SampledSoftmax 256, batch": sampled(uniform(256)),
        "SampledSoftmax 256, row": sampled(uniform(256), shared_by="row"),
        "SampledSoftmax 256 by popularity": sampled(popular(counts, 256)),
        "SampledSoftmax 3,000": sampled(uniform(3000)),
        "SampledSoftmax in-batch": sampled(in_batch),
        "SampledSoftmax in-batch + 256": sampled([in_batch, uniform(256)]),
        "GBCE 256, row": losses.GBCE(256),
        "GBCE 256, batch": losses.GBCE(256, shared_by="batch"),
        "BinaryCrossEntropy 1": losses.BinaryCrossEntropy(),
        "BinaryCrossEntropy 256, batch": losses.BinaryCrossEntropy(
            uniform(256), shared_by="batch"
        ),
    }
    steps = {
        label: training_step(
            loss, **({"context": context} if losses.takes_context(loss) else {})
        )
        for label, loss in subjects.items()
    }
    square = tf.constant(random.normal(size=[2048, 2048]), tf.float32)
    product = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    steps["2048^3"] = lambda *_: (product(square),)
    times: dict[str, list[float]] = {label: [] for label in steps}
    for repeat in range(repeats + 1):  # the first traces
        for label, step in steps.items():
            start = time.perf_counter()
            step(queries, table, aims)[0].numpy()
            if repeat:
                times[label].append(time.perf_counter() - start)
    peak = 2e-9 * 2048**3 / statistics.median(times.pop("2048^3"))
    print(f"\n{name}: {rows * length:,} queries x {num:,} candidates x {WIDTH}")
    full = statistics.median(times["FullSoftmax"])
    speed = 6e-9 * rows * length * num * WIDTH / full
    print(f"2048^3 {peak:.0f} GFLOP/s; FullSoftmax {speed:.0f}, {speed / peak:.0%}")
    for label, seconds in times.items():
        median, best = statistics.median(seconds), min(seconds)
        print(
            f"{label:<34}{median * 1e3:8.1f} ms  (best {best * 1e3:.1f})"
            f"{full / median:8.2f} x FullSoftmax"
        )


if __name__ == "__main__":
    raise SystemExit(main())
