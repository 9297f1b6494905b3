"""Imports go one way: the picture of ARCHITECTURE.md, checked on every module.

Reads the syntax trees, so that an import inside a function, under `TYPE_CHECKING` or
through `importlib` counts like any other.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "tfrs_selfattn"

# What each part may import besides itself and FOUNDATION.
FOUNDATION = {"_checks", "_keras", "_lazy", "_locks", "_version"}
MAY_IMPORT = {
    "client": set(),
    "ops": set(),
    "data": {"ops"},
    "evaluation": {"ops", "data"},
    "layers": {"ops"},
    "losses": {"ops", "layers"},
    "explain": {"ops"},
    "index": {"ops"},
    "features": {"data"},
    "models": {"ops", "layers", "losses", "evaluation", "features"},
    "training": {
        "ops",
        "layers",
        "losses",
        "models",
        "data",
        "evaluation",
        "features",
        "explain",
    },
    "export": {
        "ops",
        "layers",
        "losses",
        "models",
        "data",
        "index",
        "client",
        "features",
        "explain",
    },
}
MAY_IMPORT["beam"] = {"data", "export"}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = set()

# Parts that work under Keras 3, where TensorFlow Recommenders cannot be imported.
KERAS_NEUTRAL = {
    "ops",
    "data",
    "evaluation",
    "explain",
    "features",
    "layers",
    "losses",
}

SOURCES = sorted((REPOSITORY / PACKAGE).rglob("*.py"))
CLIENTS = sorted(
    path
    for folder in ("examples", "serving")
    for path in (REPOSITORY / folder).rglob("*.py")
)


def part_of(path):
    """`layers` for tfrs_selfattn/layers/pooling.py, `_keras` for the file itself."""
    return path.relative_to(REPOSITORY / PACKAGE).with_suffix("").parts[0]


def imports_of(path):
    """Dotted names that a module imports; `from a import b` gives `a.b`."""
    package = path.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            name = node.args[0]
            # Names made at run time are `_lazy`'s, whose tables stay in their package.
            if isinstance(name, ast.Constant):
                yield name.value


def imported_libraries(path):
    return {name.split(".")[0] for name in imports_of(path)}


def imported_parts(path):
    names = (name.split(".") for name in imports_of(path))
    return {name[1] for name in names if name[0] == PACKAGE and len(name) > 1}


def may_import(part):
    if part in FOUNDATION:
        return FOUNDATION
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    return MAY_IMPORT[part] | FOUNDATION | {part}


def test_there_is_something_to_check():
    assert {part_of(path) for path in SOURCES} >= {"ops", "layers", "data", "models"}


def test_imports_go_one_way():
    # Names of the package's top that are no module, `InputError` say, are harmless.
    parts = set(MAY_IMPORT) | FOUNDATION
    wrong = {
        str(path): beyond
        for path in SOURCES
        if (beyond := imported_parts(path) & parts - may_import(part_of(path)))
    }
    assert not wrong


def modules_where(rule):
    return [str(path.relative_to(REPOSITORY)) for path in SOURCES if rule(path)]


def test_keras_comes_from_one_place():
    assert not modules_where(
        lambda path: (
            part_of(path) != "_keras"
            and imported_libraries(path) & {"keras", "tf_keras"}
        )
    )


def test_what_works_under_keras_3_imports_no_tensorflow_recommenders():
    assert not modules_where(
        lambda path: (
            part_of(path) in KERAS_NEUTRAL | FOUNDATION
            and "tensorflow_recommenders" in imported_libraries(path)
        )
    )


def test_what_is_not_tested_under_keras_3_knows_no_keras():
    """`test_keras3.py` leaves out the tests of these parts."""
    same_code = KERAS_NEUTRAL - {"layers", "losses"}
    with_keras = {"evaluation/metrics.py", "evaluation/corpus_top_k.py"}
    found = modules_where(
        lambda path: (
            part_of(path) in same_code
            and ("_keras" in imported_parts(path) or "tf.keras" in path.read_text())
        )
    )
    assert {name.removeprefix(f"{PACKAGE}/") for name in found} <= with_keras


def test_data_imports_no_tensorflow_but_for_its_pipelines():
    assert not modules_where(
        lambda path: (
            part_of(path) == "data"
            and path.name not in ("pipelines.py", "_shuffling.py", "cutting.py")
            and {"tensorflow", "_keras"}
            & (imported_libraries(path) | imported_parts(path))
        )
    )


def private_names(path):
    """What a client of the package takes from it without its being public."""
    top = importlib.import_module(PACKAGE)
    for name in imports_of(path):
        library, *rest = name.split(".")
        if library != PACKAGE or not rest:
            continue
        if rest[0] not in top.__all__:
            yield name
        elif len(rest) > 1:
            package = importlib.import_module(f"{PACKAGE}.{rest[0]}")
            if rest[1] not in package.__all__:
                yield name
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and (
            ast.unparse(node).startswith(f"{PACKAGE}.")
            and node.attr.startswith("_")
            and node.attr != "__version__"
        ):
            yield ast.unparse(node)


def test_examples_and_serving_use_public_names_only():
    wrong = {str(path): names for path in CLIENTS if (names := [*private_names(path)])}
    assert not wrong


def test_importing_the_package_and_data_does_not_import_tensorflow(run_python):
    program = """
import sys
import tfrs_selfattn
from tfrs_selfattn import data
for name in data.__all__:
    if data._EXPORTS[name] not in ("pipelines", "cutting"):
        getattr(data, name)
dir(tfrs_selfattn), tfrs_selfattn.__version__
print(sorted({"keras", "tensorflow", "tf_keras"} & set(sys.modules)))
"""
    done = run_python("-c", program)
    assert (done.returncode, done.stdout) == (0, "[]\n")
