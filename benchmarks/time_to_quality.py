"""Minutes of training until a validation NDCG@10: our recipe beside RecTools' SASRec.

    python benchmarks/time_to_quality.py --data FOLDER --peer-python PATH

on MovieLens-1M. Both sides learn from all but the last two events of each user, and are
asked for the last but one: ranked among all items, items of the history left out, ties
against the model. One after the other, each alone on all cores, in a process of its
own.

- Ours: the recipe of `--recipe`, changed by `--set`; its schedule is cut short to
  `--epochs`, as one who wants no more than that would. Its seconds are those of whole
  epochs, validation and checkpoints included.
- RecTools: the recipe of the best published SASRec (RecSys 2023, "Turning Dross Into
  Gold Loss": d 64, 2 blocks, 1 head, dropout .1, length 200, batch 128, Adam 1e-3),
  with the softmax over all items that RecTools has. Its seconds are those of training
  alone: what the validation takes is left out. It is stopped after `--limit` times our
  seconds, and the ratio is then more than that.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import (
    HOW_TO_INSTALL,
    PEER_MEMORY,
    PEER_PYTHON,
    load_split,
    peer_trainer,
    write_events,
)

K = 10
PEER = {"n_factors": 64, "n_blocks": 2, "n_heads": 1, "dropout_rate": 0.1}
PEER |= {"session_max_len": 200, "batch_size": 128, "lr": 1e-3}
EVALUATION_BATCH = 256


def main() -> None:
    options = _options()
    if options.side:
        sides = {"events": write_sides, "ours": run_ours, "RecTools": run_peer}
        print(json.dumps(sides[options.side](options)))
        return
    if not options.peer_python.exists():
        raise SystemExit(HOW_TO_INSTALL.format(path=options.peer_python))
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.csv"
        _side("events", sys.executable, events)
        ours = _side("ours", sys.executable, events)
        if not ours["reached"]:
            raise SystemExit(f"ours came to {ours['ndcg']:.4f}: try more --epochs")
        more = ("--seconds", str(options.limit * ours["seconds"]))
        peer = _side("RecTools", str(options.peer_python), events, *more)
    beyond = "" if peer["reached"] else "more than "
    print(f"\n| side | minutes to {options.target} | epochs | NDCG@{K} |")
    print("|---|---|---|---|")
    for name, side, words in (("ours", ours, ""), ("RecTools", peer, beyond)):
        print(
            f"| {name} | {words}{side['seconds'] / 60:.1f} | {side['epochs']} | "
            f"{side['ndcg']:.4f} |"
        )
    print(f"\n{beyond}{peer['seconds'] / ours['seconds']:.1f} times our minutes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of its files")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON)
    parser.add_argument("--target", type=float, default=0.17)
    parser.add_argument("--recipe", default="ml-1m")
    parser.add_argument("--epochs", type=int, default=5, help="of ours")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--limit", type=float, default=7.0, help="see above")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--events", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.set_defaults(dataset="ml-1m")
    return parser.parse_args()


def _side(name: str, python: str, events: Path, *more: str) -> dict[str, Any]:
    """Runs one side in a process of its own; returns what its last line says."""
    command = [python, __file__, *sys.argv[1:], "--side", name]
    command += ["--events", str(events), *more]
    environment = os.environ | (PEER_MEMORY if name == "RecTools" else {})
    print(f"{name}:", flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = "null"
        for line in process.stdout:
            print(f"  {line.rstrip()}", flush=True)
    if process.returncode:
        raise SystemExit(f"{name} failed")
    found: dict[str, Any] = json.loads(line)
    return found


def write_sides(options: argparse.Namespace) -> None:
    """The training part for the peer, and beside it the item each user is asked for."""
    write_events(options)
    cases = load_split(options).validation
    with _targets(options).open("w", newline="") as file:
        csv.writer(file).writerows(enumerate(cases.targets))


def _targets(options: argparse.Namespace) -> Path:
    path: Path = options.events.with_name("targets.csv")
    return path


def run_ours(options: argparse.Namespace) -> dict[str, Any]:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from _run_options import settings_of

    from tfrs_selfattn.training import DataConfig, RunConfig, RunFolder, recipe, train

    split = load_split(options)
    model, training = recipe(
        options.recipe, {"epochs": options.epochs, **settings_of(options)}
    )
    config = RunConfig.for_sequences(split.sequences, DataConfig(""), model, training)
    place = options.events.with_name("run")
    folder = RunFolder.create(place, config, split.sequences.vocabulary, {})
    train(folder, split, verbose=2)
    seconds, epoch = 0.0, {}
    for epoch in folder.metrics()["epochs"]:
        seconds += epoch["seconds"]
        if epoch["val_ndcg@10"] >= options.target:
            break
    return _found(options, seconds, epoch["epoch"], epoch["val_ndcg@10"])


def _found(
    options: argparse.Namespace, seconds: float, epochs: int, ndcg: float
) -> dict[str, Any]:
    reached = ndcg >= options.target
    return {"seconds": seconds, "epochs": epochs, "ndcg": ndcg, "reached": reached}


def run_peer(options: argparse.Namespace) -> dict[str, Any]:
    import warnings

    warnings.filterwarnings("ignore")
    import numpy
    import pandas
    import torch
    from pytorch_lightning import Callback, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    table = pandas.read_csv(options.events)
    histories = table.groupby("user_id", sort=True)["item_id"].agg(list)
    targets = numpy.loadtxt(_targets(options), dtype=int, delimiter=",")[:, 1]
    table["datetime"] = pandas.to_datetime(table["datetime"], unit="D")
    found: list[dict[str, Any]] = []

    class Progress(Callback):  # type: ignore[misc]
        """Validates after each epoch, off the clock, and ends the training."""

        seconds = started = 0.0

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self.started = time.perf_counter()

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.seconds += time.perf_counter() - self.started
            module.eval()
            with torch.no_grad():
                ndcg = _validated(module, model.data_preparator, histories, targets)
            module.train()
            epochs = trainer.current_epoch + 1
            found.append(_found(options, self.seconds, epochs, ndcg))
            print(f"epoch {epochs}: {self.seconds:.0f} s, NDCG@{K} {ndcg:.4f}")
            late = self.seconds > options.seconds
            trainer.should_stop = found[-1]["reached"] or late

    def trainer() -> Any:
        return peer_trainer(Progress())

    torch.set_num_threads(os.cpu_count() or 1)
    seed_everything(0, verbose=False)
    model = SASRecModel(**PEER, loss="softmax", get_trainer_func=trainer)
    model.fit(Dataset.construct(table))
    return found[-1]


def _validated(module: Any, preparator: Any, histories: Any, targets: Any) -> float:
    """NDCG@10 of the item after each history. An item that training never
    shows cannot be found.
    """
    import numpy
    import torch

    # Row of an item in the peer's table; 0, its padding, where it has none.
    known = preparator.item_id_map.external_ids
    rows = numpy.zeros(max(int(targets.max()), *map(max, histories)) + 1, dtype=int)
    extra = preparator.n_item_extra_tokens
    rows[numpy.array(known[extra:], dtype=int)] = numpy.arange(extra, len(known))
    model, length = module.torch_model, PEER["session_max_len"]
    items = model.item_model.get_all_embeddings()
    gain = 0.0
    for start in range(0, len(histories), EVALUATION_BATCH):
        part = [
            rows[history] for history in histories[start : start + EVALUATION_BATCH]
        ]
        wanted = torch.tensor(rows[targets[start : start + len(part)]])
        sessions = numpy.zeros((len(part), length), dtype=int)
        for row, history in zip(sessions, part, strict=True):
            newest = history[-length:]
            row[length - len(newest) :] = newest
        batch = {"x": torch.tensor(sessions)}
        queries = model.encode_sessions(batch, items)[:, -1, :]
        similarity = model.similarity_module
        queries = similarity.session_tower_forward(queries)
        scores = queries @ similarity.item_tower_forward(items).T
        mine = scores.gather(1, wanted[:, None])
        for row, history in zip(scores, part, strict=True):
            row[history] = -numpy.inf
        scores[:, :extra] = -numpy.inf
        scores.scatter_(1, wanted[:, None], -numpy.inf)
        ranks = 1 + (scores >= mine).sum(dim=1).double()
        hit = (ranks <= K) & (wanted >= extra)
        gain += float((hit / torch.log2(ranks + 1)).sum())
    return gain / len(histories)


if __name__ == "__main__":
    main()
