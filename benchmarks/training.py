"""Real items a second in training: our `sasrec` beside RecTools' SASRec.

    python benchmarks/training.py --data FOLDER --peer-python PATH

with `--dataset amazon-beauty` for that data set.

Both sides train the same model (d, blocks, heads, length, dropout, full softmax over
all items, Adam) on the same histories: all but the last two items of each user. The
sides take turns, each round in a process of its own, the first steps of which are not
counted. A real item is a position with a target; padding is none.

- packed: ours as it trains by default, whole histories packed into rows.
- packed, XLA: the same, with all parts of the step compiled by XLA that it can compile.
- padded: ours with one history a row, padded, as RecTools lays its batches out.
- RecTools: in an environment of its own, whose interpreter --peer-python names.

The share of the peak is the model's matrix products, forward and backward, of what the
step computes (padding included), over the rate of a 2048³ product in the same process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DATASETS: dict[str, dict[str, Any]] = {
    "ml-1m": {"file": ".", "min_item_events": 5, "length": 200},
    "amazon-beauty": {"file": "interactions.csv", "min_item_events": 1, "length": 50},
}
WIDTH, BLOCKS, HEADS, DROPOUT, BATCH = 64, 2, 1, 0.2, 128
WARM_UP = 3
# glibc gives large arrays back to the system after each use, and RecTools holds all
# scores of a batch in one: kept by the process, its steps take two thirds of the time
# on Beauty. Ours have no array of that size.
PEER_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(8 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
PEER = "RecTools"
PEER_PYTHON = Path("build/rectools/bin/python")
HOW_TO_INSTALL = """no interpreter at {path}. Make an environment for the peer:
    python -m venv build/rectools
    build/rectools/bin/pip install 'rectools[torch]==0.19.0' torch==2.13.0
or name the interpreter of one with --peer-python PATH."""


SIDES = ("packed", "packed, XLA", "padded", PEER)
# Variables of the environment. XLA cannot compile the loss, whose blocks are as many as
# the queries need, so that it is left to choose.
OF_SIDE = {
    PEER: PEER_MEMORY,
    "packed, XLA": {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
}


def main() -> None:
    options = _options()
    if options.side:
        run_side(options)
        return
    if PEER in options.sides and not options.peer_python.exists():
        raise SystemExit(HOW_TO_INSTALL.format(path=options.peer_python))
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.csv"
        _side("events", sys.executable, options, events)
        sides = {
            name: str(options.peer_python) if name == PEER else sys.executable
            for name in options.sides
        }
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(options.rounds):
            for name, python in sides.items():
                result = json.loads(_side(name, python, options, events))
                rounds[name].append(result)
                print(f"round {number + 1}, {name}: {json.dumps(result)}", flush=True)
    _print_table(rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="ml-1m")
    parser.add_argument("--data", type=Path, required=True, help="folder of its files")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON)
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=SIDES, help="default: all"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="timed steps a round")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--events", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _side(name: str, python: str, options: argparse.Namespace, events: Path) -> str:
    """Runs one side in a process of its own; returns the last line that it prints."""
    command = [python, __file__, "--side", name, "--events", str(events)]
    command += ["--dataset", options.dataset, "--data", str(options.data)]
    command += ["--steps", str(options.steps)]
    environment = os.environ | OF_SIDE.get(name, {})
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return (done.stdout.splitlines() or [""])[-1]


def run_side(options: argparse.Namespace) -> None:
    if options.side == "events":
        write_events(options)
    elif options.side == PEER:
        print(json.dumps(run_peer(options)))
    else:
        print(json.dumps(run_ours(options, pack=options.side != "padded")))


def load_split(options: argparse.Namespace) -> Any:
    from tfrs_selfattn.data import build_sequences, leave_one_out, read_events

    dataset = DATASETS[options.dataset]
    least = dataset["min_item_events"]
    log = read_events((options.data / dataset["file"]).resolve())
    return leave_one_out(build_sequences(log, min_item_events=least))


def write_events(options: argparse.Namespace) -> None:
    """The training part as a table for the peer, in the order of our sequences."""
    from tfrs_selfattn.data import training_windows

    split = load_split(options)
    windows = training_windows(split, row_length=1 << 20)  # uncut
    items = split.sequences.items
    with options.events.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "weight", "datetime"])
        for user, (start, length) in enumerate(
            zip(windows.starts, windows.lengths, strict=True)
        ):
            # A window's targets are the items behind its positions: one item more.
            for place in range(length + 1):
                writer.writerow([user, items[start + place], 1, place])


def run_ours(options: argparse.Namespace, *, pack: bool) -> dict[str, Any]:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from tfrs_selfattn import data
    from tfrs_selfattn._keras import keras
    from tfrs_selfattn.models import presets

    split, length = load_split(options), DATASETS[options.dataset]["length"]
    num_items = len(split.sequences.vocabulary)
    keras.utils.set_random_seed(0)
    model = presets.sasrec(
        num_items,
        embedding_dim=WIDTH,
        num_blocks=BLOCKS,
        num_heads=HEADS,
        max_length=length,
        dropout=DROPOUT,
        seed=0,
    )
    model.compile(keras.optimizers.Adam(1e-3))
    model.build_from_config({})
    model.optimizer.build(model.trainable_variables)
    windows = "all" if pack else "newest"  # RecTools takes the newest of each history
    rows = data.pack_rows(split, row_length=length, windows=windows, pack=pack)
    dataset = data.training_dataset(rows, batch_size=BATCH, seed=0)
    step = tf.function(model.train_step, input_signature=[dataset.element_spec])
    seconds, targets, losses = [], [], []
    batches = iter(dataset)
    for _ in range(WARM_UP + options.steps):
        start = time.perf_counter()
        batch = next(batches)
        losses.append(float(step(batch)["loss"]))
        seconds.append(time.perf_counter() - start)
        targets.append(int((batch["targets"] > 0).numpy().sum()))
    seconds, targets = seconds[WARM_UP:], targets[WARM_UP:]
    flop = _flop(BATCH * length, length, statistics.mean(targets), num_items)
    return {
        "items_per_s": round(sum(targets) / sum(seconds)),
        "ms_step": round(1e3 * statistics.median(seconds), 1),
        "items_per_step": round(statistics.mean(targets)),
        "share_of_peak": round(flop / statistics.median(seconds) / _peak(tf), 3),
    }


def _flop(positions: int, length: int, targets: float, num_items: int) -> float:
    """Of the matrix products of a step: forward, and twice as many backward."""
    projections = BLOCKS * (4 + 2) * positions * WIDTH * WIDTH
    # A causal row needs half of its weights; each is used in two products.
    attention = BLOCKS * 2 * positions * WIDTH * length / 2
    logits = targets * WIDTH * num_items
    return 2 * 3 * (projections + attention + logits)


def _peak(tf: Any) -> float:
    square = tf.random.normal([2048, 2048])
    product = tf.function(lambda: tf.matmul(square, square))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def peer_trainer(callback: Any, **limits: int) -> Any:
    """How RecTools' models are trained: on the CPU, and nothing beside it."""
    from pytorch_lightning import Trainer

    return Trainer(
        max_epochs=1_000,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **limits,
    )


def run_peer(options: argparse.Namespace) -> dict[str, Any]:
    import warnings

    warnings.filterwarnings("ignore")
    import pandas
    import torch
    from pytorch_lightning import Callback, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    seconds: list[float] = []
    targets: list[int] = []

    class Clock(Callback):  # type: ignore[misc]
        """Times from the end of a step to the end of the next: data included."""

        last = 0.0

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int
        ) -> None:
            now = time.perf_counter()
            if number:
                seconds.append(now - self.last)
                targets.append(int((batch["y"] != 0).sum()))
            self.last = time.perf_counter()

    def trainer() -> Any:
        return peer_trainer(Clock(), max_steps=WARM_UP + options.steps + 1)

    table = pandas.read_csv(options.events)
    table["datetime"] = pandas.to_datetime(table["datetime"], unit="D")
    torch.set_num_threads(os.cpu_count() or 1)
    seed_everything(0, verbose=False)
    model = SASRecModel(
        n_factors=WIDTH,
        n_blocks=BLOCKS,
        n_heads=HEADS,
        session_max_len=DATASETS[options.dataset]["length"],
        dropout_rate=DROPOUT,
        loss="softmax",
        lr=1e-3,
        batch_size=BATCH,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(table))
    seconds, targets = seconds[WARM_UP:], targets[WARM_UP:]
    return {
        "items_per_s": round(sum(targets) / sum(seconds)),
        "ms_step": round(1e3 * statistics.median(seconds), 1),
        "items_per_step": round(statistics.mean(targets)),
    }


def _print_table(rounds: dict[str, list[dict[str, Any]]]) -> None:
    speeds = {
        name: statistics.median(result["items_per_s"] for result in results)
        for name, results in rounds.items()
    }
    measure = PEER if PEER in rounds else next(iter(rounds))
    print(f"\n| side | real items/s | times {measure} | ms a step | share of peak |")
    print("|---|---|---|---|---|")
    for name, results in rounds.items():
        spread = [result["items_per_s"] for result in results]
        step = statistics.median(result["ms_step"] for result in results)
        shares = [r["share_of_peak"] for r in results if "share_of_peak" in r]
        share = f"{statistics.median(shares):.0%}" if shares else ""
        print(
            f"| {name} | {speeds[name]:,.0f} ({min(spread):,} to {max(spread):,}) | "
            f"{speeds[name] / speeds[measure]:.2f} | {step:,.0f} | {share} |"
        )


if __name__ == "__main__":
    main()
