"""The item table on two parameter servers: the same losses as on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.models import parameter_servers
from tests.ports import free_ports
from tfrs_selfattn import data

SECONDS = 500  # bound of what takes 30, beside other tests


@pytest.fixture
def start():
    """A function that starts a task; all are ended with the test."""
    started = []

    def start(task, rows, checkpoint, cluster=None, index=0):
        place = {"cluster": cluster, "task": {"type": task, "index": index}}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", parameter_servers.__name__),
                *(task, str(rows), str(checkpoint)),
            ],
            env={**os.environ, **({"TF_CONFIG": json.dumps(place)} if cluster else {})},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE if task in ("chief", "alone") else None,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_servers_and_a_worker_learn_what_one_process_learns(start, tmp_path):
    log = data.generate_events(90, parameter_servers.ITEMS, 9.0, seed=1)
    split = data.leave_one_out(data.build_sequences(data.events_from_frame(log)))
    rows, checkpoint = tmp_path / "rows", tmp_path / "checkpoint"
    data.write_shards(split, rows, row_length=11, rows_per_shard=20)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(4)]
    chief, worker, *servers = addresses
    cluster = {"chief": [chief], "worker": [worker], "ps": servers}
    for task, index in (("ps", 0), ("ps", 1), ("worker", 0)):
        start(task, rows, checkpoint, cluster, index)
    seen = []
    for task, where in (("chief", cluster), ("alone", None)):
        process = start(task, rows, checkpoint, where)
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        seen.append(json.loads(out))
    several, one = seen
    halves, devices = zip(*several["parts"], strict=True)
    assert halves == ([12, 8], [12, 8])
    assert {device.split("/device")[0] for device in devices} == {
        "/job:ps/replica:0/task:0",
        "/job:ps/replica:0/task:1",
    }
    assert [shape for shape, _ in one["parts"]] == [[24, 8]]
    assert several["loss"] == pytest.approx(one["loss"], rel=1e-5)
    np.testing.assert_allclose(several["table"], one["table"], rtol=1e-3, atol=1e-5)
    assert one["restored"] == several["table"]  # which fits a table in one piece
