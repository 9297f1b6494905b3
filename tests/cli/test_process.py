"""What only a process of its own can show: a kill, and TensorFlow's log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tfrs_selfattn import training

EPOCHS = 5
CLOCK = {"seconds", "items/s"}
OPTIONS = (
    *("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16"),
    *("--epochs", EPOCHS, "--batch-size", "4"),
)


@pytest.fixture
def start(events, columns):
    """A function that starts `train` into a folder, in a process of its own."""

    def start(run, *more):
        words = ("train", "--data", events, *columns, *OPTIONS, "--output", run, *more)
        return subprocess.Popen(
            [sys.executable, "-m", "tfrs_selfattn", *map(str, words)],
            # As a user's shell has it: the tests set these for their own process.
            env={
                name: value
                for name, value in os.environ.items()
                if name not in {"TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL"}
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def learned(run):
    """Metrics by epoch, without times, and the weights of the best epoch."""
    folder = training.RunFolder.open(run)
    epochs = [
        {
            key: value
            for key, value in epoch.items()
            if key not in ("seconds", "items/s")
        }
        for epoch in folder.metrics()["epochs"]
    ]
    return epochs, training.load_model(folder).query_tower.get_weights()


def test_a_killed_command_goes_on_when_repeated(start, cli, events, columns, tmp_path):
    run = tmp_path / "run"
    with start(run) as process:
        while not (run / "metrics.json").exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = len(training.RunFolder.open(run).metrics()["epochs"])
    assert 1 <= done < EPOCHS

    with start(run, "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    (line,) = out.splitlines()
    result = json.loads(line)
    assert (result["epochs"], result["resumed_from"]) == (EPOCHS, done)
    assert f"Continuing {run} after {done} epochs\n" in err
    # People read their own lines there, and none of TensorFlow's notices.
    assert not re.search(r"absl|oneDNN|[IWE]\d{4} |rebuild TensorFlow|WARNING", err)

    whole = tmp_path / "whole"
    words = ("train", "--data", events, *columns, *OPTIONS, "--output", whole)
    assert cli(*words).status == 0
    (epochs, weights), (epochs_whole, weights_whole) = learned(run), learned(whole)
    assert epochs == epochs_whole
    assert all(map(np.array_equal, weights, weights_whole))


IMPORT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tfrs_selfattn.cli._tensorflow import start_tensorflow
start_tensorflow()
print("after")
"""


@pytest.mark.parametrize("level", ["3", "0"])
def test_only_notices_of_the_import_are_held_back(tmp_path, run_python, level):
    # In the place of TensorFlow, a module that writes what TensorFlow writes.
    lines = [
        "WARNING: All log messages before absl::InitializeLog() is called are written",
        "I0000 00:00:1795564972.123 14372 port.cc:153] oneDNN custom operations",
        "2025-01-01 10:00:00.1: I tensorflow/core/util/port.cc:153] oneDNN custom",
        "To enable the following instructions: AVX2, rebuild TensorFlow.",
        "E0000 00:00:1.1 1 cuda_fft.cc:485] Unable to register cuFFT factory: Attempt",
    ]
    error = "E0000 00:00:1.1 1 gpu.cc:1] out of memory"
    program = "".join(f"os.write(2, {line + chr(10)!r}.encode())\n" for line in lines)
    (tmp_path / "tensorflow.py").write_text(
        f"import os\n{program}os.write(2, {error + chr(10)!r}.encode())\n"
    )
    environment = {"TF_CPP_MIN_LOG_LEVEL": level}
    done = run_python("-c", IMPORT, str(tmp_path), env=environment)
    shown = [error, "after"] if level == "3" else [*lines, error, "after"]
    assert done.stdout.splitlines() == shown


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("raise ImportError('no wheel')", "the reason.*ImportError: no wheel"),
        ("os.abort()", "Fatal Python error: Aborted.*tensorflow.py"),
    ],
)
def test_an_import_that_fails_is_not_silent(tmp_path, run_python, fault, shown):
    program = f"import os\nos.write(2, b'the reason\\n')\n{fault}\n"
    (tmp_path / "tensorflow.py").write_text(program)
    done = run_python("-c", IMPORT, str(tmp_path), env={"TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode != 0
    assert re.search(shown, done.stdout, re.DOTALL)
