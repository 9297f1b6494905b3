"""The files under serving/ and the command line, against a running server."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.tiny import IDS, answers_of
from tests.serving.conftest import needs_server

SERVING = Path(__file__).resolve().parents[2] / "serving"
README = (SERVING / "README.md").read_text(encoding="utf-8")


def run(script, *arguments, text="", **options):
    return subprocess.run(
        [sys.executable, str(SERVING / script), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=SERVING.parent,
        env={**os.environ, "PYTHONPATH": str(SERVING.parent)},
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def wanted(exports):
    expected = answers_of(exports.model)
    return lambda *history: [i.decode() for i in expected(list(history))[0] if i]


@needs_server
def test_the_client_script(server, wanted):
    for address in (server.address, server.rest_address):
        done = run("client.py", address, "--model", "films", "--history", "item 3")
        assert done.stdout == f"item 3 -> {' '.join(wanted('item 3'))}\n", done.stderr
    many = run(
        "client.py", server.address, "--model=films", "--history", "--history", "item 5"
    )
    assert many.stdout.splitlines()[1] == f"item 5 -> {' '.join(wanted('item 5'))}"
    status = run("client.py", server.address, "--model", "films", "--status")
    assert status.stdout == "1 AVAILABLE\n"
    refused = run("client.py", server.address, "--model", "nobody")
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "error: The model server must answer. Received: NOT"
    )


@needs_server
def test_the_demo(server, wanted, tmp_path):
    titles = tmp_path / "titles.csv"
    with open(titles, "w", newline="") as file:
        rows = [(item, f"Film {item}") for item in IDS]
        csv.writer(file).writerows([("item_id", "title"), *rows])
    lines = "item 3\nFILM item 5\n-item 3\nno such film\n\n"
    arguments = (server.address, "--model", "films", "--items", titles)
    done = run("demo.py", *arguments, text=lines)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^ *1  (.*?)  Film", done.stdout, re.MULTILINE)
    steps = [(), ("item 3",), ("item 3", "item 5"), ("item 5",), ("item 5",), ()]
    assert shown == [wanted(*history)[0] for history in steps]
    assert "no title holds 'no such film'" in done.stdout


@needs_server
def test_recommend_asks_a_server(server, wanted, cli_status, tmp_path):
    (tmp_path / "items.csv").write_text(f"item_id,title\n{wanted('item 3')[0]},Best\n")
    asked = ("recommend", "--model", "films", "--history", "item 3", "--limit", "3")
    for address, version in ((server.address, 1), (server.rest_address, None)):
        status, out, err = cli_status(
            *asked, "--server", address, "--items", tmp_path / "items.csv", "--json"
        )
        assert status == 0, err
        told = json.loads(out)
        assert [item["id"] for item in told["recommendations"]] == wanted("item 3")[:3]
        assert told["recommendations"][0]["title"] == "Best"
        assert told["version"] == version
    status, out, _ = cli_status(*asked, "--server", server.address)
    assert status == 0 and wanted("item 3")[1] in out
    status, _, err = cli_status("recommend", "--history", "a")
    assert (status, err.count("\n")) == (2, 1)
    assert "neither" in err
    status, _, err = cli_status(
        "recommend", tmp_path, "--server", "x:1", "--history", "a"
    )
    assert status == 2 and "both" in err
    timed = ("recommend", "--server", server.address, "--model", "timed")
    status, _, err = cli_status(*timed, "--history", "item 3", "--times", "x")
    assert status == 2 and "--times must hold Unix seconds" in err
    status, _, err = cli_status(*timed, "--history", "item 3", "--times", "1700000000")
    assert status == 0, err
    status, _, err = cli_status(*asked, "--server", "127.0.0.1:1")
    assert status == 1
    assert err.startswith("error: The model server must answer. Received: UNAVAILABLE")


@needs_server
@pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="needs the extra `serving`"
)
def test_the_load_test_finds_its_figures(server, tmp_path):
    (tmp_path / "histories.txt").write_text("a b c\n\n0\n")
    done = run(
        "load_test.py",
        server.address,
        *("--model", "films", "--histories", tmp_path / "histories.txt"),
        *("--rates", 10, 20, "--seconds", 1, "--p99-limit", 60_000),
        *("--output", tmp_path / "load"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "load.json").read_text())
    assert [stage["rate"] for stage in result["stages"]] == [10, 20]
    for stage in result["stages"]:
        assert stage["errors"] == 0
        assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"]
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_names_what_there_is():
    for name in re.findall(
        r"`(?:serving/)?([\w./-]+\.(?:py|config|yml|json))`", README
    ):
        if Path(name).name not in {"recommender.json", "load.json"}:
            assert (SERVING / name).exists(), name
    for file in SERVING.rglob("*"):
        if file.is_file() and file.suffix in {".py", ".config", ".json"}:
            assert file.name in README, file


def test_the_manifest_is_documented(exports):
    from tfrs_selfattn.export import manifest

    (version,) = exports.bases["films"].iterdir()
    contents = json.loads((version / "assets.extra" / "recommender.json").read_text())
    for key in contents:
        assert f"`{key}`" in README, key
        assert f"`{key}`" in manifest.__doc__, key


def test_the_flags_of_the_compose_file_are_explained():
    compose = (SERVING / "docker-compose.yml").read_text()
    for flag in re.findall(r"--(\w+)", compose):
        if flag != "profile":
            assert f"`--{flag}" in README, flag
    assert "`TF_ENABLE_ONEDNN_OPTS=0`" in README and "TF_ENABLE_ONEDNN_OPTS" in compose


def test_the_configurations_are_what_a_server_reads():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    text = (SERVING / "models.config").read_text()
    parsed = text_format.Parse(text, config.ModelServerConfig())
    (model,) = parsed.model_config_list.config
    assert (model.name, model.model_platform) == ("recommender", "tensorflow")
    with_labels = re.sub(r"# (version_labels)", r"\1", text)
    parsed = text_format.Parse(with_labels, config.ModelServerConfig())
    assert set(parsed.model_config_list.config[0].version_labels) == {
        "stable",
        "canary",
    }
    batching = (SERVING / "batching.config").read_text()
    assert "pad_variable_length_inputs: false" in batching
    dashboard = json.loads((SERVING / "grafana" / "dashboard.json").read_text())
    titles = " ".join(panel["title"] for panel in dashboard["panels"]).lower()
    for word in ("latency", "waiting", "batch", "errors"):
        assert word in titles


def test_the_soak_sees_memory_that_grows():
    from benchmarks.serving_soak import FLAT, growth

    settling = [900.0, 950.0, 990.0, 1000.0, 1000.0]
    assert abs(growth(settling + [1000.0, 1001.0] * 12)) <= FLAT
    leaking = settling + [1000.0 + 2.0 * minute for minute in range(25)]
    assert growth(leaking) > FLAT
