"""Every run of the quality benchmark has its row, and is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfrs_selfattn import data, training
from tfrs_selfattn.training import recipe

pytestmark = pytest.mark.legacy_keras

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "embedding_dim": 8,
    "num_blocks": 1,
    "num_heads": 1,
    "max_length": 16,
    "epochs": 1,
    "batch_size": 16,
}


@pytest.fixture
def quality(monkeypatch, tmp_path):
    """The benchmark, with a small data set and a table of its own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quality

    log = data.generate_events(60, 20, 9.0, seed=1)
    log.write_csv(tmp_path / "events.csv")
    known = {"file": "events.csv", "min_item_events": 1}
    monkeypatch.setitem(quality.DATASETS, "amazon-beauty", known)
    monkeypatch.setattr(quality, "TABLE", tmp_path / "quality.csv")
    monkeypatch.setattr(quality.signal, "signal", lambda *arguments: None)
    return quality


@pytest.fixture
def run(quality, tmp_path):
    """A function that runs it with further options and returns the table."""

    def run(*words, **settings):
        changes = [f"--set={name}={value}" for name, value in (TINY | settings).items()]
        quality.main(
            [
                *("--dataset", "amazon-beauty", "--data", str(tmp_path)),
                *("--cache", str(tmp_path / "cache"), *changes, *words),
            ]
        )
        return quality.rows_of(quality.TABLE)

    return run


def test_a_row_for_each_seed_and_one_for_all(run):
    rows = run("--seeds", "2")
    assert [row["seeds"] for row in rows] == ["0", "1", "0 1"]
    assert {row["status"] for row in rows} == {"finished"}
    assert rows[-1]["run"] == f"{rows[0]['run']} {rows[1]['run']}"
    for name in ("test hr@10", "validation ndcg@10"):
        one, other, mean = (float(row[name]) for row in rows)
        assert mean == pytest.approx((one + other) / 2, abs=1.1e-4)
        spread = abs(one - other) / 2**0.5
        assert float(rows[-1][f"{name} sd"]) == pytest.approx(spread, abs=1.1e-4)
    # A search of the same has a row of its own, which says nothing of the test.
    *before, row = run("--search")
    assert before == rows
    assert (row["search"], row["seeds"], row["status"]) == ("True", "0", "finished")
    assert json.loads(row["training"])["patience"] == 5
    assert row["validation ndcg@10"] == rows[0]["validation ndcg@10"]
    assert row["test hr@10"] == row["test ndcg@10 sd"] == ""


def test_what_is_known_of_items_is_trained_with(run, tmp_path):
    items = "".join(f"i{item},a{item % 3} b\n" for item in range(20))
    (tmp_path / "items.csv").write_text("item_id,title\n" + items)
    told = ("--seeds", "1", "--item-features", "items.csv:title=text")
    plain, with_titles = [*run("--seeds", "1"), *run(*told)][-2:]
    assert (plain["features"], with_titles["features"]) == ("", told[-1])
    assert with_titles["run"] != plain["run"]
    assert with_titles["validation ndcg@10"] != plain["validation ndcg@10"]
    assert run(*told)[-1] == with_titles  # found again, by what is known
    (tmp_path / "items.csv").write_text("item_id,title\n" + items.replace(" b", " c"))
    assert run(*told)[-1]["run"] != with_titles["run"]  # other titles: another run


def test_a_run_that_diverges_or_is_stopped_keeps_its_row(run, quality, monkeypatch):
    (row,) = run("--seeds", "1", learning_rate=1e30, warmup_steps=0)
    assert (row["status"], row["test hr@10"]) == ("diverged", "")

    trained = quality.train

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(quality, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("--seeds", "1")
    before = quality.rows_of(quality.TABLE)
    assert [(row["status"], row["epochs"]) for row in before[1:]] == [("stopped", "0")]
    monkeypatch.setattr(quality, "train", trained)
    rows = run("--seeds", "1")  # goes on, and takes the place of its row
    assert [row["run"] for row in rows] == [row["run"] for row in before]
    assert [row["status"] for row in rows] == ["diverged", "finished"]


def test_a_run_of_before_a_field_was_added_is_found_again(quality, tmp_path):
    frame = data.events_from_frame(data.generate_events(20, 10, 5.0, seed=1))
    config = training.RunConfig.for_sequences(
        data.build_sequences(frame),
        training.DataConfig("/a"),
        *recipe("ml-1m"),
    )
    new = quality.place_of(tmp_path, "ml-1m", config)
    assert not new.exists()
    old = tmp_path / "ml-1m-esasrec-of-another-hash"
    old.mkdir()
    content = json.loads(config.to_json())
    del content["training"]["cut_histories"], content["model"]["loss"]
    content["data"]["path"] = "/elsewhere"
    (old / "config.json").write_text(json.dumps(content))
    assert quality.place_of(tmp_path, "ml-1m", config) == old
    content["training"]["seed"] = 7
    (old / "config.json").write_text(json.dumps(content))
    assert quality.place_of(tmp_path, "ml-1m", config) == new


def test_a_new_field_at_its_default_names_the_same_folder(quality):
    import _quality_runs

    _, trained = recipe("ml-1m")
    chosen = _quality_runs._chosen(trained)
    assert chosen == {
        "epochs": 40,
        "patience": 1000,
        "batch_size": 64,
        "schedule": "cosine",
        "warmup_steps": 300,
    }


def test_the_table_of_the_project_is_whole(quality):
    import _quality_runs

    rows = quality.rows_of(BENCHMARKS / "quality.csv")
    assert rows
    for row in rows:
        assert tuple(row) == _quality_runs.COLUMNS
        assert row["status"] in ("finished", "diverged", "stopped")
        tested = row["status"] == "finished" and row["search"] == "False"
        assert bool(row["test ndcg@10"]) is tested


@pytest.mark.parametrize("name", training.RECIPES)
def test_the_recipes_are_those_of_the_command(quality, name):
    dataset = "amazon-beauty" if "beauty" in name else "ml-1m"
    options = quality._options(["--dataset", dataset, "--data", "/", "--recipe", name])
    assert quality.configurations(options) == recipe(name)
