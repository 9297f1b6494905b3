"""Quality on a public data set under the protocol of the published numbers.

    python benchmarks/quality.py --dataset ml-1m --data FOLDER --seeds 3

Full ranking over the whole catalogue, leave-one-out, seen items left out, ties against
the model. Each seed is a run of its own in the cache; a killed benchmark goes on when
the command is repeated. When the last seed is done, one row goes to
`benchmarks/quality.csv`: data set and checksum, configuration, seeds, mean and spread,
device, wall time. What is tuned, RECIPES, is tuned on the validation part alone.

`--set NAME=VALUE` changes a field of `ModelConfig` or `TrainingConfig`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from _run_options import parser_of, settings_of

from tfrs_selfattn.data import (
    Split,
    build_sequences,
    leave_one_out,
    read_events,
)
from tfrs_selfattn.evaluation import evaluate_ranking
from tfrs_selfattn.training import (
    DataConfig,
    ModelConfig,
    RunConfig,
    RunFolder,
    TrainingConfig,
    train,
)

TABLE = Path(__file__).with_name("quality.csv")
METRICS = ("hr@10", "ndcg@10")

# Where the events are inside --data, and which items are left out.
DATASETS: dict[str, dict[str, Any]] = {
    "ml-1m": {"file": ".", "min_item_events": 5},
    "amazon-beauty": {"file": "interactions.csv", "min_item_events": 1},
}
# One family for all data sets: gates, cosine, whole histories packed. What differs
# between data sets is the length of a history and what its size asks for.
FAMILY: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_steps": 300,
    "patience": 1000,  # the cosine ends the run
}
RECIPES: dict[str, dict[str, Any]] = {
    "ml-1m": {
        "embedding_dim": 128,
        "num_heads": 4,
        "max_length": 200,
        "dropout": 0.1,
        "batch_size": 64,
        "epochs": 40,
    },
    "amazon-beauty": {
        "embedding_dim": 128,
        "num_heads": 4,
        "max_length": 50,
        "dropout": 0.5,
        "batch_size": 128,
        "epochs": 40,
    },
}


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """What one seed came to."""

    seed: int
    validation: dict[str, float]
    test: dict[str, float]
    best_epoch: int
    seconds: float  # of training, over all its processes


def main() -> None:
    options = _options()
    dataset = DATASETS[options.dataset]
    path = (options.data / dataset["file"]).resolve()
    source = DataConfig(str(path), min_item_events=dataset["min_item_events"])
    split = leave_one_out(
        build_sequences(read_events(path), min_item_events=dataset["min_item_events"])
    )
    model, training = _configuration(options)
    results = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        result = _run(options, source, split, model, training, seed)
        print(_line(result), flush=True)
        results.append(result)
    row = _row(options, split, model, training, results)
    _append(row)
    print(json.dumps(row, indent=2))


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__, DATASETS, "quality")
    parser.add_argument("--preset", default="esasrec")
    return parser.parse_args()


def _configuration(
    options: argparse.Namespace,
) -> tuple[ModelConfig, TrainingConfig]:
    """The recipe of the data set under the options of the command line."""
    values = {**FAMILY, **RECIPES[options.dataset], **settings_of(options)}
    parts = []
    for kind in (ModelConfig, TrainingConfig):
        names = {field.name for field in dataclasses.fields(kind)}
        known = {name: values.pop(name) for name in names & values.keys()}
        parts.append((kind, known))
    if values:
        raise SystemExit(
            f"--set must name a field of ModelConfig or TrainingConfig. Received: "
            f"{', '.join(values)}"
        )
    (_, model), (_, training) = parts
    return ModelConfig(preset=options.preset, **model), TrainingConfig(**training)


def _run(
    options: argparse.Namespace,
    source: DataConfig,
    split: Split,
    model: ModelConfig,
    training: TrainingConfig,
    seed: int,
) -> SeedResult:
    """Trains, or goes on with, the run of one seed, and ranks its test cases."""
    config = RunConfig.for_sequences(
        split.sequences, source, model, dataclasses.replace(training, seed=seed)
    )
    # Paths and versions aside, what a run is made of names its folder.
    parts = [
        config.data.fingerprint,
        *map(dataclasses.asdict, (model, config.training)),
    ]
    if not training.cut_histories:  # runs from before it are found again
        del parts[-1]["cut_histories"]
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    place = options.cache / f"{options.dataset}-{options.preset}-{name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = RunFolder.create(place, config, split.sequences.vocabulary, {})
    print(f"seed {seed}: {place}", flush=True)
    trained = train(folder, split, verbose=2)
    seconds = sum(epoch["seconds"] for epoch in folder.metrics()["epochs"])
    test = evaluate_ranking(trained.model.scorer(), split.test).metrics
    return SeedResult(seed, trained.validation, test, trained.best_epoch, seconds)


def _line(result: SeedResult) -> str:
    shown = ", ".join(
        f"{part} {name} {values[name]:.4f}"
        for part, values in (("validation", result.validation), ("test", result.test))
        for name in METRICS
    )
    return f"seed {result.seed}: best epoch {result.best_epoch}, {shown}"


def _row(
    options: argparse.Namespace,
    split: Split,
    model: ModelConfig,
    training: TrainingConfig,
    results: list[SeedResult],
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "dataset": options.dataset,
        "events": split.sequences.num_events,
        "checksum": RunConfig.for_sequences(
            split.sequences, DataConfig(""), model, training
        ).data.fingerprint[:16],
        "preset": options.preset,
        "time_aware": model.time_aware,
        "seeds": " ".join(str(result.seed) for result in results),
    }
    for part in ("test", "validation"):
        for name in METRICS:
            values = [getattr(result, part)[name] for result in results]
            row[f"{part} {name}"] = round(statistics.mean(values), 4)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row[f"{part} {name} sd"] = round(spread, 4)
    gpus = tf.config.list_physical_devices("GPU")
    row["best epochs"] = " ".join(str(result.best_epoch) for result in results)
    row["device"] = "GPU" if gpus else "CPU"
    row["minutes a seed"] = round(
        statistics.mean(result.seconds for result in results) / 60, 1
    )
    row["model"] = json.dumps(dataclasses.asdict(model))
    row["training"] = json.dumps(dataclasses.asdict(training))
    return row


def _append(row: dict[str, Any]) -> None:
    """Adds the row; a row that is there stays, whatever came of it."""
    new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
