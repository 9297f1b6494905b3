"""A server under load for half an hour: does its memory stay where it is?

    python benchmarks/serving_soak.py models/films --minutes 30 --share 0.5

Starts a server over an export (the stock one if there is one, else the stand-in of the
tests), measures its saturation for ten seconds, and then asks at random moments at a
share of that. Prints latencies and memory of every minute. After five minutes of
settling, memory is flat when the mean of the last quarter is within 2 % of that of the
first; the exit status is 1 when it is not, and any request that fails ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._serving_world import random_histories
from benchmarks.serving import Served, percentile

SETTLING = 5
FLAT = 0.02


def growth(memory):
    """How much the memory of each minute has grown, as a share, once settled."""
    settled = memory[min(SETTLING, len(memory) // 4) :]
    quarter = max(len(settled) // 4, 1)
    first, last = settled[:quarter], settled[-quarter:]
    return statistics.fmean(last) / statistics.fmean(first) - 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="folder of the versions of an export")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.5, help="of the saturation")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    version = max(
        (path for path in options.base.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    ids = (version / "assets" / "vocabulary.txt").read_text().splitlines()
    minutes = []
    with tempfile.TemporaryDirectory() as scratch:
        served = Served(options.base, random_histories(ids), Path(scratch))
        try:
            saturation = served.saturate(10)
            rate = saturation * options.share
            print(
                f"saturated at {saturation:.0f} requests a second; "
                f"asking {rate:.0f} a second, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            for number in range(1, options.minutes + 1):
                times = served.at_rate(rate, 60)
                minutes.append(
                    {
                        "requests": len(times),
                        "p50_ms": round(percentile(times, 0.5), 2),
                        "p99_ms": round(percentile(times, 0.99), 2),
                        "memory_mb": round(served.memory_mb(), 1),
                        "load": round(os.getloadavg()[0], 1),
                    }
                )
                shown = "  ".join(f"{k} {v}" for k, v in minutes[-1].items())
                print(f"minute {number:>3}: {shown}", flush=True)
                if options.output:
                    figures = {"saturation": saturation, "rate": rate}
                    figures["minutes"] = minutes
                    options.output.write_text(json.dumps(figures, indent=2) + "\n")
        finally:
            served.close()
    grown = growth([minute["memory_mb"] for minute in minutes])
    flat = abs(grown) <= FLAT
    print(f"memory {grown:+.2%} over the run: {'flat' if flat else 'NOT flat'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
