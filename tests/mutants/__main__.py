"""Puts faults into copies of the package, one at a time, and sees which tests notice.

    python -m tests.mutants            # all of them, some minutes; writes MUTANTS.md
    python -m tests.mutants rotary     # those whose name or file has the word

Ends with 1 when a test stands by a faulty copy. The faults are in
`of_ops.py` and `of_layers.py`; `test_mutants.py` sees to it that each of them can still
be put in.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import of_layers, of_ops
from tests.mutants.running import REPOSITORY, copied, run

TABLE = REPOSITORY / "tests" / "MUTANTS.md"
HEAD = """# Mutants

Each line is one fault put into a copy of the package, alone, and the test that failed
because of it. `python -m tests.mutants` does so and writes this file; the faults are in
`tests/mutants/`.

| fault | file | found by |
|---|---|---|
"""
FAULTS = [*of_ops.FAULTS, *of_layers.FAULTS]


def passes(test, keras_3, fault=None):
    """Whether a test passes, in a copy of its own, with a fault or as things are."""
    with tempfile.TemporaryDirectory() as name:
        folder = copied(Path(name))
        if fault is not None:
            path = folder / "tfrs_selfattn" / fault.file
            faulty = fault.faulty(path.read_text(encoding="utf-8"))
            path.write_text(faulty, encoding="utf-8")
        return run(folder, test, keras_3)


def survives(fault):
    survived = passes(fault.test, fault.keras_3, fault)
    print("NOT FOUND:" if survived else "found:", fault.name, flush=True)
    return survived


def row(fault):
    where = " (Keras 3)" if fault.keras_3 else ""
    return f"| {fault.name}{where} | `{fault.file}` | `{fault.test}` |\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("word", nargs="?", default="", help="in the name or file")
    parser.add_argument("--jobs", type=int, default=2, help="copies at a time")
    parser.add_argument(
        "--trust", action="store_true", help="the tests pass as things are: skip that"
    )
    options = parser.parse_args()
    faults = [f for f in FAULTS if options.word in f.name + f.file]
    if not faults:
        parser.error(f"no fault has {options.word!r} in its name or file")
    with ThreadPoolExecutor(options.jobs) as pool:
        if not options.trust:  # a test that fails anyway finds nothing
            tests = sorted({(fault.test, fault.keras_3) for fault in faults})
            sound = list(pool.map(lambda test: passes(*test), tests))
            if not all(sound):
                broken = [t for t, good in zip(tests, sound, strict=True) if not good]
                sys.exit(f"These fail without any fault: {broken}")
        survived = list(pool.map(survives, faults))
    alive = [f for f, stays in zip(faults, survived, strict=True) if stays]
    for fault in alive:
        print(f"NOT FOUND: {fault.name} ({fault.file}) by {fault.test}")
    print(f"{len(faults) - len(alive)} of {len(faults)} found")
    if not options.word and not alive:
        TABLE.write_text(HEAD + "".join(map(row, FAULTS)), encoding="utf-8")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
