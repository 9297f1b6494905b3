"""Runs commands in this process, on a small log in a folder of its own."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfrs_selfattn import data
from tfrs_selfattn.cli.main import main

SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16")


@dataclasses.dataclass
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON object that standard output holds, and nothing else."""
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def cli(capsys, monkeypatch):
    """A function that runs `tfrs-selfattn` with these words and returns `Done`."""
    monkeypatch.setenv("COLUMNS", "100")

    def cli(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in words])
        return Done(exit.value.code, *capsys.readouterr())

    return cli


@pytest.fixture
def refused(cli, tmp_path):
    """A function that runs a command and returns the one line of its refusal.

    Checks the exit status, and that nothing was written.
    """

    def refused(*words):
        before = listing(tmp_path)
        done = cli(*words)
        assert done.status == 2
        assert listing(tmp_path) == before
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in line
        return line.removeprefix("error: ")

    return refused


def listing(folder):
    """Every file below a folder, with its content."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="session")
def events(tmp_path_factory):
    """A CSV file of 60 users and 20 items in columns of its own names."""
    path = tmp_path_factory.mktemp("events") / "events.csv"
    frame = data.generate_events(60, 20, 9.0, seed=1)
    frame.rename({"user_id": "visitor", "item_id": "article"}).write_csv(path)
    return path


@pytest.fixture(scope="session")
def columns():
    """The options that name those columns."""
    return ("--user-column", "visitor", "--item-column", "article")


@pytest.fixture(scope="session")
def trained(events, columns, tmp_path_factory):
    """A run of two epochs, not to be changed; its folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = (*columns, *SMALL, "--epochs", "2", "--output", str(folder))
    with pytest.raises(SystemExit) as exit:
        main(["train", "--data", str(events), *options])
    assert exit.value.code == 0
    return folder


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The base folder of an export of that run, k = 5."""
    base = tmp_path_factory.mktemp("models") / "base"
    with pytest.raises(SystemExit) as exit:
        main(["export", str(trained), "--to", str(base), "--k", "5"])
    assert exit.value.code == 0
    return base
