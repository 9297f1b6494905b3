"""serving/README.md does what it says, and its configurations are those of a server."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import threading
import time
from pathlib import Path

import pytest

from tests.export.conftest import ask_in_this_process
from tests.export.tiny import IDS
from tests.serving.conftest import needs_server
from tests.test_readme import BLOCK, commands_in
from tfrs_selfattn.client import Client, ServerError

SERVING = Path(__file__).resolve().parents[2] / "serving"
README = (SERVING / "README.md").read_text(encoding="utf-8")
BLOCKS = [(found["language"], found["text"]) for found in BLOCK.finditer(README)]
# Those of the steps of a roll-out stand within a list.
STEPS = [
    re.sub("^   ", "", text, flags=re.MULTILINE)
    for text in re.findall(r"^   ```text\n(.*?)^   ```$", README, re.S | re.M)
]
PATIENCE = 60.0


def flags_in(text):
    """The flags of each `tensorflow_model_server` in a text."""
    joined = re.sub(r'\\\n|"\n\s*"', " ", text)
    return [
        dict(re.findall(r"--(\w+)=(\S+)", command))
        for command in re.findall(r"tensorflow_model_server ([^&>\n]*)", joined)
    ]


COMMANDS = [flags for _, text in BLOCKS for flags in flags_in(text)]


def compose_flags():
    """What docker-compose.yml starts the image with, its folders as they are here."""
    text = (SERVING / "docker-compose.yml").read_text(encoding="utf-8")
    flags = dict(re.findall(r"^ +- --(\w+)=(\S+)$", text, re.MULTILINE))
    return {n: v.replace("/config/", f"{SERVING}/") for n, v in flags.items()}


def configured(folder, text, base):
    """A file of models with the versions in `base`."""
    path = folder / "models.config"
    beside = folder / "models.config.new"
    beside.write_text(text.replace("/models/recommender", str(base)))
    beside.rename(path)
    return path


@pytest.fixture(scope="module")
def folder(exports, tmp_path_factory):
    """Where the blocks run: with an export that somebody has made there."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(exports.bases["films"], folder / "models" / "films")
    rows = "".join(f'"{item}"\n' for item in IDS[:20])
    (folder / "films.csv").write_text(f"item_id\n{rows}")
    return folder


@pytest.fixture(scope="module")
def compose_server(folder, start):
    """The server as docker-compose.yml starts it."""
    text = (SERVING / "models.config").read_text(encoding="utf-8")
    config = configured(folder, text, folder / "models" / "films")
    flags = {**compose_flags(), "model_config_file": config}
    return start({}, **flags).wait("recommender")


def test_there_are_blocks_of_each_kind():
    assert {language for language, _ in BLOCKS} == {"bash", "python"}
    assert len(STEPS) == 4
    assert len(COMMANDS) == 2  # on Debian and in Colab


@needs_server
@pytest.mark.parametrize("flags", COMMANDS, ids=["Debian", "Colab"])
def test_the_commands_start_a_server(flags, folder, start):
    flags = {name: value.strip('"') for name, value in flags.items()}
    assert (flags.pop("port"), flags.pop("rest_api_port")) == ("8500", "8501")
    base = flags["model_base_path"].replace("$PWD", str(folder))
    server = start({}, **{**flags, "model_base_path": base, "model_config_file": None})
    server.wait("recommender")
    with Client(server.address) as client:
        assert client.recommend([["item 3"]])[0].ids
    server.stop()


@needs_server
def test_the_blocks_run(
    folder, exports, compose_server, cli_status, monkeypatch, capsys
):
    """In their order; exports, Docker, packages and Colab's lines are left out."""
    from tfrs_selfattn.export import verification

    monkeypatch.setattr(verification, "ask", ask_in_this_process)
    monkeypatch.chdir(folder)
    namespace, commands, run = {"__name__": "page"}, [], 0
    for language, text in BLOCKS:
        text = text.replace("localhost:8500", compose_server.address)
        if language == "python" and not text.startswith("!"):
            exec(compile(text, "README.md", "exec"), namespace)
            run += 1
        for words in commands_in(text) if language == "bash" else ():
            commands.append(words[0])
            if words[0] == "export":
                assert Path(words[words.index("--to") + 1]).is_dir()
                continue
            status, _, err = cli_status(*words)
            assert status == 0, (shlex.join(words), err)
    assert run == 1
    assert set(commands) == {"export", "recommend", "refresh"}
    assert namespace["answer"].version == 1
    # What the refresh wrote takes over.
    deadline = time.monotonic() + PATIENCE
    with Client(compose_server.address) as client:
        while client.recommend([[]])[0].version != 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    flags = json.dumps(flags_in(README)) + json.dumps(compose_flags())
    for name in re.findall(r'"(\w+)":', flags):
        assert name in ("port", "rest_api_port", "model_name", "model_base_path") or (
            f"`--{name}`" in README
        )


@needs_server
def test_the_steps_of_a_rollout_leave_nobody_without_an_answer(
    exports, start, tmp_path
):
    base = tmp_path / "base"
    shutil.copytree(exports.bases["films"], base)
    shutil.copytree(base / "1", base / "2")
    config = configured(tmp_path, STEPS[0], base)
    server = start(
        {},
        model_config_file=config,
        model_config_file_poll_wait_seconds=1,
        allow_version_labels_for_unavailable_models="true",
    ).wait("recommender")
    asked, failed, done = set(), [], threading.Event()

    def ask_stable():
        with Client(server.address, version="stable", timeout=PATIENCE) as client:
            while not done.is_set():
                try:
                    asked.add(client.recommend([["item 3"]])[0].version)
                except ServerError as error:
                    failed.append(error)

    def answers(label):
        with Client(server.address, version=label, timeout=PATIENCE) as client:
            try:
                return client.recommend([[]])[0].version
            except ServerError as error:
                return error.code

    def wait_for(**labels):
        deadline = time.monotonic() + PATIENCE
        while (found := {label: answers(label) for label in labels}) != labels:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    thread = threading.Thread(target=ask_stable)
    thread.start()
    try:
        wait_for(stable=1, canary="INVALID_ARGUMENT")
        for step, stable in ((1, 1), (2, 2), (1, 1), (2, 2), (3, 2)):
            configured(tmp_path, STEPS[step], base)
            wait_for(stable=stable, canary=2)
    finally:
        done.set()
        thread.join()
    with Client(server.address) as client:
        deadline = time.monotonic() + PATIENCE
        while {s.version for s in client.status() if s.state == "AVAILABLE"} != {2}:
            assert time.monotonic() < deadline, client.status()
            time.sleep(0.1)
    assert not failed
    assert asked == {1, 2}
