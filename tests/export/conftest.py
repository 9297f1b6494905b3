"""A tiny untrained model whose scores have no near ties, and one export of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.export.tiny import (
    COUNTS,
    IDS,
    LOWEST,
    MAX_LENGTH,
    WIDTH,
    K,
    N,
    answers_of,
    make_model,
    make_vocabulary,
    quick_export,
)
from tfrs_selfattn._keras import KERAS_3


def pytest_ignore_collect(collection_path, config):
    # Without TensorFlow Recommenders only the reading side can be imported.
    return True if KERAS_3 and collection_path.name.startswith("test_") else None


@pytest.fixture(scope="session")
def tiny():
    """The names above, for test modules."""
    return SimpleNamespace(
        N=N,
        WIDTH=WIDTH,
        K=K,
        MAX_LENGTH=MAX_LENGTH,
        IDS=IDS,
        COUNTS=COUNTS,
        LOWEST=LOWEST,
        make_model=make_model,
        make_vocabulary=make_vocabulary,
        export=quick_export,
        answers_in_text=answers_in_text,
    )


@pytest.fixture
def in_this_process(monkeypatch):
    """Verification without its process, which costs seconds; one test has it."""
    from tfrs_selfattn.export import verification

    monkeypatch.setattr(verification, "ask", ask_in_this_process)


def ask_in_this_process(folder, scratch, requests):
    signatures = tf.saved_model.load(str(folder)).signatures
    return list(answers_in_text(signatures, requests))


def answers_in_text(signatures, requests):
    """What `tfrs_selfattn.export.reload.ask` returns."""
    text = np.vectorize(bytes.decode, otypes=[object])
    for request in requests:
        tensors = {name: tf.constant(v) for name, v in request.inputs.items()}
        outputs = signatures[request.signature](**tensors)
        outputs = {name: value.numpy() for name, value in outputs.items()}
        if "ids" in outputs:
            outputs["ids"] = text(outputs["ids"])
        yield outputs


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def export(model, tmp_path_factory):
    """A verified export, with all that can come with it."""
    return quick_export(
        tmp_path_factory.mktemp("export") / "base",
        model=model,
        titles={IDS[0]: 'Zero, "the" first', "not an item": "nowhere"},
        metrics={"ndcg@10": 0.25},
        source={"run": "tiny"},
        verify=True,
    )


@pytest.fixture(scope="session")
def signatures(export):
    return tf.saved_model.load(str(export.path)).signatures


@pytest.fixture(scope="session")
def keep_seen_signatures(model, tmp_path_factory):
    export = quick_export(tmp_path_factory.mktemp("seen"), model=model, keep_seen=True)
    return tf.saved_model.load(str(export.path)).signatures


def matrix(rows, width=None, side="right"):
    """Lists of ids (text or bytes) as a string tensor, padded with "" on one side."""
    width = max([0, *map(len, rows)]) if width is None else width
    padded = [
        [*row, *[""] * (width - len(row))]
        if side == "right"
        else [*[""] * (width - len(row)), *row]
        for row in rows
    ]
    return tf.constant(padded, tf.string, shape=[len(rows), width])


@pytest.fixture(scope="session")
def strings():
    return matrix


@pytest.fixture(scope="session")
def expected(model):
    """The answer to one history, from the live model and by plain loops."""
    return answers_of(model)


@pytest.fixture
def cli_status(capsys):
    """A function that runs `tfrs-selfattn`; returns status, output and errors."""
    from tfrs_selfattn.cli.main import main

    def cli_status(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in words])
        return exit.value.code, *capsys.readouterr()

    return cli_status
