"""`train --strategy multi-worker`: two processes, one run, also when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent import futures

import numpy as np
import pytest

from tests.cli.conftest import SMALL
from tests.conftest import REPOSITORY
from tests.ports import free_ports
from tfrs_selfattn import training
from tfrs_selfattn.cli.main import main
from tfrs_selfattn.data import prepare_events, read_events

EPOCHS = 2
# Without dropout, which is each replica's own.
OPTIONS = (*SMALL, "--epochs", EPOCHS, "--batch-size", "7", "--dropout", "0")
SECONDS = 500  # bound of what takes 30, beside other tests


def config_of(ports, index):
    addresses = [f"127.0.0.1:{port}" for port in ports]
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


@pytest.fixture
def start():
    """A function that starts a worker of two; all are ended with the test."""
    started = []

    def start(words, ports, index, **environment):
        words = (*words, "--strategy", "multi-worker", "--cluster-timeout", "120")
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.worker", *map(str, words), "--json"],
            env={**os.environ, "TF_CONFIG": config_of(ports, index), **environment},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.communicate()


@pytest.fixture
def keep_up(start):
    """A function that starts a worker until it succeeds, as a cluster's manager does.

    The first start may get an environment of its own. Returns what the starts left
    behind: status, standard output and error, and when they ended.
    """

    def keep_up(words, ports, index, **environment):
        ends = []
        while not ends or ends[-1][0] != 0:
            worker = start(words, ports, index, **environment)
            out, err = worker.communicate(timeout=SECONDS)
            ends.append((worker.returncode, out, err, time.monotonic()))
            environment = {}
            assert len(ends) < 20, err
        return ends

    return keep_up


def learned(run):
    folder = training.RunFolder.open(run)
    epochs = [
        {name: each[name] for name in ("epoch", "loss", "val_hr@10", "val_ndcg@10")}
        for each in folder.metrics()["epochs"]
    ]
    return epochs, training.load_model(folder).get_weights()


@pytest.fixture(scope="module")
def alone(events, columns, tmp_path_factory):
    """What one process learns that nobody kills."""
    run = tmp_path_factory.mktemp("alone") / "run"
    words = ("train", "--data", events, *columns, *OPTIONS, "--output", run)
    with pytest.raises(SystemExit) as exit:
        main([str(word) for word in words])
    assert exit.value.code == 0
    return learned(run)


def test_a_killed_chief_comes_back_and_all_goes_on_to_the_same_result(
    keep_up, alone, events, columns, tmp_path
):
    """Worker 1 in its place does too; one of both is enough of this minute."""
    killed = 0
    run, ports = tmp_path / "run", free_ports(2)
    words = ("train", "--data", events, *columns, *OPTIONS, "--output", run)
    with futures.ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(
                *(keep_up, words, ports, index),
                KILL_IN_EPOCH="2" if index == killed else "0",
            )
            for index in range(2)
        ]
        ends = [each.result() for each in waiting]
    survivor = ends[1 - killed]
    assert ends[killed][0][0] == -signal.SIGKILL
    status, _, err, ended = survivor[0]
    assert status == 1, err
    # TensorFlow may have logged something behind it.
    lost = "error: All workers must stay until the end. Received: another one was lost"
    assert lost in err
    assert ended - ends[killed][0][3] < 120
    for each in ends:
        result = json.loads(each[-1][1])
        assert (result["epochs"], result["resumed_from"]) == (EPOCHS, 1)

    (epochs, weights), (epochs_alone, weights_alone) = learned(run), alone
    for two, one in zip(epochs, epochs_alone, strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    for two, one in zip(weights, weights_alone, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-2, atol=2e-4)


def test_workers_train_each_target_of_prepared_shards_once(start, events, tmp_path):
    log = prepare_events(
        read_events(events, user_column="visitor", item_column="article"),
        tmp_path / "log",
        row_length=16,
        num_shards=3,
    )
    run, counted, ports = tmp_path / "run", tmp_path / "targets", free_ports(2)
    words = ("train", "--shards", log.path, *SMALL, "--epochs", EPOCHS)
    words = (*words, "--batch-size", "8", "--output", run)
    workers = [
        start(words, ports, index, **({"TARGETS": str(counted)} if index else {}))
        for index in range(2)
    ]
    for worker in workers:
        _, err = worker.communicate(timeout=SECONDS)
        assert worker.returncode == 0, err
    targets = [int(line) for line in counted.read_text().splitlines()]
    assert targets == [log.manifest["train_targets"]] * EPOCHS
    epochs, _ = learned(run)
    losses = [each["loss"] for each in epochs]
    assert np.isfinite(losses).all() and losses[1] < losses[0]


def test_one_replica_is_no_replica(cli, trained, events, columns, tmp_path):
    run = tmp_path / "run"
    words = ("train", "--data", events, *columns, *SMALL, "--epochs", "2")
    done = cli(*words, "--strategy", "mirrored", "--output", run)
    assert done.status == 0, done.err
    (epochs, weights), (epochs_alone, weights_alone) = learned(run), learned(trained)
    assert epochs == epochs_alone
    for mirrored, alone in zip(weights, weights_alone, strict=True):
        np.testing.assert_array_equal(mirrored, alone)


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
