"""New items and users with few events: does side information help?

    python benchmarks/cold_start.py --dataset ml-1m --data FOLDER --seeds 3

A tenth of the items, drawn by the seed, is held out: no event of theirs is trained on.
Two models are trained on the rest, leave-one-out: `ids`, and `content`, which knows
items by features too. They and the baselines are asked for

- `warm`: the test items of the rest, by all users, and by users of whom the newest 1,
  2 and 4 events are known only;
- `cold, all`: the last event of each user with a held-out item, after the training
  events before it, ranked among all items;
- `cold, new`: the same ranked among held-out items alone.

Items of the history are left out of the ranking, ties count against the scores. An item
without a vector, as the held-out ones are to `ids`, ranks last.

Baselines: `popularity` by training events, of which held-out items have none;
`popularity, told` counts the held-out items' own events, which no one can know before
they happen, and is there as a mark; `content neighbours` compares TF-IDF vectors of the
features with the sum of those of the history; `item-to-item` transitions.

Each model of each seed is a run in the cache; a killed benchmark goes on when the
command is repeated. Rows go to `benchmarks/cold_start.csv`, one for each case.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import polars as pl
import tensorflow as tf
from _run_options import parser_of, settings_of

from tfrs_selfattn.data import (
    Split,
    build_sequences,
    events_from_frame,
    leave_one_out,
    read_events,
)
from tfrs_selfattn.evaluation import ItemToItem
from tfrs_selfattn.features import FeatureEncoder, parse_features, read_feature_table
from tfrs_selfattn.training import (
    DataConfig,
    FeaturesConfig,
    Known,
    ModelConfig,
    RunConfig,
    RunFolder,
    SideInformation,
    TrainingConfig,
    train,
)

TABLE = Path(__file__).with_name("cold_start.csv")
DATASETS: dict[str, dict[str, Any]] = {
    "ml-1m": {
        "events": ".",
        "items": "movies.dat:genres=multi,title=text",
        "min_item_events": 5,
    },
    "amazon-beauty": {
        "events": "interactions.csv",
        "items": "items.csv:title=text",
        "min_item_events": 1,
    },
}
DEFAULTS: dict[str, Any] = {
    "preset": "sasrec",
    "embedding_dim": 64,
    "max_length": 50,
    "batch_size": 128,
    "epochs": 30,
    "patience": 5,
    "id_dropout": 0.2,
}
KNOWN_EVENTS = (1, 2, 4)
K = 10
_BATCH = 256
_HELD_OUT = 0.1


@dataclasses.dataclass(frozen=True)
class World:
    """A log without its held-out items, and what happened to those."""

    split: Split
    cold_ids: list[str]
    cold_histories: list[np.ndarray]  # item indices of the rest
    cold_targets: np.ndarray  # places in `cold_ids`
    cold_counts: np.ndarray


def main() -> None:
    options = _options()
    dataset = DATASETS[options.dataset]
    values = {**DEFAULTS, **settings_of(options)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        started = time.perf_counter()
        world = _hold_out(options.data, dataset, seed)
        rows = _measure(options, dataset, world, values, seed)
        seconds = round(time.perf_counter() - started)
        for row in rows:
            print(
                f"seed {seed} {row['method']:>20} {row['case']:>15}: HR@{K} "
                f"{row['hr@10']:.4f} NDCG@{K} {row['ndcg@10']:.4f} ({row['cases']})"
            )
            row |= {"seconds": seconds, "settings": json.dumps(values)}
        _append(rows)


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__, DATASETS, "cold_start")
    parser.add_argument("--items", help="features, in place of the data set's")
    return parser.parse_args()


def _hold_out(data: Path, dataset: dict[str, Any], seed: int) -> World:
    """Draws the items to hold out and takes their events out of the log."""
    path = (data / dataset["events"]).resolve()
    whole = build_sequences(
        read_events(path), min_item_events=dataset["min_item_events"]
    )
    ids = whole.vocabulary.ids
    draw = np.random.default_rng([seed, 10])
    cold = np.zeros(len(ids) + 1, bool)
    cold[1 + draw.choice(len(ids), round(_HELD_OUT * len(ids)), replace=False)] = True
    is_cold = cold[whole.items]
    users = np.repeat(np.arange(whole.num_users), whole.lengths)
    names = np.array(["", *ids], object)
    frame = pl.DataFrame(
        {
            "user_id": whole.user_ids.to_numpy()[users[~is_cold]],
            "item_id": names[whole.items[~is_cold]],
            "timestamp": whole.timestamps[~is_cold],
        }
    )
    split = leave_one_out(build_sequences(events_from_frame(frame)))
    warm = split.sequences
    place_of = {item: place for place, item in enumerate(names[cold])}
    row_of = {user: row for row, user in enumerate(warm.user_ids.to_list())}
    histories, targets = [], []
    for user, name in enumerate(whole.user_ids.to_list()):
        events = slice(whole.offsets[user], whole.offsets[user + 1])
        at = np.flatnonzero(is_cold[events])
        if not len(at) or name not in row_of:
            continue
        row = row_of[name]
        before = int((~is_cold[events][: at[-1]]).sum())  # in the order of the log
        start = warm.offsets[row]
        before = min(before, int(split.train_stop[row] - start))
        if before:
            histories.append(warm.items[start : start + before])
            targets.append(place_of[names[whole.items[events][at[-1]]]])
    counts = np.bincount(whole.items, minlength=len(ids) + 1)[cold]
    return World(split, list(names[cold]), histories, np.array(targets), counts)


def _measure(
    options: argparse.Namespace,
    dataset: dict[str, Any],
    world: World,
    values: dict[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    split, sequences = world.split, world.split.sequences
    text = options.items or dataset["items"]
    path, features = parse_features(text, "--items", with_file=True)
    assert path is not None
    table = read_feature_table(options.data / path, features)
    everything = [*sequences.vocabulary.ids, *world.cold_ids]
    aligned, _ = table.align(everything, features)
    num_warm = len(sequences.vocabulary)
    known = Known.fit(
        features,
        aligned.take(np.arange(num_warm)),
        split.train_counts()[1:] > 0,
    )
    side = SideInformation(items=known)
    rows = FeatureEncoder(known.features).rows(aligned.raw)
    config = FeaturesConfig(items=text, fingerprint=side.fingerprint())
    nothing = FeaturesConfig()
    scorers: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for name, kept, given in (
        ("ids", nothing, SideInformation()),
        ("content", config, side),
    ):
        settings = dict(values)
        if name == "ids":
            settings["id_dropout"] = 0.0
        model = _trained(options, split, settings, seed, kept, given)
        cold = None
        if name == "content":
            new = aligned.take(np.arange(num_warm, len(everything)))
            embedding = model.query_tower.item_embedding
            encoded = FeatureEncoder(known.features)(
                {n: tf.constant(v.tolist()) for n, v in new.raw.items()}
            )
            cold = model.candidate_tower.finish(
                embedding.of_content(encoded, tf.constant(world.cold_ids))
            )
        scorers[name] = _of_model(model, cold, len(world.cold_ids))
    counts = split.train_counts()[1:].astype(float)
    scorers["popularity"] = _constant([*counts, *np.zeros(len(world.cold_ids))])
    scorers["popularity, told"] = _constant([*counts, *world.cold_counts])
    scorers["content neighbours"] = _neighbours(rows, known.features.num_tokens)
    transitions = ItemToItem(split)
    scorers["item-to-item"] = lambda histories: np.pad(
        np.asarray(transitions(histories), np.float64),
        [(0, 0), (0, len(world.cold_ids))],
        constant_values=-np.inf,
    )
    found = []
    for method, score in scorers.items():
        for case, histories, targets, eligible in _cases(world, num_warm):
            ranks = _ranks(score, histories, targets, eligible)
            hits = ranks <= K
            gains = np.where(hits, 1 / np.log2(ranks + 1.0), 0.0)
            found.append(
                {
                    "date": time.strftime("%Y-%m-%d"),
                    "dataset": options.dataset,
                    "seed": seed,
                    "method": method,
                    "case": case,
                    "hr@10": round(float(hits.mean()), 4),
                    "ndcg@10": round(float(gains.mean()), 4),
                    "cases": len(ranks),
                    "features": text,
                }
            )
    return found


def _cases(world: World, num_warm: int) -> Any:
    """Name, histories, targets (columns of the scores) and eligible columns."""
    test = world.split.test
    histories = [test.history(case) for case in range(len(test))]
    targets = test.targets.astype(np.int64) - 1
    total = num_warm + len(world.cold_ids)
    warm = np.arange(total) < num_warm
    yield "warm", histories, targets, warm
    for count in KNOWN_EVENTS:
        yield f"warm, {count} events", [h[-count:] for h in histories], targets, warm
    new = world.cold_targets + num_warm
    yield "cold, all", world.cold_histories, new, np.ones(total, bool)
    yield "cold, new", world.cold_histories, new, ~warm


def _trained(
    options: argparse.Namespace,
    split: Split,
    values: dict[str, Any],
    seed: int,
    config: FeaturesConfig,
    side: SideInformation,
) -> Any:
    parts = []
    for kind in (ModelConfig, TrainingConfig):
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        parts.append({name: values[name] for name in names})
    model = ModelConfig(**parts[0])
    training = TrainingConfig(**{**parts[1], "seed": seed})
    run = RunConfig.for_sequences(
        split.sequences, DataConfig(""), model, training, config
    )
    text = json.dumps(dataclasses.asdict(run), sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    place = options.cache / f"{options.dataset}-{name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = RunFolder.create(place, run, split.sequences.vocabulary, {}, side)
    print(f"seed {seed}: {place}", flush=True)
    return train(folder, split, verbose=2).model


def _of_model(model: Any, cold: Any, num_cold: int) -> Callable[..., np.ndarray]:
    warm = model.candidate_tower.catalogue()

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def compiled(histories: tf.Tensor) -> tf.Tensor:
        queries = model.query_tower(histories, training=False)
        vectors = warm if cold is None else tf.concat([warm, cold], axis=0)
        return tf.matmul(queries, vectors, transpose_b=True)

    def score(histories: np.ndarray) -> np.ndarray:
        found = compiled(histories).numpy()
        missing = 0 if cold is not None else num_cold
        return np.pad(found, [(0, 0), (0, missing)], constant_values=-np.inf)

    return score


def _constant(scores: list[float]) -> Callable[[np.ndarray], np.ndarray]:
    row = np.array(scores)
    return lambda histories: np.tile(row, [len(histories), 1])


def _neighbours(rows: Any, num_tokens: int) -> Callable[[np.ndarray], np.ndarray]:
    """Cosines of TF-IDF vectors of tokens with the sum of those of the history."""
    lengths = np.diff(rows.splits)
    items = np.repeat(np.arange(len(lengths)), lengths)
    shares = np.bincount(rows.tokens, minlength=num_tokens) / len(lengths)
    matrix = np.zeros([len(lengths), num_tokens], np.float32)
    weights = rows.weights * -np.log(np.maximum(shares, 1e-9))[rows.tokens]
    np.add.at(matrix, (items, rows.tokens), weights)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)

    def score(histories: np.ndarray) -> np.ndarray:
        profiles = np.zeros([len(histories), num_tokens], np.float32)
        for row, history in enumerate(histories):
            profiles[row] = matrix[history[history > 0] - 1].sum(axis=0)
        return profiles @ matrix.T

    return score


def _ranks(
    score: Callable[[np.ndarray], np.ndarray],
    histories: list[np.ndarray],
    targets: np.ndarray,
    eligible: np.ndarray,
) -> np.ndarray:
    """The rank of each target among the eligible columns; ties and -inf are last."""
    ranks = np.empty(len(targets), np.int64)
    order = np.argsort([len(history) for history in histories], kind="stable")
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        width = max(len(histories[row]) for row in part)
        padded = np.zeros([len(part), width], np.int32)
        for line, row in enumerate(part):
            padded[line, width - len(histories[row]) :] = histories[row]
        scores = np.where(eligible, score(padded), np.nan)
        wanted = scores[np.arange(len(part)), targets[part]]
        for line, row in enumerate(part):  # what was seen is not recommended
            seen = histories[row] - 1
            scores[line, seen[seen != targets[row]]] = np.nan
        ranks[part] = (scores >= wanted[:, None]).sum(axis=1)  # NaN is not
    return ranks


def _append(rows: list[dict[str, Any]]) -> None:
    """Adds rows; those that are there stay, whatever came of them."""
    new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
