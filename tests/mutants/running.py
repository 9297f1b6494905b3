"""Runs a test in a copy of the repository, in a process that has TensorFlow already."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PYTEST = 10  # added to pytest's status: Python itself ends with 1 too


def copied(folder):
    """A copy of what the tests need, in which nothing points back here."""
    for part in ("tfrs_selfattn", "tests"):
        shutil.copytree(
            REPOSITORY / part,
            folder / part,
            ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"),
        )
    for part in ("pyproject.toml", "README.md", "setup.py"):
        shutil.copy(REPOSITORY / part, folder / part)
    return folder


def run(folder, test, keras_3):
    """Runs one test in a copy, in a process of its own: whether it passed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow"])  # once for all
    process = context.Process(target=run_here, args=(folder, test, keras_3))
    process.start()
    process.join()
    status = process.exitcode - PYTEST
    if status not in (0, 1):  # 1: a test failed
        printed = folder / "printed.txt"
        text = printed.read_text(encoding="utf-8") if printed.exists() else ""
        raise RuntimeError(f"pytest could not run tests/{test}:\n{text}")
    return status == 0


def run_here(folder, test, keras_3):
    """Ends this process with pytest's status."""
    with open(folder / "printed.txt", "wb") as printed:
        for stream in (1, 2):
            os.dup2(printed.fileno(), stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ |= {
        "PYTHONPATH": str(folder),  # of processes that the test starts
        "TF_USE_LEGACY_KERAS": "0" if keras_3 else "1",
        "HYPOTHESIS_PROFILE": "mutants",
    }
    import pytest

    arguments = ["-q", "-x", "-n0", "-p", "no:cacheprovider", f"tests/{test}"]
    os._exit(PYTEST + int(pytest.main(arguments)))
