"""`train --strategy multi-worker`: two processes, one run, also when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.ports import free_ports
from tfrs_selfattn import training

EPOCHS = 2
# Without dropout, which is each replica's own.
OPTIONS = (
    *("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16"),
    *("--epochs", EPOCHS, "--batch-size", "7", "--dropout", "0"),
)
SECONDS = 500  # bound of what takes 30, beside other tests


def config_of(ports, index):
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.fixture
def start(events, columns):
    """A function that starts the workers of a run; all are ended with the test."""
    started = []

    def start(run, kill=None):
        ports = free_ports(2)
        words = ("train", "--data", events, *columns, *OPTIONS, "--output", run)
        words += ("--strategy", "multi-worker", "--cluster-timeout", "120", "--json")
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.cli.worker", *map(str, words)],
                env={
                    **os.environ,
                    "TF_CONFIG": config_of(ports, index),
                    "KILL_IN_EPOCH": "2" if index == kill else "0",
                },
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]
        started.extend(workers)
        return workers

    yield start
    for worker in started:
        worker.kill()
        worker.communicate()


def learned(run):
    folder = training.RunFolder.open(run)
    epochs = [
        {name: each[name] for name in ("epoch", "loss", "val_hr@10", "val_ndcg@10")}
        for each in folder.metrics()["epochs"]
    ]
    return epochs, training.load_model(folder).get_weights()


def test_two_workers_of_which_one_is_killed_end_as_one_that_was_not(
    start, cli, events, columns, tmp_path
):
    run = tmp_path / "run"
    survivor, killed = start(run, kill=1)
    assert killed.wait(SECONDS) == -signal.SIGKILL
    _, err = survivor.communicate(timeout=SECONDS)
    assert survivor.returncode == 1, err
    assert err.splitlines()[-1].startswith(
        "error: All workers must stay until the end. Received: another one was lost"
    )
    assert len(training.RunFolder.open(run).metrics()["epochs"]) == 1

    workers = start(run)
    for worker in workers:
        out, err = worker.communicate(timeout=SECONDS)
        assert worker.returncode == 0, err
        result = json.loads(out)
        assert (result["epochs"], result["resumed_from"]) == (EPOCHS, 1)

    alone = tmp_path / "alone"
    words = ("train", "--data", events, *columns, *OPTIONS, "--output", alone)
    assert cli(*words).status == 0
    (epochs, weights), (epochs_alone, weights_alone) = learned(run), learned(alone)
    for two, one in zip(epochs, epochs_alone, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for two, one in zip(weights, weights_alone, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-2, atol=2e-4)


def test_a_worker_that_is_missing_is_named(cli, events, columns, tmp_path, monkeypatch):
    ports = free_ports(2)
    monkeypatch.setenv("TF_CONFIG", config_of(ports, 0))
    words = (
        "train",
        "--data",
        events,
        *columns,
        *OPTIONS,
        "--output",
        tmp_path / "run",
    )
    done = cli(*words, "--strategy", "multi-worker", "--cluster-timeout", "0.5")
    assert done.status == 1
    assert (
        f"no answer within 0.5 seconds from worker 1 (127.0.0.1:{ports[1]})" in done.err
    )
    assert not (tmp_path / "run").exists()


def test_without_a_cluster(refused, events, columns, tmp_path, monkeypatch):
    words = ("train", "--data", events, *columns, "--output", tmp_path / "run")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert "TF_CONFIG must name the workers" in refused(
        *words, "--strategy", "multi-worker"
    )
    assert "--strategy must be one of" in refused(*words, "--strategy", "many")
    assert "--cluster-timeout" in refused(*words, "--cluster-timeout", "0")
