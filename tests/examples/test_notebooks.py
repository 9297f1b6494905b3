"""The notebooks say and do what their sources say: same cells, and every cell runs.

Each runs in a fresh kernel, in an empty folder, with `TFRS_SELFATTN_FAST=1`, which
trains for less long and skips no cell but the one that installs the package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.serving.model_server import STAND_IN, STOCK, can_run

nbclient = pytest.importorskip("nbclient", reason="needs the extra `test`")
nbformat = pytest.importorskip("nbformat", reason="needs the extra `test`")
pytest.importorskip("jupytext", reason="needs the extra `test`")
pytest.importorskip("ipykernel", reason="needs the extra `test`")

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
KERAS_3 = "08_layers_in_a_keras_3_pipeline"
HEADINGS = ["Goal", "Data", "Model", "Check", "Next"]
SECONDS = 300  # a cell, on a busy machine


@pytest.fixture(scope="module")
def generate():
    """The module `examples/generate.py`."""
    found = importlib.util.spec_from_file_location("generate", EXAMPLES / "generate.py")
    module = importlib.util.module_from_spec(found)
    # Its dataclass looks itself up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "generate", module)
        found.loader.exec_module(module)
        yield module


def notebooks():
    return sorted(path.stem for path in EXAMPLES.glob("[0-9]*.ipynb"))


def test_notebooks_and_table_are_those_of_the_sources(generate):
    stale = [
        path.name
        for path, text in generate.generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "run `python examples/generate.py`"
    assert tuple(notebooks()) == generate.NAMES


def test_a_changed_source_is_noticed(generate, monkeypatch, tmp_path):
    for path in EXAMPLES.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generate.main() == 0
    source = tmp_path / f"{generate.NAMES[1]}.py"
    source.write_text(source.read_text().replace("| 1 |", "| 2 |"), encoding="utf-8")
    assert generate.main() == 1  # the notebook and the table are older
    monkeypatch.setattr("sys.argv", ["generate.py"])
    assert generate.main() == 0
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generate.main() == 0


@pytest.mark.parametrize("name", notebooks())
def test_notebook_is_built_like_the_others(name):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    found = re.findall(r"^## (\w+)\b", text, re.MULTILINE)
    assert [word for word in found if word in HEADINGS] == HEADINGS
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)
    (install,) = [cell for cell in code if "pip install" in cell.source]
    assert install is code[0]
    assert install.metadata.tags == ["skip-execution"]
    first = code[1].source
    legacy = f'os.environ["TF_USE_LEGACY_KERAS"] = "{int(name != KERAS_3)}"'
    assert legacy in first
    if "import tensorflow" in first:
        assert first.index(legacy) < first.index("import tensorflow")
    check = text[text.index("\n## Check") :]
    assert re.search(r"^assert ", check, re.MULTILINE)


@pytest.fixture
def run_notebook(ml_100k, tmp_path, monkeypatch):
    """A function that runs a notebook in a fresh kernel and returns its code cells."""
    monkeypatch.setenv("TFRS_SELFATTN_FAST", "1")
    monkeypatch.setenv("TFRS_SELFATTN_DATA", str(ml_100k))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)  # the notebook sets it
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    work = tmp_path / "work"
    work.mkdir()

    def run_notebook(name):
        notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": os.fspath(work)}},
        )
        client.execute()
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code[1:])
        return code

    return run_notebook


@pytest.mark.parametrize("name", notebooks())
def test_notebook_runs(name, run_notebook):
    code = run_notebook(name)
    pictures = [
        output
        for cell in code
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert pictures


def test_the_notebook_of_servers_asks_a_server(run_notebook, tmp_path, monkeypatch):
    """By gRPC and REST, through a refresh and a rollback; the other run had none."""
    if not can_run():
        pytest.skip("needs a model server, or tensorflow-serving-api to stand in")
    if not STOCK:
        binary = tmp_path / "bin" / "tensorflow_model_server"
        binary.parent.mkdir()
        binary.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
        binary.chmod(0o755)
        monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    ports = ",".join(map(str, free_ports(2)))
    monkeypatch.setenv("MODEL_SERVER_PORTS", ports)
    code = run_notebook("05_tensorflow_serving")
    said = "".join(output.get("text", "") for c in code for output in c.outputs)
    assert "is not installed here" not in said
    assert f"POST http://localhost:{ports.split(',')[1]}/v1/models/films" in said
    assert "version 1:" in said and "version 2:" in said
