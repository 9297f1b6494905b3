"""New items and users with few events: does side information help?

    python benchmarks/cold_start.py --dataset ml-1m --data FOLDER --seeds 3

A tenth of the items, drawn by the seed, is held out: no event of theirs is trained on.
Models are trained on the rest, leave-one-out: `ids`; `content`, which knows items by
features too; `users`, which knows users as well; and, with `--item-vectors`,
`vectors`, which has a given vector in place of the words of a title. They and the
baselines are asked for

- `warm`: the test items of the rest, by all users, and by users of whom no event, the
  newest 1, 2, or 3 to 5 (drawn for each) are known only;
- `cold, all`: the last event of each user with a held-out item, after the training
  events before it, ranked among all items;
- `cold, new`: the same ranked among held-out items alone.

Items of the history are left out of the ranking, ties count against the scores. An item
without a vector, as the held-out ones are to `ids`, ranks last. Who is known by nothing
is answered with the most popular items, as an export does.

Baselines: `popularity` by training events, of which held-out items have none;
`popularity, told` counts the held-out items' own events, which no one can know before
they happen, and is there as a mark; `content neighbours` compares TF-IDF vectors of the
features with the sum of those of the history, `vector neighbours` the given vectors;
`item-to-item` transitions.

Each model of each seed is a run in the cache, and rows go to
`benchmarks/cold_start.csv` as soon as a model is measured: a killed benchmark goes on
when the command is repeated, and does nothing twice. A row has those settings that bear
on its method, of baselines none, and serves all that differ in others. At the end, and
alone with `--summary`, means and spreads of all seeds of these settings are printed,
and each seed's ratio to what is to be beaten: on held-out items to the better of
popularity and content neighbours, and to `popularity, told` as a mark; on the rest to
`ids`; after one event to item-to-item transitions.

Users of more than 5 events are no case of their own. They are in `warm`: everybody of
MovieLens, whose users have 20 events or more, and in Amazon Beauty those that do.

`--item-vectors FILE.npy` has a row for each row of the data set's table of items:
`benchmarks/title_vectors.py` writes one.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from _cold_rows import KEY, MODELS, TABLE, append_rows, print_summary, read_rows
from _cold_world import (
    Score,
    World,
    cases_of,
    constant,
    hold_out,
    ranks_of,
    transitions,
    vector_neighbours,
    word_neighbours,
)
from _known_tables import read_known
from _run_options import parser_of, settings_of

from tfrs_selfattn.data import Split
from tfrs_selfattn.features import FeatureEncoder, FeatureTable
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

_FILMS = "age=category,gender=category,occupation=category"
# {words} stands for the title by its words, or by the vectors of --item-vectors.
DATASETS: dict[str, dict[str, Any]] = {
    "ml-100k": {
        "events": ".",
        "items": "u.item:genres=multi,{words}",
        "users": f"u.user:{_FILMS.replace('age=category', 'age=bucket')}",
        "min_item_events": 5,
    },
    "ml-1m": {
        "events": ".",
        "items": "movies.dat:genres=multi,{words}",
        "users": f"users.dat:{_FILMS}",
        "min_item_events": 5,
    },
    "amazon-beauty": {
        "events": "interactions.csv",
        "items": "items.csv:{words}",
        "min_item_events": 1,
    },
}
DEFAULTS: dict[str, Any] = {
    "preset": "sasrec",
    "embedding_dim": 128,
    "max_length": 50,
    "batch_size": 64,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "warmup_steps": 200,
    "epochs": 20,
    "patience": 1000,  # the cosine ends the run
    "id_dropout": 0.4,
    "cut_histories": 0.9,
    "dropout": 0.1,
}
WORDS = "title=text"
K = 10
SEPARATOR = " + "  # between what is known of items and of users


@dataclasses.dataclass(frozen=True)
class KnownBeside:
    """What one model knows beside ids.

    Args:
        config: as the command line writes it.
        side: the same, fitted to what training shows.
        cold: what is known of the held-out items, or None.
    """

    config: FeaturesConfig
    side: SideInformation
    cold: FeatureTable | None


def main() -> None:
    options = _options()
    dataset = DATASETS[options.dataset]
    asked = rows_of(_features(options, dataset), settings_of(options))
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed in () if options.summary else seeds:
        keys = {
            method: (options.dataset, str(seed), method, *texts)
            for method, texts in asked.items()
        }
        done = {tuple(row[name] for name in KEY) for row in read_rows()}
        missing = [method for method, key in keys.items() if key not in done]
        if not missing:
            print(f"seed {seed} is in {TABLE.name}")
            continue
        path = (options.data / dataset["events"]).resolve()
        world = hold_out(path, dataset["min_item_events"], seed)
        for method in missing:
            _measure(options, world, method, keys[method])
    print_summary(options.dataset, asked)


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__, DATASETS, "cold_start")
    parser.add_argument("--items", help="features, in place of the data set's")
    parser.add_argument("--item-vectors", type=Path, metavar="FILE.npy")
    parser.add_argument("--methods", help="only these, between commas")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    return parser.parse_args()


def _features(options: argparse.Namespace, dataset: dict[str, Any]) -> dict[str, str]:
    """The methods to measure, and what each knows beside ids, for its rows."""
    form = options.items or dataset["items"]
    words = form.replace("{words}", WORDS)
    found = {"ids": "", "content": words}
    if "users" in dataset:
        found["users"] = f"{words}{SEPARATOR}{dataset['users']}"
    baselines = {"content neighbours": words}
    if options.item_vectors is not None:
        # In the table by its name: where it lies is no part of what it says.
        vectors = form.replace("{words}", f"title=vector[{options.item_vectors.name}]")
        found["vectors"] = baselines["vector neighbours"] = vectors
    found |= {"popularity": "", "popularity, told": "", **baselines, "item-to-item": ""}
    if options.methods is not None:
        # A comma is a separator, but in "popularity, told" a part of the name.
        asked = re.split(r",(?! told)\s*", options.methods)
        unknown = set(asked) - found.keys()
        if unknown:
            raise SystemExit(
                f"--methods must be among {', '.join(found)}. Received: "
                f"{', '.join(sorted(unknown))}."
            )
        found = {method: found[method] for method in asked}
    return found


def rows_of(
    features: dict[str, str], changes: dict[str, Any]
) -> dict[str, tuple[str, str]]:
    """The methods, each with the `features` and `settings` that its rows have.

    Settings are those that bear on the method, so that its rows serve all that share
    them.
    """
    found = {}
    for method, known in features.items():
        settings = {**DEFAULTS, **changes}
        if not known:  # nothing would be left of an item without its id
            settings["id_dropout"] = 0.0
        found[method] = (known, json.dumps(settings) if method in MODELS else "{}")
    return found


def _measure(
    options: argparse.Namespace, world: World, method: str, key: tuple[str, ...]
) -> None:
    """Trains what must be trained, ranks all cases, and writes the rows."""
    started = time.perf_counter()
    score = _score_of(options, world, method, key)
    rows = []
    for case in cases_of(world):
        ranks = ranks_of(score, case)
        hits = ranks <= K
        gains = np.where(hits, 1 / np.log2(ranks + 1.0), 0.0)
        rows.append(
            {
                "date": time.strftime("%Y-%m-%d"),
                **dict(zip(KEY[:3], key, strict=False)),
                "case": case.name,
                "hr@10": round(float(hits.mean()), 4),
                "ndcg@10": round(float(gains.mean()), 4),
                "cases": len(ranks),
                "features": key[3],
                "seconds": round(time.perf_counter() - started),
                "settings": key[4],
            }
        )
        print(
            f"seed {world.seed} {method:>18} {case.name:>14}: HR@{K} "
            f"{rows[-1]['hr@10']:.4f} NDCG@{K} {rows[-1]['ndcg@10']:.4f} ({len(ranks)})"
        )
    append_rows(rows)


def _score_of(
    options: argparse.Namespace, world: World, method: str, key: tuple[str, ...]
) -> Score:
    counts = world.split.train_counts()[1:].astype(float)
    popularity = [*counts, *np.zeros(len(world.cold_ids))]
    if method == "popularity":
        return constant(popularity)
    if method == "popularity, told":
        return constant([*counts, *world.cold_counts])
    if method == "item-to-item":
        return transitions(world)
    items, _, users = key[3].partition(SEPARATOR)
    if options.item_vectors is not None:
        lies = str(options.item_vectors.resolve())
        items = items.replace(f"[{options.item_vectors.name}]", f"[{lies}]")
    known = _known(options.data, world, items, users)
    if method.endswith("neighbours"):
        assert known.side.items is not None and known.cold is not None
        fitted = known.side.items
        parts = [
            FeatureEncoder(fitted.features).rows(table.raw)
            for table in (fitted.table, known.cold)
        ]
        if method == "vector neighbours":
            return vector_neighbours(np.concatenate([part.dense for part in parts]))
        first, second = parts
        rows = first._replace(
            splits=np.concatenate([first.splits, second.splits[1:] + first.splits[-1]]),
            tokens=np.concatenate([first.tokens, second.tokens]),
            weights=np.concatenate([first.weights, second.weights]),
        )
        return word_neighbours(rows, fitted.features.num_tokens)
    split = known.side.attach(world.split)
    model = _trained(options, split, json.loads(key[4]), world.seed, known)
    return _score_of_model(model, world, split, known, popularity)


def _known(data: Path, world: World, items: str, users: str) -> KnownBeside:
    """Reads the tables and fits the features to what training shows."""
    sequences, split = world.split.sequences, world.split
    known: dict[str, Known] = {}
    cold = None
    if items:
        ids = [*sequences.vocabulary.ids, *world.cold_ids]
        trained = split.train_counts()[1:] > 0
        known["items"], cold = read_known(data, items, "item", ids, trained)
    if users:
        ids = sequences.user_ids.to_list()
        trained = split.train_stop > sequences.offsets[:-1]
        known["users"], _ = read_known(data, users, "user", ids, trained)
    side = SideInformation(**known)
    config = FeaturesConfig(items=items, users=users, fingerprint=side.fingerprint())
    return KnownBeside(config, side, cold)


def _trained(
    options: argparse.Namespace,
    split: Split,
    values: dict[str, Any],
    seed: int,
    known: KnownBeside,
) -> Any:
    parts = []
    for kind in (ModelConfig, TrainingConfig):
        names = {field.name for field in dataclasses.fields(kind)} & values.keys()
        parts.append({name: values[name] for name in names})
    unknown = values.keys() - {name for part in parts for name in part}
    if unknown:
        raise SystemExit(
            "--set must name a field of ModelConfig or TrainingConfig. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    run = RunConfig.for_sequences(
        split.sequences,
        DataConfig(""),
        ModelConfig(**parts[0]),
        TrainingConfig(**{**parts[1], "seed": seed}),
        known.config,
    )
    content = dataclasses.asdict(run)
    content["features"] = known.config.fingerprint  # wherever the tables lie
    text = json.dumps(content, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    place = options.cache / f"{options.dataset}-{name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    vocabulary = split.sequences.vocabulary
    folder = RunFolder.create(place, run, vocabulary, {}, known.side)
    print(f"seed {seed}: {place}", flush=True)
    return train(folder, split, verbose=2).model


def _score_of_model(
    model: Any, world: World, split: Split, known: KnownBeside, popularity: list[float]
) -> Score:
    tower, vectors = model.query_tower, model.candidate_tower.catalogue()
    if known.cold is not None:
        assert known.side.items is not None
        encoded = FeatureEncoder(known.side.items.features)(
            {name: tf.constant(v.tolist()) for name, v in known.cold.raw.items()}
        )
        cold = tower.item_embedding.of_content(encoded, tf.constant(world.cold_ids))
        vectors = tf.concat([vectors, model.candidate_tower.finish(cold)], axis=0)
    missing = 0 if known.cold is not None else len(world.cold_ids)
    users = split.sequences.sides.get("query_features")
    specs = [tf.TensorSpec([None, None], tf.int32)]
    if users is not None:
        kinds = (tf.int32, tf.float32, tf.float32)
        specs += [tf.TensorSpec([None, None], kind) for kind in kinds]

    @tf.function(input_signature=specs)
    def scores(histories: tf.Tensor, *told: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        more = {"query_features": told} if told else {}
        queries = tower(histories, training=False, **more)
        known = tf.reduce_any(queries != 0, axis=1)
        return tf.matmul(queries, vectors, transpose_b=True), known

    def score(histories: np.ndarray, rows: np.ndarray) -> np.ndarray:
        told: Any = ()
        if users is not None:  # what is known of a user is so at each of their events
            told = users.at(split.sequences.offsets[rows]).values()
        found, some = (part.numpy() for part in scores(histories, *told))
        found = np.pad(found, [(0, 0), (0, missing)], constant_values=-np.inf)
        return np.where(some[:, None], found, np.array(popularity))

    return score


if __name__ == "__main__":
    main()
