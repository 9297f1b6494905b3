"""How much of a training step is spent waiting for its data.

Trains a preset on generated events and times, for every step, how long the next batch
takes to be there, and how long the step then takes; and the data alone, with no step to
hide behind. From memory, from buckets and from shards:

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --preset hstu --row-length 50
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_WARM_UP = 3  # Steps that are not counted.
COLUMNS = ("ms data alone", "ms waiting", "ms step", "share waiting", "items/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="sasrec")
    parser.add_argument("--users", type=int, default=6_000)
    parser.add_argument("--items", type=int, default=3_416)
    parser.add_argument("--mean-length", type=float, default=165)
    parser.add_argument("--row-length", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = measure(options)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'':<10}" + "".join(f"{column:>15}" for column in COLUMNS))
    for source, result in results.items():
        cells = "".join(f"{result[column]:>15}" for column in COLUMNS)
        print(f"{source:<10}{cells}")


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from tfrs_selfattn import data
    from tfrs_selfattn._keras import keras
    from tfrs_selfattn.models import presets

    log = data.generate_events(
        options.users, options.items, options.mean_length, seed=0
    )
    sequences = data.build_sequences(data.events_from_frame(log))
    split = data.leave_one_out(sequences)
    model = presets.build(
        options.preset, len(sequences.vocabulary), max_length=options.row_length, seed=0
    )
    model.compile(keras.optimizers.Adam(1e-3))
    model.build_from_config({})
    model.optimizer.build(model.trainable_variables)
    layout = {"row_length": options.row_length, "times": model.time_aware}
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "memory": data.pack_rows(split, **layout),
            "buckets": data.bucket_rows(split, **layout),
            "shards": data.write_shards(
                split, Path(folder) / "rows", rows_per_shard=1024, **layout
            ),
        }
        return {
            name: measure_one(rows, model, options) for name, rows in sources.items()
        }


def measure_one(rows: Any, model: Any, options: argparse.Namespace) -> dict[str, Any]:
    import tensorflow as tf

    from tfrs_selfattn.data import steps_per_epoch, training_dataset

    dataset = training_dataset(rows, batch_size=options.batch_size, seed=0)
    batches = iter(dataset)
    count = max(options.steps, steps_per_epoch(rows, options.batch_size))
    for _ in range(_WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    alone = (time.perf_counter() - start) / count

    step = tf.function(model.train_step, input_signature=[dataset.element_spec])
    waited, worked, items = [], [], []
    batches = iter(dataset)
    for _ in range(_WARM_UP + options.steps):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        float(step(batch)["loss"])
        worked.append(time.perf_counter() - ready)
        waited.append(ready - start)
        items.append(int((batch["targets"] > 0).numpy().sum()))
    waited, worked, items = (each[_WARM_UP:] for each in (waited, worked, items))
    waiting, working = sum(waited), sum(worked)
    return {
        "ms data alone": round(1000 * alone, 2),
        "ms waiting": round(1000 * median(waited), 2),
        "ms step": round(1000 * median(worked), 1),
        "share waiting": f"{waiting / (waiting + working):.2%}",
        "items/s": round(sum(items) / (waiting + working)),
    }


if __name__ == "__main__":
    main()
