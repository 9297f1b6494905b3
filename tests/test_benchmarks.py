"""What README and site say of the benchmarks is what their tables say.

Figures are looked up in `benchmarks/README.md`, where each stands with its command, its
date and machine, and rounded as the sentence rounds them.
"""

from __future__ import annotations

import csv
import html
import importlib.util
import json
import re
import statistics
from decimal import ROUND_HALF_UP, Decimal
from types import SimpleNamespace

import pytest

from tests.test_readme import README, REPOSITORY
from tfrs_selfattn.training import RECIPES

BENCHMARKS = REPOSITORY / "benchmarks"
TABLES = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
SITE = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
LETTERS = ("Attention", "Quality", "Index", "Explanations", "New items")


def section(text, title):
    """The part under a heading of the second level that begins with this word."""
    found = re.search(rf"^## {title}\b.*?(?=^## |\Z)", text, re.M | re.S)
    assert found, title
    return found[0]


def rows(title, head):
    """The cells of the table of a section whose head begins so, without marks."""
    table = section(TABLES, title)
    lines = table[table.index(head) :].split("\n\n")[0].splitlines()[2:]
    cells = [line.replace("*", "").strip("|").split("|") for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


def by_name(title, head):
    """The same, by the names of row and column."""
    table = section(TABLES, title)
    head = table[table.index(head) :].split("\n")[0]
    names = [name.strip() for name in head.strip("|").split("|")][1:]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows(title, head)}


def flat(text):
    """A text as one line: what is said, wherever its lines break."""
    return " ".join(text.split())


def rounded(value, digits=1):
    step = Decimal(1).scaleb(-digits)
    return str(Decimal(str(value)).quantize(step, ROUND_HALF_UP))


def spreads(found, names):
    """Mean ± standard deviation of rows, for each of these columns."""
    cells = []
    for name in names:
        values = [Decimal(row[name]) for row in found]
        mean, spread = (
            rounded(value, 4).removeprefix("0")
            for value in (statistics.mean(values), statistics.stdev(values))
        )
        cells.append(f"{mean} ± {spread}")
    return cells


def check_date(text, title):
    """A text must have the date of a section's measurement."""
    date = DATE.search(section(TABLES, title))
    assert date and date[0] in flat(text), f"{title}: the date must be {date[0]}"


def test_the_site_gives_the_dates_of_the_tables():
    for title in LETTERS:
        check_date(section(SITE, title), title)


def test_quality_is_what_the_table_says():
    of = {row[0]: row[1:] for row in rows("Quality", "| ML-1M, without times")}
    means = [cell.split(" ± ") for cell in of["seeds 0, 1, 2, test"]]
    published = of[next(name for name in of if "published" in name)]
    for text in (section(README, "Results"), section(SITE, "Quality")):
        check_date(text, "Quality")
        assert f"HR@10 {means[0][0]}, NDCG@10 {means[1][0]}" in flat(text)
        assert re.search(
            rf"published.*{re.escape(published[0])}\D+{re.escape(published[1])}",
            flat(text),
        )
    site = flat(section(SITE, "Quality"))
    assert f"(± {means[0][1]}, ± {means[1][1]})" in site
    of = {row[0]: row[1:] for row in rows("Quality", "| Amazon Beauty")}
    ids, titles = of["ids alone, test"], of["titles too, test"]
    assert f"HR@10 {ids[0]}, NDCG@10 {ids[1]}, with" in site
    with_titles = " and ".join(cell.split(" ± ")[0] for cell in titles)
    assert f"with the titles of items {with_titles}" in site


def test_quality_tables_are_what_the_rows_say():
    """Mean and standard deviation of the seeds, of the last run of each."""
    with (BENCHMARKS / "quality.csv").open(newline="", encoding="utf-8") as file:
        every = list(csv.DictReader(file))

    def seeds_of(dataset, features):
        """The finished runs of the recipe, those of one seed each."""
        recipe = {"embedding_dim": 128, "dropout": 0.1, **RECIPES[dataset]}
        place = {"dataset": dataset, "features": features, "search": "False"}
        place |= {"status": "finished", "time_aware": "False"}
        return [
            row
            for row in every
            if place.items() <= row.items()
            and recipe.items()
            <= {**json.loads(row["model"]), **json.loads(row["training"])}.items()
            and row["seeds"].isdigit()
        ]

    heads = {"ml-1m": "| ML-1M, without", "amazon-beauty": "| Amazon Beauty |"}
    cases = (
        ("ml-1m", "", "seeds 0, 1, 2, "),
        ("amazon-beauty", "", "ids alone, "),
        ("amazon-beauty", "items.csv:title=text", "titles too, "),
    )
    for dataset, features, name in cases:
        table = {row[0]: row[1:] for row in rows("Quality", heads[dataset])}
        found = seeds_of(dataset, features)
        assert sorted(row["seeds"] for row in found) == ["0", "1", "2"]
        for part in ("test", "validation"):
            names = (f"{part} hr@10", f"{part} ndcg@10")
            assert table[name + part] == spreads(found, names), name + part


def test_one_query_takes_what_the_table_says():
    """At a recall of .98, one query, without XLA."""
    name, found = "", {}
    for row in rows("Index", "| index | recall"):
        name = row[0].replace("`", "") or name
        if row[1] in (".98", "1"):
            found[name] = rounded(row[2].split("/")[0].strip(), 2)
    wanted = (
        f"`PartitionedTopK` {found['PartitionedTopK']} ms, TFRS' `ScaNN` "
        f"{found['TFRS ScaNN']} ms, FAISS IVF-Flat {found['FAISS IVF-Flat']} ms, TFRS' "
        f"`BruteForce` {found['TFRS BruteForce']} ms"
    )
    results = flat(section(README, "Results"))
    assert wanted in results
    check_date(
        results[results.index("One query over") : results.index(wanted)], "Index"
    )


def test_attention_is_as_fast_as_the_table_says():
    ratios = {}
    for row in rows("Attention", "| Keras | T | H |"):
        speeds = [float(cell.split("=")[1]) for cell in row[3:]]
        ratios.setdefault(row[1], []).append(speeds)
    every = [speed for rows in ratios.values() for row in rows for speed in row]
    training = {
        length: [s for r in rows for s in r[1:]] for length, rows in ratios.items()
    }
    memory = {row[0]: row[2].split()[0] for row in rows("Attention", "| T | short |")}
    results = flat(section(README, "Results"))
    assert "never slower" in results and min(every) >= 1
    low, high = rounded(min(training["200"])), rounded(max(training["200"]))
    assert f"{low} to {high} times as fast in training at T = 200" in results
    assert f"up to {rounded(max(training['1024']))} times at T = 1,024" in results
    assert f"at T = 8,192 in {rounded(memory['8,192'])} GB with `block_size`" in results


def test_explanations_are_as_faithful_as_the_tables_say():
    means = {r[0]: r[1:] for r in rows("Explanations", "| deleted | leave-one-out")}
    after = section(TABLES, "Explanations").split("Users for whom")[1]
    shares = re.search(r"^\| 10 \|.*\| ([\d.]+) % \|$", after, re.M)
    named, random = (float(means["10"][place].split()[0]) for place in (0, 3))
    text = flat(README)
    assert f"count {named / random:.0f} times as much as ten random ones" in text
    assert (
        f"those of roll-out for {100 - float(shares[1]):.0f} % of the users less"
        in text
    )
    spread = re.search(
        r"wrong ones for (\d+ to \d+ %)", section(TABLES, "Explanations")
    )
    assert f"wrong films for {spread[1]} of the users" in flat(SITE)


@pytest.mark.parametrize(
    ("picture", "title", "head"),
    [
        ("attention", "Attention", "| Keras | T |"),
        ("attention_memory", "Attention", "| T | short |"),
        ("index", "Index", "| index | recall"),
        ("explanations", "Explanations", "| deleted |"),
    ],
)
def test_pictures_are_drawn_of_the_tables(picture, title, head):
    path = REPOSITORY / "docs" / "images" / f"{picture}.svg"
    found = re.search("<dc:description>(.*?)</dc:description>", path.read_text("utf-8"))
    drawn = json.loads(html.unescape(found[1])) if found else []
    drawn = [[cell.replace("*", "") for cell in row] for row in drawn]
    assert drawn == rows(title, head), "run `python docs/draw.py`, and look at it"


@pytest.fixture(scope="module")
def cold_rows():
    path = BENCHMARKS / "_cold_rows.py"
    spec = importlib.util.spec_from_file_location("cold_rows", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_new_items_aim_at_is_a_ratio_of_each_seed(
    cold_rows, tmp_path, monkeypatch, capsys
):
    def row(seed, method, value, case="cold, new", features=""):
        place = {"date": "2000-01-02", "dataset": "films", "seed": seed}
        hits = {"hr@10": value, "ndcg@10": value / 2, "cases": 5}
        known = {"features": features, "seconds": 1, "settings": "{}"}
        return {**place, "method": method, "case": case, **hits, **known}

    monkeypatch.setattr(cold_rows, "TABLE", tmp_path / "rows.csv")
    seeds = ((0, 0.4, 0.1), (1, 0.9, 0.3))
    for seed, mine, neighbours in seeds:
        cold_rows.append_rows(
            [
                row(seed, "content", mine, features="words"),
                row(seed, "content", 0.7, features="other words"),
                row(seed, "content neighbours", neighbours, features="words"),
                row(seed, "popularity", 0.0),
                row(seed, "popularity, told", 0.2),
            ]
        )
    cold_rows.append_rows([row(2, "content", 0.5, features="words")])  # not yet all
    cold_rows.append_rows(
        [{**row(0, "content", 0.1, features="words"), "settings": '{"epochs": 1}'}]
    )
    asked = {"content": "words", "content neighbours": "words", "popularity": ""}
    cold_rows.print_summary("films", {name: (asked[name], "{}") for name in asked})
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("| cold, new, of the better"))
    # 4 and 3 times, each of its own seed.
    assert line.endswith("neighbours | 3.50 ± 0.71 / 3.50 ± 0.71 |")
    measures = ("popularity", "content neighbours")
    every = cold_rows.read_rows()
    assert cold_rows.ratios(
        [r for r in every if r["features"] != "other words" and r["settings"] == "{}"],
        *("cold, new", "content", measures, "hr@10"),
    ) == pytest.approx([4, 3])
    # Nothing is a multiple of 0.
    given = ("cold, new", "content", ("popularity",), "hr@10")
    assert cold_rows.ratios(every, *given) == []


@pytest.fixture
def new_items(cold_rows, monkeypatch):
    """Of a data set, the rows behind the tables: the defaults, or under changes."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cold_start

    def find(dataset, changes):
        options = SimpleNamespace(items=None, item_vectors=None, methods=None)
        features = cold_start._features(options, cold_start.DATASETS[dataset])
        asked = cold_start.rows_of(features, changes)
        return [
            row
            for row in cold_rows.read_rows()
            if row["dataset"] == dataset
            and (row["features"], row["settings"]) == asked.get(row["method"])
        ]

    return find


BEAUTY = {"dropout": 0.4, "epochs": 15, "cut_histories": 0.5, "id_dropout": 0.2}


@pytest.mark.parametrize(
    ("dataset", "head", "changes"),
    [
        ("ml-1m", "| MovieLens-1M |", {}),
        ("amazon-beauty", "| Amazon Beauty |", BEAUTY),
    ],
)
def test_tables_of_new_items_are_what_the_rows_say(new_items, dataset, head, changes):
    every = new_items(dataset, changes)
    for case, cells in by_name("New items", head).items():
        for method, cell in cells.items():
            found = [r for r in every if (r["method"], r["case"]) == (method, case)]
            assert sorted(row["seed"] for row in found) == ["0", "1", "2"]
            nothing = all(float(row["hr@10"]) == 0 for row in found)
            wanted = " / ".join(spreads(found, ("hr@10", "ndcg@10")))
            assert cell == ("0" if nothing else wanted), f"{method}, {case}"


def test_ratios_of_new_items_are_what_the_rows_say(cold_rows, new_items):
    every = new_items("ml-1m", {})
    for name, cells in by_name("New items", "| MovieLens-1M, HR").items():
        case, _, measure = name.rpartition(", of ")
        measures = (measure, *(("popularity",) if "cold" in case else ()))
        for method in ("ids", "content", "users"):
            wanted = " / ".join(
                f"{statistics.mean(found):.2f} ± {statistics.stdev(found):.2f}"
                for found in (
                    cold_rows.ratios(every, case, method, measures, metric)
                    for metric in ("hr@10", "ndcg@10")
                )
            )
            assert cells[method] == wanted, f"{name}: {method}"


def test_what_is_said_of_new_items_is_what_the_table_says():
    hits = {
        case: {method: cell.split(" ")[0] for method, cell in cells.items()}
        for case, cells in by_name("New items", "| MovieLens-1M |").items()
    }
    new, one, warm = hits["cold, new"], hits["warm, 1 event"], hits["warm"]
    for text in (section(README, "Results"), section(SITE, "New items")):
        check_date(text, "New items")
        text = flat(text)
        assert (
            f"HR@10 {new['users']} (nearest neighbours by content: "
            f"{new['content neighbours']})" in text
        )
        assert f"the other films {warm['users']} ({warm['ids']} by ids alone)" in text
        assert (
            f"after a single film {one['users']} (item-to-item transitions: "
            f"{one['item-to-item']})" in text
        )


def test_methods_of_cold_start_are_asked_for_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cold_start

    dataset = cold_start.DATASETS["ml-1m"]

    def asked(methods):
        words = ["--dataset", "ml-1m", "--data", "/", "--methods", methods]
        monkeypatch.setattr("sys.argv", ["cold_start.py", *words])
        return list(cold_start._features(cold_start._options(), dataset))

    assert asked("ids,content") == ["ids", "content"]
    names = ["popularity, told", "popularity", "content neighbours"]
    assert asked(", ".join(names)) == names
    with pytest.raises(SystemExit, match="Received: told"):
        asked("ids,told")


def test_a_row_serves_all_settings_that_do_not_bear_on_it(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cold_start

    features = {"ids": "", "content": "words", "item-to-item": ""}
    features["content neighbours"] = "words"
    first, less, longer = (
        cold_start.rows_of(features, changes)
        for changes in ({}, {"id_dropout": 0.1}, {"epochs": 2})
    )
    assert first["ids"] == less["ids"] != longer["ids"]
    assert len({some["content"] for some in (first, less, longer)}) == 3
    for baseline in ("item-to-item", "content neighbours"):
        assert first[baseline] == less[baseline] == longer[baseline]


def test_neighbours_by_words_are_those_of_tf_idf(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _cold_world
    import numpy as np

    # A word twice in a title, one in every title, and a title without words.
    titles = [[0, 1, 1], [0, 1], [0, 2, 3], [], [0, 3]]
    rows = SimpleNamespace(
        splits=np.cumsum([0, *map(len, titles)]),
        tokens=np.array([word for title in titles for word in title]),
        weights=np.ones(sum(map(len, titles)), np.float32),
    )
    score = _cold_world.word_neighbours(rows, 4)
    found = score(np.array([[0, 1, 3], [0, 0, 0]], np.int32), np.array([0, 1]))
    words = [word for title in titles for word in title]
    vectors = np.zeros([5, 4])
    for vector, title in zip(vectors, titles, strict=True):
        for word in title:
            vector[word] -= np.log(words.count(word) / len(titles))
        vector /= max(np.linalg.norm(vector), 1e-9)
    profile = vectors[0] + vectors[2]
    np.testing.assert_allclose(found[0], vectors @ profile, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


def test_the_rows_that_were_measured_can_be_summed_up(cold_rows, capsys):
    """Whatever script wrote them."""
    every = cold_rows.read_rows()
    assert every and set(cold_rows.KEY) <= every[0].keys()
    first = every[0]
    asked = {
        row["method"]: (row["features"], row["settings"])
        for row in every
        if row["settings"] == first["settings"]
    }
    cold_rows.print_summary(first["dataset"], asked)
    out = capsys.readouterr().out
    assert f"seeds ['{first['seed']}'" in out and "each seed's ratio" in out
