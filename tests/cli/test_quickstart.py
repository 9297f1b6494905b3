"""The whole chain on MovieLens-100K, as a new user meets it."""

from __future__ import annotations

import re
import shlex
import urllib.request
from pathlib import Path

import pytest

OUTPUT = "my first try"  # what it prints must be quoted


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("quickstart")


def test_it_measures_exports_and_answers(cli, ml_100k, place, monkeypatch):
    monkeypatch.chdir(place)
    options = ("--data", ml_100k, "--output", OUTPUT, "--epochs", "2")
    done = cli("quickstart", *options, "--json")
    assert done.status == 0, done.err
    result = done.json
    assert list(result) == [
        "dataset",
        "users",
        "items",
        "events",
        "metrics",
        "export",
        "seconds",
    ]
    assert (result["dataset"], result["users"]) == ("ml-100k", 943)
    assert (result["items"], result["events"]) == (1682, 100_000)
    assert set(result["metrics"]) == {"model", "popularity", "item_to_item"}
    for metrics in result["metrics"].values():
        assert set(metrics) == {"hr@10", "ndcg@10"}
        assert 0 < metrics["ndcg@10"] < metrics["hr@10"] < 1
    # Known to the digit; the model has had two epochs only (0.107 was seen).
    assert result["metrics"]["popularity"]["hr@10"] == pytest.approx(79 / 943)
    assert result["metrics"]["item_to_item"]["hr@10"] == pytest.approx(136 / 943)
    assert result["metrics"]["model"]["hr@10"] > 0.06
    assert (Path(result["export"]) / "saved_model.pb").is_file()
    assert "Star Wars (1977)" in done.err

    # Again: what is trained is not trained again, and a new version is exported.
    done = cli("quickstart", *options, "--history", "no,such,film")
    assert done.status == 0, done.err
    assert "is trained already" in done.out
    assert "Exported version 2" in done.out
    assert "No item of the history is known" in done.out
    for heading in ("1. Data", "2. Train", "3. Eval", "4. Export", "5. Rec", "What n"):
        assert f"\n{heading}" in done.out
    _what_it_says_to_do_next_works(cli, done.out)


def _what_it_says_to_do_next_works(cli, out):
    lines = out.partition("What next\n")[2].splitlines()
    commands = dict(re.split(r": +", line, maxsplit=1) for line in lines if ":" in line)
    words = {label: shlex.split(command) for label, command in commands.items()}
    assert list(words) == [
        "Ask again",
        "Look inside",
        "Serve it",
        "Train anew",
        "Your own data",
    ]
    ask = cli(*words["Ask again"][1:], "--json")
    assert len(ask.json["recommendations"]) == 10
    assert all(item["title"] for item in ask.json["recommendations"])
    program, option, logs = words["Look inside"]
    assert (program, option) == ("tensorboard", "--logdir")
    assert any(Path(logs).rglob("events.out.tfevents.*"))
    mount = next(word for word in words["Serve it"] if ":/models/" in word)
    assert (Path(mount.partition(":")[0]) / "2" / "saved_model.pb").is_file()
    train = cli(*words["Train anew"][1:], "--epochs", "1", "--json")
    assert train.json["epochs"] == 1
    assert train.json["items_without_title"] == 0
    assert cli(*words["Your own data"][1:]).status == 0


def test_without_data_and_network_it_says_what_to_do(cli, tmp_path, monkeypatch):
    nobody = "http://127.0.0.1:9"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("no_proxy", "NO_PROXY", "TFRS_SELFATTN_DATA", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    # `urlopen` keeps the proxies of its first call: neither an earlier one's here, nor
    # these for the tests that follow in this process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setenv("PIP_INDEX_URL", f"{nobody}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("TFRS_SELFATTN_CACHE", str(tmp_path / "cache"))
    done = cli("quickstart", "--output", tmp_path / "out", "--json")
    assert (done.status, done.out) == (2, "")
    *_, line = done.err.splitlines()
    assert line.startswith("error: MovieLens-100K was not found. Tried: the cache ")
    assert re.search(r"grouplens \(.*\), package index \(", line)
    assert re.search(r"--data FOLDER or TFRS_SELFATTN_DATA\.$", line)
    assert done.err.count("error: ") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not (tmp_path / "out").exists()
