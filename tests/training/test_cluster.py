"""Who belongs to a cluster, and who is missing."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from tfrs_selfattn import InputError, training

WORKERS = ["host-0:2222", "host-1:2222"]


def cluster_of(jobs, kind="worker", index=0):
    config = {"cluster": jobs, "task": {"type": kind, "index": index}}
    return training.Cluster.from_environment({"TF_CONFIG": json.dumps(config)})


def test_workers_alone():
    cluster = cluster_of({"worker": WORKERS}, index=1)
    assert cluster.names == ("worker 0", "worker 1")
    assert cluster.addresses == tuple(WORKERS)
    assert cluster.own == 1


def test_a_chief_comes_first():
    cluster = cluster_of({"worker": WORKERS, "chief": ["boss:1"], "evaluator": ["e:1"]})
    assert cluster.names == ("chief 0", "worker 0", "worker 1")
    assert cluster.addresses[0] == "boss:1"
    assert cluster.own == 1


@pytest.mark.parametrize(
    ("jobs", "index", "fault"),
    [
        ({"worker": WORKERS}, 2, "not in"),
        ({"worker": WORKERS, "ps": ["p:1"]}, 0, "no use for ps"),
        ({"worker": ["host"]}, 0, "'host' is no HOST:PORT"),
        ({"worker": ["host:70000"]}, 0, "is no HOST:PORT"),
        ([], 0, "list"),
    ],
)
def test_no_cluster(jobs, index, fault):
    with pytest.raises(InputError, match=rf"TF_CONFIG must name.*{fault}.*Set it"):
        cluster_of(jobs, index=index)


@pytest.mark.parametrize("text", ["", "{", '{"task": {}}', "null"])
def test_no_config(text):
    with pytest.raises(InputError, match="TF_CONFIG must name the workers"):
        training.Cluster.from_environment({"TF_CONFIG": text})


@pytest.fixture
def addresses():
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return [f"127.0.0.1:{port}" for port in ports]


def test_workers_meet_whoever_comes_first(addresses):
    errors = []

    def wait(index):
        try:
            cluster_of({"worker": addresses}, index=index).wait(20)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=[index]) for index in range(3)]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(0.5)
    assert threads[0].is_alive() and threads[1].is_alive()
    # Like TensorFlow, the last one stays.
    host, port = addresses[2].split(":")
    with socket.create_server((host, int(port))):
        for thread in threads[:2]:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads[:2])
    assert errors == []


def test_the_missing_are_named(addresses):
    with pytest.raises(training.ClusterError) as raised:
        cluster_of({"worker": addresses}, index=1).wait(0.3)
    assert f"worker 0 ({addresses[0]}), worker 2 ({addresses[2]})" in str(raised.value)
    assert "worker 1" not in str(raised.value)


def test_an_address_that_is_taken(addresses):
    host, port = addresses[0].split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(InputError, match=r"must be free.*in use"),
    ):
        cluster_of({"worker": addresses}).wait(1)
