"""Versions appear whole or not at all, whoever dies or writes beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.export import versions

# Exports, and stops in the middle: when everything is written and about to be verified.
HANG_IN_THE_MIDDLE = """
import sys, time
import numpy as np
from tfrs_selfattn.data import Vocabulary
from tfrs_selfattn.export import export_recommender, verification
from tfrs_selfattn.models import presets

def hang(*arguments, **options):
    print("in the middle", flush=True)
    time.sleep(600)

verification.verify = hang
vocabulary = Vocabulary(("a", "b", "c"), np.array([3, 2, 1]))
model = presets.sasrec(num_items=3, embedding_dim=8, max_length=10)
export_recommender(model, sys.argv[1], vocabulary=vocabulary, k=2)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_version(base, version=None, content="x"):
    with versions.staging(base) as folder:
        staged = folder / "version"
        staged.mkdir()
        (staged / "file").write_text(content)
        return versions.publish(staged, base, version, lambda number: None)


def test_versions_count_from_one_and_from_the_highest(tmp_path):
    base = tmp_path / "deep" / "base"
    assert write_version(base) == (base / "1", 1)
    assert write_version(base, 41) == (base / "41", 41)
    assert write_version(base) == (base / "42", 42)
    assert write_version(base, 7) == (base / "7", 7)
    for other in ("notes", "00050", "v3", "²"):
        (base / other).mkdir()
    assert versions.versions(base) == [1, 7, 41, 42, 50]
    assert write_version(base) == (base / "51", 51)


def test_a_version_that_exists_is_never_touched(tmp_path):
    write_version(tmp_path, 3, "old")
    for version in (3, "3", True):
        with pytest.raises(ValueError, match="`version` must be"):
            versions.check_new_version(tmp_path, version)
    with pytest.raises(InputError, match=r"version=3, and .*3 exists"):
        write_version(tmp_path, 3, "new")
    (tmp_path / "0004").mkdir()
    with pytest.raises(InputError, match="0004 exists"):
        write_version(tmp_path, 4, "new")
    assert names(tmp_path) == ["0004", "3"]
    assert (tmp_path / "3" / "file").read_text() == "old"


def test_export_refuses_a_taken_version_before_it_works(tiny, tmp_path):
    (tmp_path / "5").mkdir()
    with pytest.raises(InputError, match="version=5"):
        tiny.export(tmp_path, version=5, model=object())
    assert names(tmp_path) == ["5"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing_behind(tmp_path, error):
    base = tmp_path / "a" / "b"

    def fail():
        with versions.staging(base) as folder:
            (folder / "version" / "deep").mkdir(parents=True)
            assert folder.name.startswith(".")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_a_base_that_was_there_stays(tmp_path):
    with pytest.raises(RuntimeError), versions.staging(tmp_path):
        raise RuntimeError
    assert tmp_path.is_dir()


def unwritable(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    yield file
    yield file / "base"
    if os.path.isdir("/proc/self"):
        from pathlib import Path

        yield Path("/proc/self/base")  # where root cannot write either
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        yield locked


def test_a_base_that_cannot_be_written_to(tiny, tmp_path, model):
    for base in unwritable(tmp_path):
        before = names(tmp_path)
        with pytest.raises(InputError, match="must be one that can be written to"):
            tiny.export(base, model=model)
        assert names(tmp_path) == before


def test_folders_of_living_writers_are_left_alone(tmp_path):
    with versions.staging(tmp_path) as first:
        (first / "version").mkdir()
        with versions.staging(tmp_path) as second:
            assert first != second
            assert (first / "version").is_dir()
    assert names(tmp_path) == []


def test_what_a_dead_writer_left_is_removed(tmp_path):
    for name, files in (("1", ["lock", "version/saved_model.pb"]), ("2", [])):
        folder = tmp_path / f".exporting-{name}"
        folder.mkdir()
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("half")
    (tmp_path / ".other").mkdir()
    write_version(tmp_path)
    assert names(tmp_path) == [".other", "1"]


def test_writers_at_the_same_moment_get_versions_of_their_own(tmp_path):
    start, results = threading.Barrier(8), []

    def write(content):
        start.wait()
        path, number = write_version(tmp_path, content=content)
        results.append((number, content, (path / "file").read_text()))

    threads = [threading.Thread(target=write, args=[f"{i}"]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _, _ in results) == list(range(1, 9))
    assert all(wrote == found for _, wrote, found in results)
    assert names(tmp_path) == [str(number) for number in range(1, 9)]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_kill_9_in_the_middle_leaves_no_version(tiny, tmp_path, model):
    write_version(tmp_path, content="in service")
    process = subprocess.Popen(
        [sys.executable, "-c", HANG_IN_THE_MIDDLE, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in the middle\n"
    (hidden,) = set(names(tmp_path)) - {"1"}
    assert (tmp_path / hidden / "version" / "saved_model.pb").exists()
    assert hidden.startswith(".")  # what TensorFlow Serving does not look at
    # While its writer lives, another export lets it be.
    tiny.export(tmp_path, model=model)
    assert hidden in names(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert names(tmp_path) == [hidden, "1", "2"]
    tiny.export(tmp_path, model=model)
    assert names(tmp_path) == ["1", "2", "3"]
    assert (tmp_path / "1" / "file").read_text() == "in service"


def test_a_version_is_whole_when_it_appears(tiny, tmp_path, model):
    """What a polling server sees: nothing, then everything."""
    seen, done = [], threading.Event()

    def poll():
        while not done.is_set():
            for version in tmp_path.glob("[0-9]*"):
                seen.append({path.name for path in version.rglob("*")})
            time.sleep(0.001)

    poller = threading.Thread(target=poll)
    poller.start()
    export = tiny.export(tmp_path, model=model)
    time.sleep(0.05)
    done.set()
    poller.join()
    whole = {path.name for path in export.path.rglob("*")}
    assert seen
    assert all(files == whole for files in seen)
