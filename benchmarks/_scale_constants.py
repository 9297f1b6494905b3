"""The measured constants of the cost model, read where they are published.

Each is a number of a section of benchmarks/README.md, found there by a pattern: who
measures anew and changes the table changes the model too, and who rewords it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

README = Path(__file__).parent / "README.md"


@dataclass(frozen=True)
class Measured:
    """A constant: what it is, where its numbers stand, and what is made of them.

    `pattern` finds the numbers in the section, `make` turns them into the constant,
    which is shown in `unit`.
    """

    what: str
    section: str
    pattern: str
    make: Callable[..., float]
    unit: str

    @property
    def numbers(self) -> tuple[float, ...]:
        """The published numbers.

        Raises:
            ValueError: when the section does not have them.
        """
        pattern = self.pattern.replace(" ", r"\s+")  # Lines of a text may break anew.
        found = re.search(pattern, section(self.section))
        if found is None:
            raise ValueError(
                f"Section {self.section!r} of {README} must have {self.what}, as "
                f"{self.pattern!r} finds it. Received: nothing like it. Correct the "
                "pattern in benchmarks/_scale_constants.py."
            )
        return tuple(float(each.replace(",", "")) for each in found.groups())

    @property
    def value(self) -> float:
        return self.make(*self.numbers)


@cache
def section(title: str) -> str:
    """The text below a heading of the README, up to the next."""
    parts = re.split(r"^## (.*)$", README.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


CONSTANTS = {
    "step_us": Measured(
        "a slot of a training step, 3,416 items, full softmax",
        "Data path",
        r"memory \| 0\.5 ms \| 0\.5 ms \| (\d+) ms",
        lambda ms: ms * 1e3 / 25_600,
        "µs",
    ),
    "full_softmax_us": Measured(
        "of it, the loss over 3,416 items",
        "Losses",
        r"`FullSoftmax` \| (\d+) \|",
        lambda ms: ms * 1e3 / 12_800,
        "µs",
    ),
    "sampled_softmax_us": Measured(
        "the loss over 256 negatives that a batch shares",
        "Losses",
        r"256 uniform, shared by batch / row \| (\d+) /",
        lambda ms: ms * 1e3 / 12_800,
        "µs",
    ),
    "sequences_bytes": Measured(
        "memory to read a log at once, an event",
        "Data path",
        r"events into sequences \|.*peak ([\d.]+) GB \|\n",
        lambda gigabytes: gigabytes * 1e9 / 100e6,
        "B",
    ),
    "prepare_us": Measured(
        "`prepare` in process, an event, two cores",
        "Preparing events and answering every user",
        r"`prepare` in process \| [\d.]+ \| ([\d,]+) events",
        lambda a_second: 1e6 / a_second,
        "µs",
    ),
    "prepare_bytes": Measured(
        "its memory, whatever the log",
        "Preparing events and answering every user",
        r"`prepare` in process \|.*\| ([\d.]+) GB",
        lambda gigabytes: gigabytes * 1e9,
        "B",
    ),
    "shard_bytes": Measured(
        "an event in shards on disk, with its time",
        "Data path",
        r"shards written \|.*\(([\d.]+) GB\) in \d+ s \|\n",
        lambda gigabytes: gigabytes * 1e9 / 100e6,
        "B",
    ),
    "exact_ms": Measured(
        "exact search of a million items, one thread",
        "Index, one run",
        r"`ExactTopK` \| 1 \| ([\d.]+) /",
        lambda ms: ms,
        "ms",
    ),
    "partitioned_ms": Measured(
        "partitioned search of a million items at recall .98, one thread",
        "Index, one run",
        r"`PartitionedTopK` \| \.95.*\n\| \| \.98 \| ([\d.]+) /",
        lambda ms: ms,
        "ms",
    ),
    "leaves": Measured(
        "leaves that it searches, of 8,000",
        "Index, one run",
        r"`PartitionedTopK` \| \.95.*\n\| \| \.98 .*\| (\d+) \|",
        lambda leaves: leaves,
        "",
    ),
    "index_factor": Measured(
        "memory of the partitioned index, of the float32 matrix",
        "Index, one run",
        r"float32 leaves alone hold\s+([\d.]+):",
        lambda factor: factor,
        "",
    ),
    "build_us": Measured(
        "building it, an item, two cores",
        "Index, one run",
        r"Built in \d+ to (\d+) s",
        lambda seconds: seconds,
        "µs",
    ),
    "query_ms": Measured(
        "the query tower, one history, oneDNN off",
        "Serving",
        r"p50 ([\d.]+) ms without oneDNN",
        lambda ms: ms,
        "ms",
    ),
    "batched_query_ms": Measured(
        "a request in a batch of 32 over 3,000 items, nearly all of it the tower",
        "Serving",
        r"3,000 \| exact \| [\d.]+ / [\d.]+ \| ([\d.]+) /",
        lambda ms: ms / 32,
        "ms",
    ),
    "everyone_us": Measured(
        "`recommend-all`, a user among 50,000 items, two cores",
        "Preparing events and answering every user",
        r"`recommend-all` in process \| [\d.]+ \| ([\d,]+) users",
        lambda a_second: 1e6 / a_second,
        "µs",
    ),
    "exchange": Measured(
        "exchange of dense gradients over loopback",
        "More workers, more shards",
        r"([\d.]+) MB of dense gradients(?:.|\n)*exchange alone takes ([\d.]+) ms",
        lambda megabytes, ms: megabytes * 1e6 / (ms / 1e3),
        "B/s",
    ),
    "second_trip_ms": Measured(
        "a second round trip, to one shard, stand-in server in Python",
        "More workers, more shards",
        r"second round trip costs ([\d.]+) ms",
        lambda ms: ms,
        "ms",
    ),
}


@cache
def constant(name: str) -> float:
    """A constant by its name in `CONSTANTS`."""
    return CONSTANTS[name].value
