"""A run folder is created whole or not at all, and never in the place of another."""

from __future__ import annotations

import json
import os

import pytest

from tfrs_selfattn import InputError, data, training
from tfrs_selfattn.training import run_folder
from tfrs_selfattn.training.lock import LOCK, exclusive

NAMES = [LOCK, "config.json", "items.csv", "vocabulary.txt"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_holds_all_that_rebuilds_the_model(make_run, split, tmp_path):
    folder = make_run(tmp_path / "runs" / "first")
    assert names(folder.path) == NAMES
    reopened = training.RunFolder.open(folder.path)
    assert reopened == folder
    vocabulary = reopened.vocabulary()
    assert vocabulary.ids == split.sequences.vocabulary.ids
    assert (vocabulary.counts == split.sequences.vocabulary.counts).all()
    assert reopened.titles() == {vocabulary.ids[0]: 'Tea, "black"'}
    assert reopened.metrics() == {}


@pytest.mark.parametrize("ids", [("", "a,b", ' "c" '), ("1", "2", "03")])
def test_ids_and_titles_come_back_as_they_were(config, tmp_path, ids):
    ids = tuple(item or "null" for item in ids)
    titles = dict(zip(ids, ("Tea\nGreen", "ünï", "1984"), strict=True))
    vocabulary = data.Vocabulary(ids, [3, 2, 1])
    path = tmp_path / "run"
    folder = training.RunFolder.create(path, config(), vocabulary, titles)
    assert folder.vocabulary().ids == ids
    assert folder.titles() == titles


@pytest.mark.parametrize("left", [[], [LOCK], [LOCK, "vocabulary.txt.part"], NAMES])
def test_a_creation_that_was_killed_does_not_stand_in_the_way(make_run, tmp_path, left):
    path = tmp_path / "run"
    path.mkdir()
    for name in set(left) - {"config.json"}:
        (path / name).write_text("half of it")
    folder = make_run(path)
    assert names(path) == NAMES
    assert len(folder.vocabulary()) == folder.config.num_items


@pytest.mark.parametrize("theirs", [["notes.txt"], ["items.csv"], [LOCK, "other"]])
def test_files_of_a_user_are_never_written_over(make_run, tmp_path, theirs):
    for name in theirs:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"new, empty.*which holds other files.*--out"):
        make_run(tmp_path)
    assert names(tmp_path) == sorted(theirs)
    assert all((tmp_path / name).read_text() == "mine" for name in theirs)


@pytest.mark.parametrize("step", ["save", "write_csv", "replace"])
def test_a_creation_that_fails_takes_back_what_it_wrote(
    make_run, tmp_path, monkeypatch, step
):
    owner = {
        "save": data.Vocabulary,
        "write_csv": run_folder.pl.DataFrame,
        "replace": run_folder.os,
    }[step]

    def fail(*arguments, **options):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(OSError, match="No space left"):
            make_run(tmp_path / "new" / "run")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"epochs": 4, "seed": 2}, r"epochs=3 \(now 4\), seed=0 \(now 2\)\. Choose"),
        ({"learning_rate": 0.1}, r"learning_rate=0\.001 \(now 0\.1\)"),
    ],
)
def test_another_run_is_refused_by_its_differences(
    make_run, tmp_path, options, difference
):
    before = make_run(tmp_path / "run")
    written = (before.path / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"holds another run, made with {difference}"):
        make_run(before.path, **options)
    assert (before.path / "config.json").read_bytes() == written
    assert make_run(before.path) == before


def test_places_that_cannot_be_written(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"must be a folder.*which is a file"):
        make_run(tmp_path / "file")
    with pytest.raises(InputError, match=r"must be writable.*Not a directory.*--out"):
        make_run(tmp_path / "file" / "deep" / "run")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
def test_a_file_system_that_cannot_be_written(make_run):
    with pytest.raises(InputError, match=r"must be writable. Received: /proc/run"):
        make_run(run_folder.Path("/proc/run"))


def test_the_check_before_all_work_writes_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "new/deeper"):
        training.check_output(tmp_path / name)
    assert names(tmp_path) == ["empty"]
    assert names(tmp_path / "empty") == []


def test_one_process_at_a_time(make_run, split, tmp_path):
    folder = make_run(tmp_path / "run")
    with exclusive(folder.path):
        with pytest.raises(InputError, match=r"Another process is training it"):
            training.train(folder, split, verbose=0)
        with pytest.raises(InputError, match=r"Another process is training it"):
            make_run(folder.path)
    assert names(folder.path) == NAMES
    with exclusive(folder.path):
        pass


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"no such folder.*train first"):
        training.RunFolder.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"no config\.json in it"):
        training.RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: "{half", "must be the config.json of a run folder"),
        (lambda config: "[]", "must be the config.json of a run folder"),
        (lambda config: json.dumps(config | {"format": 2}), "must have format 1"),
        (
            lambda config: json.dumps(config | {"model": {"num_heads": 0}}),
            r"config\.json .* cannot be used \(`num_heads` must be a positive",
        ),
        (
            lambda config: json.dumps(config | {"training": {"optimizer": "sgd"}}),
            r"config\.json .* cannot be used .*'optimizer'",
        ),
    ],
)
def test_a_config_that_cannot_be_used(make_run, tmp_path, change, message):
    path = make_run(tmp_path / "run").path / "config.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(InputError, match=message):
        training.RunFolder.open(path.parent)


def test_metrics_are_replaced_whole(make_run, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    folder.write_metrics({"epochs": [1]})
    with monkeypatch.context() as patch:
        patch.setattr(run_folder.os, "replace", lambda *paths: None)
        folder.write_metrics({"epochs": [1, 2]})
    assert folder.metrics() == {"epochs": [1]}
    folder.write_metrics({"epochs": [1, 2]})
    assert folder.metrics() == {"epochs": [1, 2]}
    assert names(folder.path) == sorted([*NAMES, "metrics.json"])


def test_files_of_a_run_that_cannot_be_read(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    (folder.path / "metrics.json").write_text('{"epochs": [')
    with pytest.raises(InputError, match=r"metrics\.json .*Remove it and repeat"):
        folder.metrics()
    (folder.path / "items.csv").write_text("item_id,count\nx,many\n")
    with pytest.raises(InputError, match=r"items\.csv must hold the columns"):
        folder.titles()
