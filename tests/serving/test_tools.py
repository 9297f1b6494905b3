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


# Who asks a server has no TensorFlow in the process: here an import of it fails.
WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "tf_keras")))
script, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def run(script, *arguments, text="", **options):
    words = [str(SERVING / script), *map(str, arguments)]
    paths = [str(SERVING.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=SERVING.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
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
    asked = ("client.py", server.address, "--model", "films")
    status = run(*asked, "--status", "--timeout", 20)
    assert status.stdout == "1 AVAILABLE\n"
    version = run(*asked, "--version", 1, "--history", "item 3")
    assert version.stdout == f"item 3 -> {' '.join(wanted('item 3'))}\n"
    for version, code in ((7, "NOT_FOUND"), ("canary", "INVALID_ARGUMENT")):
        refused = run(*asked, "--version", version)
        assert (refused.returncode, code in refused.stderr) == (1, True)
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
    status, out, err = cli_status(
        *asked, "--server", server.address, "--model-version", "1", "--timeout", "20"
    )
    assert (status, "Version 1 of films" in out) == (0, True), err
    for version, code in (("7", "NOT_FOUND"), ("canary", "INVALID_ARGUMENT")):
        for address in (server.address, server.rest_address):
            status, _, err = cli_status(
                *asked, "--server", address, "--model-version", version
            )
            assert (status, code in err) == (1, True), err
    status, _, err = cli_status(*asked, "--server", server.address, "--timeout", "0")
    assert status == 2 and "'--timeout'" in err
    status, _, err = cli_status("recommend", "x", "--history", "a", "--timeout", "1")
    assert status == 2 and "--timeout must come with --server" in err
    status, _, err = cli_status(*asked, "--server", "127.0.0.1:1")
    assert status == 1
    assert err.startswith("error: The model server must answer. Received: UNAVAILABLE")


@needs_server
@pytest.mark.parametrize("model", ["films", "timed"])
def test_benchmark_measures_a_server(server, cli_status, model):
    words = ("benchmark", "--model", model, "--seconds", "0.3", "--json", "--server")
    for address, version in ((server.address, 1), (server.rest_address, None)):
        status, out, err = cli_status(*words, address, "--clients", "2")
        assert status == 0, err
        told = json.loads(out)
        assert (told["server"], told["version"], told["clients"]) == (
            address,
            version,
            2,
        )
        assert told["requests"] >= 2
        assert 0 < told["p50_ms"] <= told["p99_ms"]
    status, _, err = cli_status(*words, server.address, "--model-version", "7")
    assert status == 1 and "NOT_FOUND" in err


@needs_server
def test_recommend_asks_a_server_without_tensorflow(server, wanted):
    done = run(
        *("../tfrs_selfattn/__main__.py", "recommend", "--server", server.address),
        *("--model", "films", "--history", "item 3", "--json"),
    )
    assert done.returncode == 0, done.stderr
    items = json.loads(done.stdout)["recommendations"]
    assert [item["id"] for item in items] == wanted("item 3")


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


# The labels of each metric by the sources of the server; histograms have `le` too.
LABELS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
    ":tensorflow:serving:batching_session:processed_batch_size": set(),
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}
HISTOGRAMS = {name for name in LABELS if re.search("latency$|size$", name)}
# Each version is a series of its own, which begins at 1 and stays there.
BORN_AT_ONE = ":tensorflow:cc:saved_model:load_attempt_count"


def test_the_dashboard_asks_for_what_a_server_has():
    dashboard = json.loads((SERVING / "grafana" / "dashboard.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set()
    for target in targets:
        expression = target["expr"]
        (full,) = re.findall(r":[\w:]+", expression)
        metric = re.sub("_(bucket|sum|count)$", "", full)
        if metric not in HISTOGRAMS:
            metric = full
        asked.add(metric)
        labels = LABELS[metric] | ({"le"} if full.endswith("_bucket") else set())
        filtered = re.findall(r"(\w+)!?=~?\"", expression)
        grouped = re.findall(r"\w+", *re.findall(r"by \(([^)]*)\)", expression) or [""])
        assert {*filtered, *grouped} <= labels, expression
        assert ("histogram_quantile" in expression) is ("le" in grouped), expression
        assert ("rate(" in expression) is (metric != BORN_AT_ONE), expression
        shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert set(shown) == set(grouped) - {"le"}, target["legendFormat"]
    assert asked == set(LABELS)
    for name in re.findall(r"`(:tensorflow:[\w:]+)`", README):
        assert name in LABELS, name


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
