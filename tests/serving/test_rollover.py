"""Versions come, break and go, under requests that never fail."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from tests.export.tiny import (
    IDS,
)
from tests.serving import model_server
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import Client, RestClient, ServerError
from tfrs_selfattn.export import NewItems, refresh_recommender

pytestmark = needs_server

HISTORIES = [["item 3", "item 14"], ["item 5"], []]
PATIENCE = 60.0


@pytest.fixture(scope="module")
def base(exports, tmp_path_factory):
    base = tmp_path_factory.mktemp("rollover") / "base"
    shutil.copytree(exports.bases["films"], base)
    return base


@pytest.fixture(scope="module")
def own_server(base, start):
    return start({"films": base}, enable_batching="true").wait("films")


def wait_for(server, condition):
    deadline = time.monotonic() + PATIENCE
    with Client(server.address, model="films") as client:
        while not condition({s.version: s for s in client.status()}):
            assert time.monotonic() < deadline, client.status()
            time.sleep(0.05)


def available(statuses):
    return {v for v, status in statuses.items() if status.state == "AVAILABLE"}


class Load:
    """Threads that ask all the time, and note which version gave which answer."""

    def __init__(self, server, threads=4):
        self.answers, self.failures = {}, []
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=[server, number])
            for number in range(threads)
        ]

    def _ask(self, server, number):
        client = (
            RestClient(server.rest_address, model="films", timeout=PATIENCE)
            if number == 0
            else Client(server.address, model="films", timeout=PATIENCE)
        )
        with client:
            while not self._done.is_set():
                try:
                    answers = client.recommend(HISTORIES)
                except ServerError as error:
                    self.failures.append(error)
                    continue
                versions = {answer.version for answer in answers}
                key = tuple(tuple(answer.ids) for answer in answers)
                self.answers.setdefault(key, set()).update(versions)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        for thread in self._threads:
            thread.join()


def test_a_refreshed_version_takes_over_and_gives_back_under_load(base, own_server):
    gone = [item for answer in one_answer(own_server) for item in answer][:5]
    kept = [item for item in IDS if item not in gone]
    with Load(own_server) as load:
        refresh_recommender(base, NewItems(kept), verify=False)
        wait_for(own_server, lambda statuses: available(statuses) == {2})
        time.sleep(0.3)
        shutil.rmtree(base / "2")
        wait_for(own_server, lambda statuses: available(statuses) == {1})
        time.sleep(0.3)
    assert not load.failures
    # Two answers, each by one version alone (REST does not say which).
    assert len(load.answers) == 2
    told = sorted(versions - {None} for versions in load.answers.values())
    assert sorted(map(tuple, told)) == [(1,), (2,)]
    for key, versions in load.answers.items():
        named = {item for ids in key for item in ids}
        assert bool(named & set(gone)) is (1 in versions)


def one_answer(server):
    with Client(server.address, model="films", timeout=PATIENCE) as client:
        return [answer.ids for answer in client.recommend(HISTORIES)]


def truncate(folder):
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])


def lose_variables(folder):
    shutil.rmtree(folder / "variables")


def break_warmup(folder):
    from tfrs_selfattn.export import requests

    bad = requests.Request("no such signature", {})
    requests.write_warmup(folder / "assets.extra" / "tf_serving_warmup_requests", [bad])


@pytest.mark.parametrize("damage", [truncate, lose_variables, break_warmup])
def test_a_broken_version_never_replaces_a_good_one(base, own_server, damage, tmp_path):
    (good,) = base.iterdir()
    broken = tmp_path / "broken"
    shutil.copytree(good, broken)
    damage(broken)
    number = 10 + [truncate, lose_variables, break_warmup].index(damage)
    with Load(own_server, threads=2) as load:
        broken.rename(base / str(number))
        wait_for(
            own_server,
            lambda statuses: number in statuses and statuses[number].state == "END",
        )
        time.sleep(0.3)
    with Client(own_server.address, model="films") as client:
        statuses = {status.version: status for status in client.status()}
    assert available(statuses) == {1}
    assert statuses[number].error
    assert not load.failures
    assert {v for versions in load.answers.values() for v in versions} <= {1, None}
    shutil.rmtree(base / str(number))


def test_labels_choose_a_version(base, exports, start, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(exports.bases["films"], both)
    shutil.copytree(both / "1", both / "2")
    entry = f"""
model_config_list {{
  config {{
    name: "films" base_path: "{both}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
    version_labels {{ key: "next" value: 3 }}
  }}
}}
"""
    config = tmp_path / "labels.config"
    config.write_text(entry)
    refused = start({}, model_config_file=config)
    assert refused.process.wait(timeout=model_server.START_SECONDS) != 0
    server = start(
        {},
        model_config_file=config,
        allow_version_labels_for_unavailable_models="true",
    ).wait("films")
    for label, version in (("stable", 1), ("canary", 2), (1, 1), (2, 2)):
        with Client(server.address, model="films", version=label) as client:
            assert client.recommend([[]])[0].version == version
        with RestClient(server.rest_address, model="films", version=label) as client:
            assert client.recommend([[]])[0].ids
    client = Client(server.address, model="films", version="next")
    with client, pytest.raises(ServerError, match=r"NOT_FOUND|INVALID_ARGUMENT"):
        client.recommend([[]])
