"""How far each explanation can be trusted, and how long it takes, on MovieLens-1M.

    python benchmarks/explanations.py --data FOLDER --run RUN

FOLDER holds `ratings.dat`. RUN is a run folder; one that is not there yet is trained
first (SASRec, D 64, 2 blocks, length 50, full softmax, 10 epochs). For users with 50
films or more, the film that the model ranks first is explained by the newest 50 films.
Then the films that an explanation ranks highest are deleted from the history, and as
many random ones, ten times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from tfrs_selfattn import data, training
from tfrs_selfattn.explain import Explainer, deletion

LENGTH = 50
METHODS = ("leave_one_out", "integrated_gradients", "attention_rollout")
TRAINING = (
    *("--min-item-events", "5", "--max-length", str(LENGTH), "--epochs", "10"),
    *("--batch-size", "64", "--schedule", "cosine", "--learning-rate", "2e-3"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with ratings.dat")
    parser.add_argument("--run", type=Path, required=True, help="trained if absent")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--deleted", type=int, nargs="+", default=(1, 5, 10))
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not (options.run / "config.json").exists():
        train(options.data, options.run)
    folder = training.RunFolder.open(options.run)
    model = training.load_model(folder)
    history = histories(options.data, options.users)
    # Seen films hidden, the best of the others.
    seen = tf.one_hot(history - 1, len(folder.vocabulary()), on_value=-np.inf)
    item = tf.argmax(model.score(history) + tf.reduce_min(seen, 1), 1, tf.int32) + 1
    explainer = Explainer(model)
    results = [
        measured(explainer, method, history, item, options.deleted)
        for method in METHODS
    ]
    results[1]["completeness gap, median and worst tenth"] = gap(
        explainer, model, history, item
    )
    if options.json:
        print(json.dumps(results))
        return
    print(
        f"{len(history)} users, {os.cpu_count()} cores, {platform.machine()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for result in results:
        for name, value in result.items():
            print(f"{name:>44}: {value}")
        print()


def train(events: Path, run: Path) -> None:
    command = [sys.executable, "-m", "tfrs_selfattn", "train", "--data", str(events)]
    subprocess.run([*command, "--output", str(run), *TRAINING], check=True)


def histories(folder: Path, users: int) -> tf.Tensor:
    """The newest films of the first users that have enough, but for the last two."""
    log = data.build_sequences(data.read_events(folder), min_item_events=5)
    test = data.leave_one_out(log).validation
    rows = [test.history(case)[-LENGTH:] for case in range(len(test.users))]
    long = [row for row in rows if len(row) == LENGTH][:users]
    return tf.constant(np.array(long), tf.int32)


def measured(
    explainer: Explainer,
    method: str,
    history: tf.Tensor,
    item: tf.Tensor,
    deleted: tuple[int, ...],
) -> dict[str, object]:
    explainer.contributions(history[:64], item[:64], method=method)  # traces
    started = time.perf_counter()
    found = explainer.contributions(history, item, method=method)
    seconds = time.perf_counter() - started
    result: dict[str, object] = {"method": method, "seconds": round(seconds, 2)}
    for count in deleted:
        lost = deletion(
            explainer.score, history, item, found, num_deleted=count, num_draws=10
        )
        top, random = lost.top.numpy(), lost.random.numpy()
        result[f"score lost without the top {count}"] = spread(top)
        result[f"score lost without {count} at random"] = spread(random)
        share = float((top > random).mean())
        result[f"users whose top {count} count more"] = f"{share:.1%}"
    return result


def spread(values: np.ndarray) -> str:
    """Mean, its standard error over users, and the standard deviation of users."""
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {error:.3f} (users vary by {values.std():.3f})"


def gap(
    explainer: Explainer, model: object, history: tf.Tensor, item: tf.Tensor
) -> str:
    """How far integrated gradients are from summing to the difference, relatively."""
    shares = explainer.contributions(history, item, method="integrated_gradients")
    aligned, _ = model.query_tower.aligned(history)
    width = model.query_tower.item_embedding.output_dim
    blank = tf.broadcast_to(explainer.average_item(), [*aligned.shape, width])
    queries = model.query_tower.query_of(blank, aligned, training=False)
    before = tf.reduce_sum(queries * model.candidate_tower(item), -1)
    difference = explainer.score(history, item) - before
    errors = np.abs(tf.reduce_sum(shares, 1) - difference) / np.abs(difference)
    return f"{np.median(errors):.2%}, {np.quantile(errors, 0.9):.2%}"


if __name__ == "__main__":
    main()
