"""Writes the notebooks and the table of README.md from the `.py` files beside it.

    python examples/generate.py            # write
    python examples/generate.py --check    # write nothing; say what is out of date

A notebook's source is `NN_name.py` in the percent format of jupytext, which reads and
diffs well; `NN_name.ipynb` has the same cells, for Colab and Jupyter, without outputs.
Links to Colab and what it installs come from `REPOSITORY` alone: they are rewritten in
the sources too.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
REPOSITORY = "tfrs-selfattn/tfrs_selfattn"  # on GitHub, from where Colab reads

NAMES = (
    "01_from_tfrs_tutorial",
    "02_what_the_layer_computes",
    "03_sequential_recommender_done_right",
    "04_index_and_export",
    "05_tensorflow_serving",
    "06_why_this_film",
    "07_side_information_and_cold_start",
    "08_layers_in_a_keras_3_pipeline",
)

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_COLAB = re.compile(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/")
_INSTALL = re.compile(r"git\+https://github\.com/[\w.-]+/[\w.-]+")
_TITLE = re.compile(r"^# # (?:\d+\. )?(.+)$", re.MULTILINE)
# The table at the top of a notebook: | you learn | minutes | data |
_ABOUT = re.compile(
    r"^# \| you learn \| minutes \| data \|\n# \|[-|]+\|\n"
    r"# \| (?P<learn>.+) \| (?P<minutes>\d+) \| (?P<data>.+) \|$",
    re.MULTILINE,
)
_TABLE = re.compile(r"(?<=<!-- table -->\n).*(?=<!-- end of table -->)", re.DOTALL)


@dataclass(frozen=True)
class About:
    """What the top of a notebook says of it."""

    name: str
    title: str
    learn: str
    minutes: int
    data: str

    def row(self) -> str:
        """Its line in README.md."""
        number = self.name.partition("_")[0].lstrip("0")
        return (
            f"| {number} | [{self.title}]({self.name}.py) | {badge(self.name)} "
            f"| {self.learn} | {self.minutes} | {self.data} |\n"
        )


def badge(name: str) -> str:
    """A button that opens a notebook in Colab."""
    return (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"(https://colab.research.google.com/github/{REPOSITORY}/blob/main/examples/"
        f"{name}.ipynb)"
    )


def source_of(name: str) -> str:
    """The text that a `.py` file should have: its own, with this repository's links."""
    text = (HERE / f"{name}.py").read_text(encoding="utf-8")
    text = _COLAB.sub(f"colab.research.google.com/github/{REPOSITORY}/blob/", text)
    return _INSTALL.sub(f"git+https://github.com/{REPOSITORY}", text)


def about(name: str, source: str) -> About:
    """Reads the top of a notebook."""
    title, found = _TITLE.search(source), _ABOUT.search(source)
    if title is None or found is None or badge(name) not in source:
        raise SystemExit(
            f"{name}.py must begin with its badge, a title and the table of what one "
            "learns, minutes and data. One of them was not found. Begin it as "
            f"{NAMES[1]}.py does; its badge is {badge(name)}"
        )
    return About(name, title[1], found["learn"], int(found["minutes"]), found["data"])


def notebook_of(source: str) -> str:
    """The notebook of a source, always the same bytes."""
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL})
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"  # random otherwise
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def generated() -> dict[Path, str]:
    """Every file that this writes, with the text that it should have."""
    files, rows = {}, []
    for name in NAMES:
        if not (HERE / f"{name}.py").exists():
            continue
        source = source_of(name)
        files[HERE / f"{name}.py"] = source
        files[HERE / f"{name}.ipynb"] = notebook_of(source)
        rows.append(about(name, source).row())
    head = "| | notebook | | you learn | minutes | data |\n|---|---|---|---|---|---|\n"
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    files[readme] = _TABLE.sub(lambda _: head + "".join(rows), text)
    return files


def main() -> int:
    """Writes or compares; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in generated().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{'out of date' if check else 'written'}: {', '.join(stale)}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
