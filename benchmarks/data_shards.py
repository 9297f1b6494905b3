"""How much memory and time training rows of a large log take, in shards and in memory.

Generates events from a seed into a temporary Parquet file. Then, in a process of its
own each: reads them into sequences and writes shards; streams epochs of batches from
the shards; and, with --in-memory, does the same from rows in memory:

    python benchmarks/data_shards.py --events 20000000
    python benchmarks/data_shards.py --events 100000000 --folder DIR
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MEAN_LENGTH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--row-length", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--times", action="store_true", help="rows with times")
    parser.add_argument("--in-memory", action="store_true", help="the peer, too")
    parser.add_argument("--folder", help="where to keep generated events and shards")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](Path(options.folder), options)))
        return

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        steps = ["generate", "write", "stream"]
        steps += ["in memory"] if options.in_memory else []
        results = {step: run(step, folder) for step in steps}
    if options.json:
        print(json.dumps(results))
        return
    for step, result in results.items():
        numbers = ", ".join(f"{name} {value}" for name, value in result.items())
        print(f"{step:<10}{numbers}")


def run(step: str, folder: str) -> dict[str, float]:
    """Runs a step in a process of its own, so that its peak is its own."""
    arguments = [*sys.argv[1:], "--step", step, "--folder", folder]
    command = [sys.executable, __file__, *arguments]
    print(f"{step} …", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def generate(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Writes the log in parts: whole, it would need more memory than reading does."""
    from tfrs_selfattn.data import generate_events

    start = time.perf_counter()
    (folder / "events").mkdir()
    left, part = options.events // MEAN_LENGTH, 0
    while left > 0:
        users = min(left, 500_000)
        log = generate_events(users, options.items, MEAN_LENGTH, seed=part)
        # Every part has users of its own.
        log = log.with_columns(user_id=f"{part}-" + log["user_id"])
        log.write_parquet(folder / "events" / f"{part:03d}.parquet")
        left, part = left - users, part + 1
    files = (folder / "events").iterdir()
    size = sum(path.stat().st_size for path in files)
    return {"gb": round(size / 1e9, 2), **spent(start)}


def write(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import (
        build_sequences,
        leave_one_out,
        read_events,
        write_shards,
    )

    start = time.perf_counter()
    sequences = build_sequences(read_events(folder / "events"))
    read = spent(start)
    split = leave_one_out(sequences)
    start = time.perf_counter()
    with PeakMemory() as peak:
        rows = write_shards(
            split,
            folder / "rows",
            row_length=options.row_length,
            times=options.times,
        )
    return {
        "events": sequences.num_events,
        "users": sequences.num_users,
        "seconds to read": read["seconds"],
        "peak gb to read": read["peak gb"],
        "seconds to write": round(time.perf_counter() - start, 1),
        "gb before, peak gb while writing": peak.text(),
        "rows": len(rows),
        "shards": len(rows.paths),
        "gb of shards": round(sum(p.stat().st_size for p in rows.paths) / 1e9, 2),
    }


def stream(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import read_shards

    return read_epoch(read_shards(folder / "rows"), options)


def in_memory(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import (
        build_sequences,
        leave_one_out,
        pack_rows,
        read_events,
    )

    sequences = build_sequences(read_events(folder / "events"))
    rows = pack_rows(
        leave_one_out(sequences), row_length=options.row_length, times=options.times
    )
    return read_epoch(rows, options)


def read_epoch(rows: object, options: argparse.Namespace) -> dict[str, float]:
    from tfrs_selfattn.data import steps_per_epoch, training_dataset

    start = time.perf_counter()
    steps = steps_per_epoch(rows, options.batch_size)
    targets = 0
    dataset = training_dataset(rows, batch_size=options.batch_size, seed=0)
    for batch in dataset.take(steps).as_numpy_iterator():
        targets += int((batch["targets"] > 0).sum())
    assert targets == rows.num_targets
    result = spent(start)
    return {
        "batches": steps,
        **result,
        "items/s": round(targets / result["seconds"]),
        "ms a batch": round(1000 * result["seconds"] / steps, 2),
    }


def spent(start: float) -> dict[str, float]:
    """Seconds since `start`, and the most memory this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak gb": round(peak_bytes / 1e9, 2),
    }


class PeakMemory:
    """The most memory a part of the program takes, looked at every 20 ms."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = resident_gb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, resident_gb())

    def text(self) -> list[float]:
        return [round(self.before, 2), round(self.peak, 2)]


def resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


STEPS = {"generate": generate, "write": write, "stream": stream, "in memory": in_memory}


if __name__ == "__main__":
    main()
