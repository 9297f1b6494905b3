"""What train, evaluate, export and recommend print and leave behind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tfrs_selfattn import training
from tfrs_selfattn.cli.export import SERVER_IMAGE

SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "16")


@pytest.fixture
def history(exported):
    """Three items that the export knows, most popular first."""
    vocabulary = (exported / "1" / "assets" / "vocabulary.txt").read_text()
    return vocabulary.split("\n")[:3]


def test_train_counts_what_it_keeps_and_leaves_out(cli, tmp_path):
    lines = [f"u{n % 4},i{n % 7},{n}" for n in range(40)]
    lines += ["u1,i1,1", "u1,i1,1", "alone,rare,5"]
    (tmp_path / "my events.csv").write_text(
        "user_id,item_id,timestamp\n" + "\n".join(lines)
    )
    (tmp_path / "titles.csv").write_text("item_id,title\ni1,[REC] :tea:\ni2,\n")
    run = tmp_path / "my run"
    done = cli(
        *("train", "--data", tmp_path / "my events.csv", "--output", run, *SMALL),
        *("--items", tmp_path / "titles.csv", "--epochs", "1"),
    )
    assert (done.status, done.err) == (0, "")
    assert "43 events of 5 users with 8 items\n" in done.out
    assert "2 events repeat another one (same user, item and time); they are kept" in (
        done.out
    )
    assert "1 users have one event only; they count for the vocabulary" in done.out
    assert "7 items have no title" in done.out
    assert re.search(r"loss: [\d.]+ .*val_ndcg@10: [\d.]+ - items/s: \d+", done.out)
    assert re.search(r"Best epoch: 1 of 1, validation hr@10 [\d.]+, ndcg@10", done.out)
    folder = training.RunFolder.open(run)
    assert "rare" in folder.vocabulary().ids
    assert folder.titles() == {"i1": "[REC] :tea:"}

    commands = dict(re.findall(r"^(\w+ it): +(.+)$", done.out, re.MULTILINE))
    assert {name: shlex.split(text)[:3] for name, text in commands.items()} == {
        "Evaluate it": ["tfrs-selfattn", "evaluate", str(run)],
        "Export it": ["tfrs-selfattn", "export", str(run)],
        "Watch it": ["tensorboard", "--logdir", str(run / "tensorboard")],
    }
    _, *words = shlex.split(commands["Evaluate it"])
    assert cli(*words).status == 0


def test_the_same_command_again_says_that_it_is_done(
    cli, trained, events, columns, monkeypatch
):
    def fit(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(training.trainer.SequenceRetrieval, "fit", fit)
    before = training.RunFolder.open(trained).metrics()
    options = ("--data", events, *columns, *SMALL, "--epochs", "2")
    done = cli("train", *options, "--output", trained)
    assert done.status == 0
    assert f"{trained} is trained already: nothing left to do\n" in done.out
    assert "Continuing" not in done.out
    done = cli("train", *options, "--output", trained, "--json")
    assert (done.json["epochs"], done.json["resumed_from"]) == (2, 2)
    assert training.RunFolder.open(trained).metrics() == before


def test_a_run_that_diverges_fails_and_says_what_to_do(cli, events, columns, tmp_path):
    options = ("--data", events, *columns, *SMALL, "--learning-rate", "1e38")
    done = cli("train", *options, "--output", tmp_path / "run", "--json")
    assert (done.status, done.out) == (1, "")
    *_, line = done.err.splitlines()
    assert re.search(
        r"^error: The loss of epoch \d is (nan|inf), .*lower --learning-rate;", line
    )


def test_train_json(cli, trained, events, columns):
    options = ("--data", events, *columns, *SMALL, "--epochs", "2")
    done = cli("train", *options, "--output", trained, "--json")
    assert list(done.json) == [
        "run",
        "users",
        "items",
        "events",
        "duplicate_events",
        "one_event_users",
        "items_without_title",
        "epochs",
        "resumed_from",
        "best_epoch",
        "validation",
        "seconds",
    ]
    assert done.json["run"] == str(trained)
    assert (done.json["users"], done.json["events"]) == (60, 599)
    assert "599 events of 60 users" in done.err


MODELS = {
    "popularity": "most popular",
    "item_to_item": "item-to-item transitions",
    "item_knn": "item-KNN",
    "ease": "EASE",
    "model": "model",
}
SHOWN = ("hr@10", "ndcg@10", "mrr", "map@10", "coverage@10", "novelty@10")


def cells(out):
    """The cells of all rows of all tables that were printed."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_evaluate_prints_one_table_and_notes_it(cli, trained):
    done = cli("evaluate", trained)
    assert (done.status, done.err) == (0, "")
    rows = [row for row in cells(done.out) if row[0] in MODELS.values()]
    assert [row[0] for row in rows] == list(MODELS.values())
    assert "Leave-one-out: test of " in done.out
    assert "among all 20 items, seen items left out" in done.out

    machine = cli("evaluate", trained, "--json").json
    assert list(machine) == [
        "run",
        "metrics",
        "intervals",
        "users",
        "filter_seen",
        "split",
        "groups",
        "against",
        "comparison",
        "seconds",
    ]
    assert list(machine["metrics"]) == list(MODELS)
    for (_, *shown), values in zip(rows, machine["metrics"].values(), strict=True):
        assert list(values) == list(SHOWN)
        for text, value in zip(shown, values.values(), strict=True):
            assert text == f"{value:.{len(text.partition('.')[2])}f}"
    assert machine["against"] is machine["comparison"] is None
    assert machine["split"] == {"kind": "leave-one-out"}
    noted = training.RunFolder.open(trained).metrics()
    assert noted["test"]["metrics"] == machine["metrics"]
    assert noted["finished"]

    seen = cli("evaluate", trained, "--keep-seen", "--json").json
    assert not seen["filter_seen"]
    assert seen["metrics"] != machine["metrics"]


def test_evaluate_says_how_sure_it_is_and_where_it_is_good(cli, trained):
    done = cli("evaluate", trained)
    machine = cli("evaluate", trained, "--json").json
    metrics = machine["metrics"]["model"]
    for name, interval in machine["intervals"].items():
        assert interval["value"] == metrics[name]
        assert interval["low"] < metrics[name] < interval["high"]
    low, high = (machine["intervals"]["hr@10"][end] for end in ("low", "high"))
    assert (
        f"Model, 95 % intervals over users: HR@10 {low:.4f}–{high:.4f}, N" in done.out
    )
    rows = cells(done.out)
    assert list(machine["groups"]) == ["history length", "target's popularity"]
    for groups in machine["groups"].values():
        assert sum(group["cases"] for group in groups) == machine["users"]
        hits = sum(group["cases"] * group["metrics"]["hr@10"] for group in groups)
        assert hits / machine["users"] == pytest.approx(metrics["hr@10"])
        for group in groups:
            values = [f"{group['metrics'][name]:.4f}" for name in SHOWN[:4]]
            assert [group["label"], str(group["cases"]), *values] in [
                row[1:] for row in rows
            ]


def test_evaluate_against_another_run(cli, trained, events, columns, tmp_path):
    other = tmp_path / "other"
    options = (*columns, *SMALL, "--epochs", "1", "--seed", "5", "--output", other)
    assert cli("train", "--data", events, *options).status == 0
    done = cli("evaluate", trained, "--against", other)
    assert (done.status, done.err) == (0, "")
    machine = cli("evaluate", trained, "--against", other, "--json").json
    assert machine["against"] == str(other)
    alone = cli("evaluate", other, "--json").json["metrics"]["model"]
    rows = {row[0]: row[1:] for row in cells(done.out)}
    labels = {"hr@10": "HR@10", "ndcg@10": "NDCG@10", "mrr": "MRR", "map@10": "MAP@10"}
    assert machine["comparison"].keys() == labels.keys()
    for name, found in machine["comparison"].items():
        assert found["a"] == alone[name]
        assert found["b"] == machine["metrics"]["model"][name]
        assert found["difference"] == pytest.approx(found["b"] - found["a"])
        assert 0 < found["p_value"] <= 1
        numbers = [found["a"], found["b"]]
        assert rows[labels[name]][:2] == [f"{number:.4f}" for number in numbers]
        assert rows[labels[name]][-1] == f"{found['p_value']:.4f}"


def test_evaluate_leaves_out_what_takes_long(cli, trained, monkeypatch):
    from tfrs_selfattn.cli import _evaluation

    monkeypatch.setitem(_evaluation._MAX_ITEMS, "ease", 19)
    done = cli("evaluate", trained, "--json")
    assert list(done.json["metrics"]) == [name for name in MODELS if name != "ease"]
    assert "Without EASE, which takes long for more than 19 items" in done.err


def test_evaluate_finds_events_that_have_moved(cli, trained, events, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config = json.loads((trained / "config.json").read_text())
    config["data"]["path"] = str(tmp_path / "gone.csv")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "checkpoints").symlink_to(trained / "checkpoints")
    done = cli("evaluate", folder)
    assert done.status == 2
    assert re.search(r"gone\.csv, which does not exist any more.*--data\.$", done.err)
    assert cli("evaluate", folder, "--data", events).status == 0


def test_export_says_how_to_use_it(cli, trained, tmp_path):
    base = tmp_path / "my models"
    done = cli("export", trained, "--to", base, "--k", "3")
    assert (done.status, done.err) == (0, "")
    assert "Exported version 1" in done.out
    commands = dict(re.findall(r"^(\w+ it): +(.+)$", done.out, re.MULTILINE))
    assert shlex.split(commands["Serve it"])[-2:] == [
        f"{base}:/models/recommender",
        SERVER_IMAGE,
    ]
    _, *words = shlex.split(commands["Ask it"])
    assert cli(*words).status == 0
    machine = cli("export", trained, "--to", base, "--keep-seen", "--json").json
    names = ["run", "export", "version", "k", "keep_seen", "index", "parts", "seconds"]
    assert list(machine) == names
    assert machine["export"] == str(base / "2")
    assert (machine["version"], machine["k"], machine["keep_seen"]) == (2, 100, True)


def test_export_tunes_an_index_on_what_the_run_held_out(
    cli, refused, trained, tmp_path
):
    base, tune = tmp_path / "base", ("--k", "5", "--target-recall", "0.9")
    done = cli("export", trained, "--to", base, "--index", "partitioned", *tune)
    assert (done.status, done.err) == (0, "")
    said = re.search(
        r"search of (\d+) of (\d+) leaves finds ([\d.]+)% of the best 5, for (\d+) "
        r"queries of validation",
        done.out,
    )
    searched, leaves, recall, queries = map(float, said.groups())
    assert searched <= leaves and recall >= 90 and 0 < queries <= 60
    manifest = json.loads((base / "1/assets.extra/recommender.json").read_text())
    assert manifest["index"]["settings"]["num_leaves_to_search"] == searched
    for more in ((), ("--index", "partitioned", "--shards", "2")):
        line = refused("export", trained, "--to", tmp_path / "no", *tune, *more)
        given = " ".join(more) or "--index exact"
        assert "--target-recall must come with --index partitioned, and " in line
        assert f"Received: {given}." in line


def test_one_image_of_the_server_is_named_everywhere():
    repository = Path(__file__).resolve().parents[2]
    pages = ["README.md", "serving/README.md", "serving/docker-compose.yml"]
    for page in (*pages, "docs/how-to/serve.md"):
        text = (repository / page).read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![./\w])tensorflow/serving(?::[\w.-]+)?", text))
        assert named == {SERVER_IMAGE}, page


def test_recommend_answers_from_the_export_alone(cli, exported, history, tmp_path):
    (tmp_path / "films.csv").write_text(f"film,name\n{history[0]},[REC] :tea:\n")
    titles = ("--items", tmp_path / "films.csv", "--item-column", "film")
    asked = ("recommend", exported, "--history", ", ".join(history))
    done = cli(*asked, *titles, "--title-column", "name")
    assert (done.status, done.err) == (0, "")
    assert "[REC] :tea:" in done.out
    machine = cli(*asked, "--json").json
    assert list(machine) == ["history", "unknown", "most_popular", "recommendations"]
    assert machine["history"] == history
    assert (machine["unknown"], machine["most_popular"]) == ([], False)
    ids = [item["id"] for item in machine["recommendations"]]
    assert len(ids) == 5
    assert not set(ids) & set(history)
    for item in ids:
        assert item in done.out

    excluding = cli(*asked, "--exclude", ids[0], "--limit", "2", "--json").json
    assert [item["id"] for item in excluding["recommendations"]] == ids[1:3]


@pytest.mark.parametrize("asked", ["", "nobody,knows"])
def test_recommend_falls_back_on_the_most_popular(cli, exported, history, asked):
    done = cli("recommend", exported, "--history", asked, "--limit", "3")
    assert done.status == 0
    assert "these are the most popular items" in done.out
    assert ("Unknown to the model and ignored: nobody, knows" in done.out) is bool(
        asked
    )
    machine = cli("recommend", exported, "--history", asked, "--json").json
    assert machine["most_popular"]
    assert machine["unknown"] == [word for word in asked.split(",") if word]
    assert [item["id"] for item in machine["recommendations"]][:3] == history


def test_ids_that_hold_commas_can_be_quoted():
    from tfrs_selfattn.cli.recommend import split_ids

    assert split_ids('a, "b,c" ,d,,') == ["a", "b,c", "d"]
    assert split_ids("") == split_ids(" , ") == []
