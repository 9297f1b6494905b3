"""How far each explanation can be trusted, and how long it takes, on MovieLens-1M.

    python benchmarks/explanations.py --data FOLDER --run RUN

FOLDER holds `ratings.dat`. RUN is a run folder; one that is not there yet is trained
first (SASRec, D 64, 2 blocks, length 50, full softmax, `--epochs` epochs). For users
with 50 films or more, the film that the model ranks first is explained by the newest
50 films. Then the films that an explanation ranks highest are deleted from the history,
and as many random ones, ten times. Last, how far integrated gradients are from summing
to the difference of scores with this and that many points.
"""

from __future__ import annotations

import argparse
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
from tfrs_selfattn.explain import Deletion, Explainer, deletion

LENGTH = 50
METHODS = ("leave_one_out", "integrated_gradients", "attention_rollout")
POINTS = (8, 16, 32, 64, 128)
TRAINING = (
    *("--min-item-events", "5", "--max-length", str(LENGTH)),
    *("--batch-size", "64", "--schedule", "cosine", "--learning-rate", "2e-3"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="with ratings.dat")
    parser.add_argument("--run", type=Path, required=True, help="trained if absent")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--users-of-gaps", type=int, default=64)
    parser.add_argument("--deleted", type=int, nargs="+", default=(1, 5, 10))
    options = parser.parse_args()
    if not (options.run / "config.json").exists():
        train(options.data, options.run, options.epochs)
    folder = training.RunFolder.open(options.run)
    model = training.load_model(folder)
    history = histories(options.data, options.users)
    # Seen films hidden, the best of the others.
    seen = tf.one_hot(history - 1, len(folder.vocabulary()), on_value=-np.inf)
    item = tf.argmax(model.score(history) + tf.reduce_min(seen, 1), 1, tf.int32) + 1
    metrics = folder.metrics()
    print(
        f"{len(history)} users, best epoch {metrics['best_epoch']}, validation "
        f"NDCG@10 {metrics['validation']['ndcg@10']:.4f}; {os.cpu_count()} cores, "
        f"{platform.machine()}, load {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )
    explainer = Explainer(model)
    lost = {
        method: measured(explainer, method, history, item, options.deleted)
        for method in METHODS
    }
    print_faithfulness(lost)
    few = slice(options.users_of_gaps)
    print_gaps(explainer, model, history[few], item[few])


def train(events: Path, run: Path, epochs: int) -> None:
    command = [sys.executable, "-m", "tfrs_selfattn", "train", "--data", str(events)]
    options = ("--output", str(run), "--epochs", str(epochs), *TRAINING)
    subprocess.run([*command, *options], check=True)


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
) -> dict[int, Deletion]:
    """What is lost by number of deleted items; prints how long explaining took."""
    explainer.contributions(history[:8], item[:8], method=method)  # traces
    started = time.perf_counter()
    found = explainer.contributions(history, item, method=method)
    seconds = time.perf_counter() - started
    print(f"{method}: {seconds:.2f} s for {len(history)} explanations", flush=True)
    return {
        count: deletion(
            explainer.score, history, item, found, num_deleted=count, num_draws=10
        )
        for count in deleted
    }


def print_faithfulness(lost: dict[str, dict[int, Deletion]]) -> None:
    """Two tables: score lost, and users whose named items count more than others."""
    print(f"\n| deleted | {' | '.join(METHODS)} | at random |")
    print("|---" * (len(METHODS) + 2) + "|")
    counts = list(lost[METHODS[0]])
    for count in counts:
        cells = [spread(lost[method][count].top.numpy()) for method in METHODS]
        cells.append(spread(lost[METHODS[0]][count].random.numpy()))
        print(f"| {count} | {' | '.join(cells)} |")
    print(f"\n| deleted | {' | '.join(METHODS)} |")
    print("|---" * (len(METHODS) + 1) + "|")
    for count in counts:
        shares = [
            float(np.mean(lost[method][count].top > lost[method][count].random))
            for method in METHODS
        ]
        print(f"| {count} | {' | '.join(f'{share:.1%}' for share in shares)} |")


def spread(values: np.ndarray) -> str:
    """Mean, its standard error over users, and the standard deviation of users."""
    error = values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {error:.3f} ({values.std():.2f})"


def print_gaps(
    explainer: Explainer, model: object, history: tf.Tensor, item: tf.Tensor
) -> None:
    """How far integrated gradients are from summing to the difference, relatively."""
    aligned, _ = model.query_tower.aligned(history)
    width = model.query_tower.item_embedding.output_dim
    blank = tf.broadcast_to(explainer.average_item(), [*aligned.shape, width])
    queries = model.query_tower.query_of(blank, aligned, training=False)
    before = tf.reduce_sum(queries * model.candidate_tower(item), -1)
    difference = (explainer.score(history, item) - before).numpy()
    print(f"\n{len(history)} users; median / 90th percentile / worst")
    print("\n| points | of the sum of absolute shares | of the difference |")
    print("|---|---|---|")
    for points in (*POINTS, None):
        started = time.perf_counter()
        shares = explainer.contributions(
            history, item, method="integrated_gradients", steps=points
        ).numpy()
        seconds = time.perf_counter() - started
        missed = np.abs(shares.sum(axis=1) - difference)
        cells = [
            " / ".join(f"{np.quantile(missed / size, q):.2%}" for q in (0.5, 0.9, 1.0))
            for size in (np.abs(shares).sum(axis=1), np.abs(difference))
        ]
        name = points or f"default, {seconds:.1f} s"
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
