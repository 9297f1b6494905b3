"""Preparing events in process and on Beam, and answering every user: time and memory.

Generates a log from a seed into Parquet files. Then, each in a process of its own:
prepares it in process and on Beam's DirectRunner, and compares the two record for
record; exports an untrained model over the log's items and recommends to users in
process and on Beam. Seconds leave the imports out; peaks are of the whole process.

    python benchmarks/prepare.py --events 20000000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
MEAN_LENGTH = 40
FILES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--users", type=int, default=20_000, help="to recommend to")
    parser.add_argument("--row-length", type=int, default=200)
    parser.add_argument("--num-shards", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](Path(options.folder), options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = {step: run(step, folder) for step in STEPS if wanted(step)}
    if options.json:
        print(json.dumps(results))
        return
    for step, result in results.items():
        numbers = ", ".join(f"{name} {value}" for name, value in result.items())
        print(f"{step:<22}{numbers}")


def wanted(step: str) -> bool:
    return "Beam" not in step or importlib.util.find_spec("apache_beam") is not None


def run(step: str, folder: str) -> dict[str, float]:
    """Runs a step in a process of its own, so that its peak is its own."""
    command = [sys.executable, __file__, *sys.argv[1:]]
    command += ["--step", step, "--folder", folder]
    print(f"{step} …", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {result}", file=sys.stderr)
    return result


def generate(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import generate_events

    (folder / "events").mkdir()
    users = options.events // MEAN_LENGTH // FILES
    events = 0
    for part in range(FILES):
        log = generate_events(users, options.items, MEAN_LENGTH, seed=part)
        # Every part has users of its own.
        log = log.with_columns(user_id=f"{part}-" + log["user_id"])
        log.write_parquet(folder / "events" / f"{part:03d}.parquet")
        events += len(log)
    return {"events": events, "users": users * FILES}


def in_process(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import prepare_events, read_events

    start = time.perf_counter()
    log = prepare_events(
        read_events(folder / "events"),
        folder / "local",
        row_length=options.row_length,
        num_shards=options.num_shards,
    )
    return spent(start, log.manifest["events"], "events/s")


def on_beam(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.beam.prepare import Source, prepare_on_beam
    from tfrs_selfattn.data import read_events, read_prepared
    from tfrs_selfattn.data._preparation import PrepareOptions

    start = time.perf_counter()
    manifest = prepare_on_beam(
        Source.of_events(read_events(folder / "events")),
        str(folder / "beam"),
        PrepareOptions(row_length=options.row_length, num_shards=options.num_shards),
        runner="DirectRunner",
    )
    result = spent(start, manifest["events"], "events/s")
    local, beam = read_prepared(folder / "local"), read_prepared(folder / "beam")
    assert local.vocabulary.ids == beam.vocabulary.ids
    for one, other in zip(local.rows().paths, beam.rows().paths, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    return result


def export(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import read_prepared
    from tfrs_selfattn.export import export_recommender
    from tfrs_selfattn.models import presets

    vocabulary = read_prepared(folder / "local").vocabulary
    model = presets.sasrec(
        num_items=len(vocabulary), embedding_dim=64, max_length=options.row_length
    )
    start = time.perf_counter()
    export_recommender(
        model, folder / "model", vocabulary=vocabulary, k=100, verify=False
    )
    return {"items": len(vocabulary), **spent(start)}


def users_of(folder: Path, options: argparse.Namespace) -> Path:
    """The first users of the log, as a file of histories."""
    import polars as pl

    from tfrs_selfattn.data import read_prepared

    path = folder / "users.parquet"
    if not path.exists():
        log = read_prepared(folder / "local")
        table = pl.scan_parquet(log.parts).head(options.users).collect()
        ids = pl.Series(log.vocabulary.ids)
        flat = table.select("user_id", "items").explode("items")
        flat = flat.with_columns(history=ids.gather(flat["items"] - 1))
        users = flat.group_by("user_id", maintain_order=True).agg("history")
        users.write_parquet(path)
    return path


def answer(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.export import recommend_all

    users = users_of(folder, options)
    start = time.perf_counter()
    done = recommend_all(
        folder / "model", users, folder / "answers", users_per_file=2_000
    )
    return spent(start, done.users, "users/s")


def answer_on_beam(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    import polars as pl

    from tfrs_selfattn.beam.recommend_all import recommend_all_on_beam

    users = users_of(folder, options)
    start = time.perf_counter()
    done = recommend_all_on_beam(
        str(folder / "model"),
        str(users),
        str(folder / "beam answers"),
        runner="DirectRunner",
        users_per_file=2_000,
    )
    result = spent(start, done.users, "users/s")
    local, beam = (
        pl.read_parquet(folder / name / "*.parquet").sort("user_id")
        for name in ("answers", "beam answers")
    )
    assert local.equals(beam)
    return result


def spent(start: float, count: int = 0, rate: str = "") -> dict[str, float]:
    """Seconds since `start`, a rate, and the most memory this process ever had."""
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    result = {"seconds": round(seconds, 1), "peak gb": round(peak_bytes / 1e9, 2)}
    return {**result, rate: round(count / seconds)} if rate else result


STEPS: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {
    "generate": generate,
    "prepare in process": in_process,
    "prepare on Beam": on_beam,
    "export": export,
    "recommend in process": answer,
    "recommend on Beam": answer_on_beam,
}


if __name__ == "__main__":
    main()
