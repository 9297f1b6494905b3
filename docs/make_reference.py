"""Writes `docs/reference/*.md`: every public name, by the module that defines it.

    python docs/make_reference.py

Packages resolve their names on first use, which a reader of the source cannot follow.
`tests/test_docs.py` compares the pages with what this makes.
"""

from __future__ import annotations

import ast
from pathlib import Path

PAGES = Path(__file__).parent / "reference"
SOURCES = Path(__file__).parents[1] / "tfrs_selfattn"
PACKAGES = (
    *("layers", "losses", "models", "data", "features", "evaluation", "training"),
    *("index", "export", "explain", "client", "ops"),
)


# Classes with methods that stand in a private base.
INHERITING = {"index"}


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {file_of(name): page(name) for name in PACKAGES}


def file_of(name: str) -> str:
    return "index-layers.md" if name == "index" else f"{name}.md"


def page(name: str) -> str:
    # Read, not imported: some packages refuse to load under Keras 3.
    tree = ast.parse((SOURCES / name / "__init__.py").read_text(encoding="utf-8"))
    title, _, rest = (ast.get_docstring(tree) or "").partition("\n")
    (exports,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_EXPORTS"
    )
    lines = [f"# {name}", "", title, *rest.rstrip().splitlines()]
    for public, module in sorted(exports.items()):
        path = f"tfrs_selfattn.{name}.{module}"
        # A module may be public itself, such as `presets`.
        lines += ["", f"::: {path}" + ("" if module == public else f".{public}")]
        if name in INHERITING:
            lines += ["    options:", "      inherited_members: true"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for file, text in pages().items():
        (PAGES / file).write_text(text, encoding="utf-8")
