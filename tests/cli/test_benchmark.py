"""What `benchmark` measures of an export; tests/serving has it ask a server."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tfrs_selfattn.cli.benchmark import measure, percentile


def test_it_measures_an_export(cli, exported):
    words = ("benchmark", exported, "--seconds", "0.3", "--batch", "3", "--length", "4")
    done = cli(*words, "--clients", "2", "--json")
    assert (done.status, done.err.count("error")) == (0, 0), done.err
    told = done.json
    assert (told["export"], told["version"]) == (str(exported), 1)
    assert (told["batch"], told["length"], told["clients"]) == (3, 4, 2)
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert 0.3 <= told["seconds"] < 10
    assert told["requests"] >= 2
    each = told["requests"] / told["seconds"]
    assert told["requests_per_second"] == pytest.approx(each, rel=0.01)
    done = cli(*words)
    assert re.search(r"requests of 3 x 4 items from 1 client in", done.out)
    assert "requests a second" in done.out


def test_clients_ask_at_once_and_every_request_counts():
    """Eight who each wait 10 ms get eight times the answers of one."""
    threads = set()

    def ask(histories):
        threads.add(threading.get_ident())
        time.sleep(0.01)

    requests = [[[f"{number}"]] for number in range(4)]
    one, took = measure(ask, requests, clients=1, seconds=0.3)
    assert 10 <= percentile(one, 0.5) <= percentile(one, 0.99)
    assert one == sorted(one)
    assert len(one) <= 1 + 0.3 / 0.01
    assert took >= 0.3
    threads.clear()
    many, _ = measure(ask, requests, clients=8, seconds=0.3)
    assert len(threads) == 9  # the warm-up asks from here
    assert len(many) > 3 * len(one)


def test_percentiles():
    times = [float(number) for number in range(1, 101)]
    assert percentile(times, 0.5) == 51.0
    assert percentile(times, 0.99) == 100.0
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "One of the folder of an export and --server .*neither"),
        (("base", "--server", "x:1"), "One of the folder .*both"),
        (("base", "--seconds", "0"), "'--seconds'"),
        (("base", "--batch", "0"), "'--batch'"),
        (("nowhere",), "An export must be a folder"),
    ],
)
def test_wrong_use(refused, words, message):
    assert re.search(message, refused("benchmark", *words))
