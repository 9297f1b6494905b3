"""The parts that promise to work under Keras 3 do, without TensorFlow Recommenders.

A process has one Keras, so the tests of those parts run once more in a process of
their own. What needs TensorFlow Recommenders gives one clear error there.
"""

from __future__ import annotations

import json

import pytest

# Only what imports Keras: `ops`, `data`, `features` and the rest of `evaluation` are
# the same code under either (`test_architecture.py`).
NEUTRAL = (
    "layers",
    "losses",
    "evaluation/test_metrics.py",
    "evaluation/test_corpus_top_k.py",
    "conformance",
)
NEEDS_LEGACY_KERAS = (
    "models",
    "training.build_model",
    "training.load_model",
    "training.train",
    "export.export_recommender",
    "index.ExactTopK",
)
WORKS_WITH_EITHER = ("training.RunFolder", "export.load_recommender")

RUN_TESTS = """
import sys, pytest, tensorflow as tf
status = pytest.main(sys.argv[1:])
print("Keras", tf.keras.version())
print("imported", sorted({"tensorflow_recommenders", "tf_keras"} & set(sys.modules)))
sys.exit(status)
"""

# Prints {name: error or ""} for `tfrs_selfattn.NAME` of each name given.
REACH = """
import importlib, json, sys

def reach(name):
    package, _, public = name.partition(".")
    try:
        module = importlib.import_module(f"tfrs_selfattn.{package}")
        getattr(module, public or "__all__")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

print(json.dumps({name: reach(name) for name in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def neutral_tests(run_python):
    paths = [f"tests/{name}" for name in NEUTRAL]
    options = ["-n0", "-m", "not legacy_keras", "-p", "no:cacheprovider"]
    arguments = ("-c", RUN_TESTS, *options, *paths)
    return run_python(*arguments, legacy_keras=False, timeout=1200)


def test_the_neutral_parts_pass_under_keras_3(neutral_tests):
    assert neutral_tests.returncode == 0, neutral_tests.stdout
    assert "\nKeras 3." in neutral_tests.stdout


def test_nothing_there_imports_legacy_keras(neutral_tests):
    assert "\nimported []\n" in neutral_tests.stdout


def test_what_needs_legacy_keras_says_so_and_only_that(run_python):
    names = (*NEEDS_LEGACY_KERAS, *WORKS_WITH_EITHER)
    done = run_python("-c", REACH, *names, legacy_keras=False)
    assert done.returncode == 0, done.stdout
    errors = json.loads(done.stdout.splitlines()[-1])
    for name in NEEDS_LEGACY_KERAS:
        assert errors[name].startswith("ImportError: `tfrs_selfattn."), name
        assert "TF_USE_LEGACY_KERAS=1" in errors[name]
        assert "restart" in errors[name]
    assert [errors[name] for name in WORKS_WITH_EITHER] == ["", ""]
