"""How much memory and time it takes to read a large event log into sequences.

Generates events from a seed, writes them as CSV and as Parquet into a temporary folder,
and measures reading, checking and sequencing in a process of its own each:

    python benchmarks/data_memory.py --events 20000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FORMATS = ("csv", "parquet")
MEAN_LENGTH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--long-ids", action="store_true", help="ids of 36 characters")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, path = options.step
        if step == "generate":
            generate(Path(path), options)
        else:
            print(json.dumps(measure(Path(path))))
        return

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, too: a child's peak counts from its parent's size.
        run("generate", folder, *sys.argv[1:])
        results = {
            form: json.loads(run("measure", f"{folder}/e.{form}")) for form in FORMATS
        }
    if options.json:
        print(json.dumps(results))
        return
    columns = ("events", "users", "items", "file_gb", "seconds", "peak_gb")
    print("format  " + "".join(f"{column:>12}" for column in columns))
    for form, result in results.items():
        cells = "".join(f"{result[column]:>12,}" for column in columns)
        print(f"{form:<8}{cells}")


def generate(folder: Path, options: argparse.Namespace) -> None:
    import polars as pl

    from tfrs_selfattn.data import generate_events

    num_users = max(1, options.events // MEAN_LENGTH)
    log = generate_events(num_users, options.items, MEAN_LENGTH, seed=0)
    if options.long_ids:
        wide = pl.col("user_id", "item_id").str.pad_start(36, "0")
        log = log.with_columns(wide)
    log.write_csv(folder / "e.csv")
    log.write_parquet(folder / "e.parquet")


def run(step: str, path: str, *arguments: str) -> str:
    command = [sys.executable, __file__, *arguments, "--step", step, path]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(path: Path) -> dict[str, float]:
    from tfrs_selfattn.data import build_sequences, read_events, summarize

    start = time.perf_counter()
    summary = summarize(build_sequences(read_events(path)))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {
        "events": summary.events,
        "users": summary.users,
        "items": summary.items,
        "file_gb": round(path.stat().st_size / 1e9, 2),
        "seconds": round(seconds, 1),
        "peak_gb": round(peak_bytes / 1e9, 2),
    }


if __name__ == "__main__":
    main()
