"""Quality on a public data set under the protocol of the published numbers.

    python benchmarks/quality.py --dataset ml-1m --data FOLDER --seeds 3

Full ranking over the whole catalogue, leave-one-out, seen items left out, ties against
the model. Each seed is a run of its own in the cache; a killed benchmark goes on when
the command is repeated. Every run has a row in `benchmarks/quality.csv` from its start
on, whatever comes of it: data set and checksum, `status` (finished, diverged, stopped),
epochs, metrics, device, wall time, configuration. When all seeds have come to their
end, a further row has their mean and spread.

The recipe is that of `train --recipe`, tuned on the validation part alone;
`--set NAME=VALUE` changes a field of `ModelConfig` or `TrainingConfig`. `--search` is
for tuning: one seed, stopped when the validation stops improving, no test metrics.

`--item-features FILE:COLUMN=KIND,…`, as `train` takes it and of a file in --data, tells
the model of its items beside their ids.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from _known_tables import read_known
from _quality_runs import METRICS, note, place_of, rows_of
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
    FeaturesConfig,
    ModelConfig,
    RunConfig,
    RunFolder,
    SideInformation,
    TrainingConfig,
    TrainingDiverged,
    recipe,
    train,
)

TABLE = Path(__file__).with_name("quality.csv")
SEARCH = {"patience": 5}  # epochs without improvement
# Where the events are inside --data, and which items are left out.
DATASETS: dict[str, dict[str, Any]] = {
    "ml-1m": {"file": ".", "min_item_events": 5},
    "amazon-beauty": {"file": "interactions.csv", "min_item_events": 1},
}


def main(arguments: list[str] | None = None) -> None:
    # Asked to end, it notes what it came to; Python would be gone at once.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = _options(arguments)
    dataset = DATASETS[options.dataset]
    path = (options.data / dataset["file"]).resolve()
    source = DataConfig(str(path), min_item_events=dataset["min_item_events"])
    split = leave_one_out(
        build_sequences(read_events(path), min_item_events=dataset["min_item_events"])
    )
    features, side = _side(options, split)
    split = side.attach(split)
    model, training = configurations(options)
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        config = RunConfig.for_sequences(
            split.sequences,
            source,
            model,
            dataclasses.replace(training, seed=seed),
            features,
        )
        rows.append(_run(options, split, config, side))
        print(json.dumps(rows[-1], indent=2), flush=True)
    if len(rows) > 1 and all(row["status"] == "finished" for row in rows):
        row = _of_all(rows)
        note(TABLE, row)
        print(json.dumps(row, indent=2))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, DATASETS, "quality")
    parser.add_argument("--recipe", help="default: that of the data set")
    parser.add_argument("--preset", help="default: that of the recipe")
    parser.add_argument("--item-features", default="", metavar="FILE:COLUMN=KIND,…")
    parser.add_argument("--search", action="store_true", help="see above")
    parser.set_defaults(seeds=None)
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = 1 if options.search else 3
    return options


def configurations(
    options: argparse.Namespace,
) -> tuple[ModelConfig, TrainingConfig]:
    """The recipe of the data set under the options of the command line."""
    changes = settings_of(options)
    if options.search:
        changes = SEARCH | changes
    if options.preset:
        changes["preset"] = options.preset
    try:
        return recipe(options.recipe or options.dataset, changes)
    except ValueError as error:
        raise SystemExit(f"--recipe and --set: {error}") from None


def _side(
    options: argparse.Namespace, split: Split
) -> tuple[FeaturesConfig, SideInformation]:
    """What is known of the items beside their ids, fitted to what training shows."""
    text = options.item_features
    if not text:
        return FeaturesConfig(), SideInformation()
    trained = split.train_counts()[1:] > 0
    ids = split.sequences.vocabulary.ids
    known, _ = read_known(options.data, text, "item", ids, trained)
    side = SideInformation(items=known)
    return FeaturesConfig(items=text, fingerprint=side.fingerprint()), side


def _run(
    options: argparse.Namespace, split: Split, config: RunConfig, side: SideInformation
) -> dict[str, Any]:
    """Trains, or goes on with, the run of one seed, and ranks its test cases.

    Its row is there from the start, for runs that are killed, and written anew at the
    end, whatever the end is.
    """
    place = place_of(options.cache, options.dataset, config)
    place.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = split.sequences.vocabulary
    folder = RunFolder.create(place, config, vocabulary, {}, side)
    print(f"seed {config.training.seed}: {place}", flush=True)
    row = _row(options, folder)
    if not any(known["run"] == row["run"] for known in rows_of(TABLE)):
        note(TABLE, row)
    try:
        trained = train(folder, split, verbose=2)
        row["status"] = "finished"
        if not options.search:
            found = evaluate_ranking(trained.model.scorer(), split.test).metrics
            row |= _columns("test", [found])
    except TrainingDiverged as error:
        print(error, flush=True)
        row["status"] = "diverged"
    finally:
        row |= _progress(folder)
        note(TABLE, row)
    return row


def _row(options: argparse.Namespace, folder: RunFolder) -> dict[str, Any]:
    """What is known of a run before it is trained."""
    config = folder.config
    return {
        "date": time.strftime("%Y-%m-%d"),
        "dataset": options.dataset,
        "events": config.summary.events if config.summary else "",
        "checksum": config.data.fingerprint[:16],
        "preset": config.model.preset,
        "time_aware": config.model.time_aware,
        "seeds": str(config.training.seed),
        "status": "stopped",
        "search": options.search,
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        "features": config.features.items,
        "model": json.dumps(dataclasses.asdict(config.model)),
        "training": json.dumps(dataclasses.asdict(config.training)),
        "run": folder.path.name,
    }


def _progress(folder: RunFolder) -> dict[str, Any]:
    """What a run has come to so far."""
    metrics = folder.metrics()
    epochs = metrics.get("epochs", [])
    row: dict[str, Any] = {"epochs": len(epochs)}
    if epochs:
        # Of training, over all its processes.
        seconds = sum(epoch["seconds"] for epoch in epochs)
        row |= _columns("validation", [metrics["validation"]])
        row["best epochs"] = str(metrics["best_epoch"])
        row["minutes a seed"] = round(seconds / 60, 1)
    return row


def _of_all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of runs that differ by their seeds."""
    row = dict(rows[0])
    for name in ("seeds", "best epochs", "run"):
        row[name] = " ".join(other[name] for other in rows)
    row["epochs"] = sum(other["epochs"] for other in rows)
    row["minutes a seed"] = round(
        statistics.mean(other["minutes a seed"] for other in rows), 1
    )
    for part in ("test", "validation"):
        if f"{part} {METRICS[0]}" in row:
            row |= _columns(
                part,
                [{name: row[f"{part} {name}"] for name in METRICS} for row in rows],
            )
    return row


def _columns(part: str, found: list[dict[str, float]]) -> dict[str, float]:
    """Mean and spread of the metrics of some runs, by column."""
    columns = {}
    for name in METRICS:
        values = [metrics[name] for metrics in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        columns[f"{part} {name}"] = statistics.mean(values)
        columns[f"{part} {name} sd"] = spread
    return columns


if __name__ == "__main__":
    main()
