"""How fast evaluation is, how much memory it takes, and `FactorizedTopK` beside it.

Three questions, one command:

    python benchmarks/evaluation.py --ml-1m FOLDER

1. MovieLens-1M (FOLDER holds `ratings.dat`; without it, generated events of the same
   size): seconds to rank the whole catalogue for all users, scoring included.
2. Peak memory of 50,000 and of 200,000 users over 100,000 items: it must not grow.
3. A user's own TFRS model: `CorpusTopK` beside `FactorizedTopK`, same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

STEPS = ("speed", "memory", "top_k")
ITEMS, USERS = 100_000, (50_000, 200_000)
KS = (1, 5, 10, 50, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ml-1m", type=Path, help="folder with ratings.dat")
    parser.add_argument("--users", type=int, nargs="+", default=USERS, help="step 2")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory(options.memory_of)))
        return
    results = {}
    if "speed" in options.steps:
        results["speed"] = speed(options.ml_1m)
    if "memory" in options.steps:
        results["memory"] = [in_own_process(users) for users in options.users]
    if "top_k" in options.steps:
        results["top_k"] = top_k()
    if options.json:
        print(json.dumps(results))
        return
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    )
    for name, result in results.items():
        print(f"\n{name}")
        rows = result if isinstance(result, list) else [result]
        for row in rows:
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()))


def movielens(folder: Path | None):
    """The split of MovieLens-1M without items of fewer than five events."""
    import polars as pl

    from tfrs_selfattn import data

    if folder is None:
        frame = data.generate_events(6_040, 3_416, 165.5, seed=0, exponent=0.8)
        minimum = 1
    else:
        lines = (folder / "ratings.dat").read_text().splitlines()
        frame = pl.DataFrame(
            [line.split("::") for line in lines],
            schema=["user_id", "item_id", "rating", "timestamp"],
            orient="row",
        ).with_columns(pl.col("timestamp").cast(pl.Int64))
        minimum = 5
    events = data.events_from_frame(frame.drop("rating", strict=False))
    return data.leave_one_out(data.build_sequences(events, min_item_events=minimum))


def speed(folder: Path | None) -> list[dict[str, object]]:
    """Seconds of `evaluate_ranking` and of `model.evaluate`, second call of each."""
    from tfrs_selfattn import data
    from tfrs_selfattn.evaluation import evaluate_ranking
    from tfrs_selfattn.models import presets

    split = movielens(folder)
    counts = split.train_counts()[1:]
    model = presets.sasrec(len(counts))
    model.compile()
    score = model.scorer()
    dataset = data.evaluation_dataset(split.test.by_length(), batch_size=256)
    sizes = {"users": len(split.test), "items": len(counts)}
    rows = []
    found = [evaluate_ranking(score, split.test, item_counts=counts) for _ in range(4)]
    rows.append(
        sizes
        | {
            "evaluate_ranking_s": median([result.seconds for result in found[1:]]),
            "of_it_scoring_s": median([result.score_seconds for result in found[1:]]),
        }
    )
    times = [timed(model.evaluate, dataset, verbose=0) for _ in range(4)]
    rows.append(sizes | {"model_evaluate_s": median(times[1:])})
    return rows


def memory(users: int) -> dict[str, object]:
    """Peak memory of streaming so many users; a plain dot product scores."""
    import numpy as np
    import polars as pl
    import tensorflow as tf

    from tfrs_selfattn import data
    from tfrs_selfattn.evaluation import evaluate_ranking

    # Events straight as arrays: reading a log is the business of data_memory.py.
    random = np.random.default_rng(0)
    items = random.integers(1, ITEMS + 1, (users, 8)).astype(np.int32)
    vocabulary = data.Vocabulary(
        tuple(f"i{n}" for n in range(ITEMS)), np.ones(ITEMS, np.int64)
    )
    sequences = data.Sequences(
        user_ids=pl.Series([f"u{n}" for n in range(users)]),
        offsets=np.arange(users + 1, dtype=np.int64) * 8,
        items=items.reshape(-1),
        timestamps=np.tile(np.arange(8, dtype=np.int64), users),
        vocabulary=vocabulary,
    )
    split = data.leave_one_out(sequences)
    counts = split.train_counts()[1:]
    table = tf.Variable(tf.random.stateless_normal([ITEMS, 32], [1, 2]))

    @tf.function
    def score(histories: tf.Tensor) -> tf.Tensor:
        return tf.matmul(
            tf.gather(table, histories[:, -1] - 1), table, transpose_b=True
        )

    before = peak_gb()
    result = evaluate_ranking(score, split.test, item_counts=counts)
    return {
        "users": users,
        "items": ITEMS,
        "seconds": round(result.seconds, 1),
        "users_per_s": round(users / result.seconds),
        "before_gb": round(before, 2),
        "peak_gb": round(peak_gb(), 2),
    }


def in_own_process(users: int) -> dict[str, object]:
    command = [sys.executable, __file__, "--memory-of", str(users)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def top_k() -> list[dict[str, object]]:
    """An evaluation of one two-tower model with each metric in its task."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    from tfrs_selfattn.evaluation import CorpusTopK

    keras, width = tf.keras, 64

    class TwoTowers(tfrs.Model):
        def __init__(self, ids, queries, candidates):
            super().__init__()
            self.queries, self.candidates = queries, candidates
            self.items = tf.data.Dataset.from_tensor_slices(ids).batch(4096)
            self.task = tfrs.tasks.Retrieval()

        def embedded(self):
            return self.items.map(lambda ids: (ids, self.candidates(ids)))

        def compute_loss(self, inputs, training=False):
            return self.task(
                self.queries(inputs["user"]),
                self.candidates(inputs["item"]),
                candidate_ids=inputs["item"],
                compute_metrics=not training,
            )

    rows = []
    for num_items, num_rows, batch in ((3_416, 6_040, 256), (100_000, 2_048, 256)):
        random = np.random.default_rng(0)
        ids = np.array([f"i{n}" for n in range(num_items)])
        keras.utils.set_random_seed(0)
        lookup = keras.layers.StringLookup(vocabulary=ids, mask_token=None)
        table = keras.layers.Embedding(num_items + 1, width)
        model = TwoTowers(
            ids, keras.layers.Embedding(6_040, width), keras.Sequential([lookup, table])
        )
        inputs = {
            "user": random.integers(0, 6_040, num_rows),
            "item": ids[random.integers(0, num_items, num_rows)],
        }
        dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(batch)
        streaming = tfrs.layers.factorized_top_k.Streaming(k=max(KS))
        frozen = tfrs.layers.factorized_top_k.BruteForce(k=max(KS))
        metrics = {
            "CorpusTopK": CorpusTopK(model.embedded(), ks=KS),
            "FactorizedTopK": tfrs.metrics.FactorizedTopK(
                streaming.index_from_dataset(model.embedded()), ks=KS
            ),
            # Not refreshed: the best that FactorizedTopK can do with a fixed index.
            "FactorizedTopK, BruteForce": tfrs.metrics.FactorizedTopK(
                frozen.index_from_dataset(model.embedded()), ks=KS
            ),
        }
        seconds, figures = {}, {}
        for name, metric in metrics.items():
            model.task.factorized_metrics = [metric]
            model.compile()
            model.evaluate(dataset, verbose=0)
            times = [timed(model.evaluate, dataset, verbose=0) for _ in range(3)]
            seconds[name] = median(times)
            figures[name] = [float(value) for value in metric.result()]
        for name, found in figures.items():
            np.testing.assert_allclose(found, figures["CorpusTopK"], rtol=1e-5)
            rows.append(
                {
                    "items": num_items,
                    "queries": num_rows,
                    "metric": name,
                    "seconds": seconds[name],
                    "ratio": round(seconds[name] / seconds["CorpusTopK"], 1),
                }
            )
    return rows


def timed(function, *arguments, **options) -> float:
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def median(seconds) -> float:
    return round(statistics.median(seconds), 3)


def peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e9


if __name__ == "__main__":
    main()
