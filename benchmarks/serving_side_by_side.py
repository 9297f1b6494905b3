"""Exports asked in turn, so that other work on the machine falls on all of them alike.

    python benchmarks/serving.py --sizes 1000000 --keep exports --export-only
    python benchmarks/serving_side_by_side.py exports/1000000/brute-force/1 \
        exports/1000000/partitioned/1 --batch 1 32

Each is loaded into a session of its own, as a server runs it. Prints milliseconds a
call (the fastest, p10, p50 and p99) and how many times as fast as the first export each
is, by the fastest and by p50. The fastest call is what the work costs without waiting
for a processor; on an idle machine p50 is close to it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

LENGTH = 50
WARMUP = 20


def load(path, signature_name):
    """A function from histories to the outputs, without the eager runtime."""
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
    signature = meta.signature_def[signature_name]
    options = config_pb2.CallableOptions(
        feed=[signature.inputs["history"].name],
        fetch=[output.name for output in signature.outputs.values()],
    )
    return session._make_callable_from_options(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exports", type=Path, nargs="+", help="versions, peer first")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    # The same towers: the ids of one of our exports are those of all.
    vocabularies = [path / "assets" / "vocabulary.txt" for path in options.exports]
    ids = next(p for p in vocabularies if p.exists()).read_bytes().split()[:2000]
    asks = {path: load(path, options.signature) for path in options.exports}
    draw = np.random.default_rng(0)
    for size in options.batch:
        rows = draw.choice(np.array(ids, object), [16, size, LENGTH])
        times = {path: [] for path in asks}
        for number in range(WARMUP + options.repeats):
            for path, ask in asks.items():
                begun = time.perf_counter()
                ask(rows[number % 16])
                times[path].append(1e3 * (time.perf_counter() - begun))
        times = {path: sorted(given[WARMUP:]) for path, given in times.items()}
        first = times[options.exports[0]]
        print(f"batch {size}, load {os.getloadavg()[0]:.1f}")
        for path, given in times.items():
            p10, p50, p99 = (given[int(len(given) * s)] for s in (0.1, 0.5, 0.99))
            print(
                f"  min {given[0]:8.2f}  p10 {p10:8.2f}  p50 {p50:8.2f}  p99 {p99:8.2f}"
                f"  x{first[0] / given[0]:.1f} x{first[len(first) // 2] / p50:.1f}"
                f"  {path}",
                flush=True,
            )


if __name__ == "__main__":
    main()
