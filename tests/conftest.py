"""What every test shares: the Keras of the process, golden files, real data."""

from __future__ import annotations

import difflib
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Before any test module imports TensorFlow. `test_keras3.py` sets it to 0 for its own.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Continuous integration tries the same examples every time; at home they vary.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
# Of faults (`tests/mutants`) it is enough to know that they were found.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE")
    or ("ci" if os.environ.get("CI") else "default")
)


def pytest_addoption(parser):
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="rewrite the files under tests/golden/ from what the code does now",
    )


def pytest_collection_modifyitems(items):
    # It waits for a process that runs half of the suite once more: started last, it
    # would leave the other worker idle.
    items.sort(key=lambda item: item.path.name != "test_keras3.py")


@pytest.fixture
def assert_golden(request):
    """A function that compares text with `tests/golden/NAME`, or rewrites that file."""

    def assert_golden(name, text):
        path = REPOSITORY / "tests" / "golden" / name
        if request.config.getoption("--refresh-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        if text != known:
            lines = difflib.unified_diff(
                known.splitlines(), text.splitlines(), f"golden/{name}", "now", n=1
            )
            pytest.fail(
                "\n".join(lines) + "\n\nIf this change is meant, run "
                "`pytest --refresh-golden`, read the diff and note it in CHANGELOG.md.",
                pytrace=False,
            )

    return assert_golden


@pytest.fixture(scope="session")
def run_python():
    """A function that runs this Python in a process of its own and returns it done.

    `legacy_keras` chooses the Keras of that process, which this one cannot change.
    """

    def run_python(*arguments, legacy_keras=True, **options):
        environment = os.environ | {"TF_USE_LEGACY_KERAS": "1" if legacy_keras else "0"}
        options = {"cwd": REPOSITORY, "timeout": 600, **options}
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **options,
        )

    return run_python


@pytest.fixture(scope="session")
def ml_100k():
    """The folder of MovieLens-100K: beside the repository, else as users get it."""
    beside = REPOSITORY.parent / "shared" / "data" / "ml-100k"
    if beside.is_dir():
        return beside
    from tfrs_selfattn.data import locate_movielens_100k

    return locate_movielens_100k(None).folder
