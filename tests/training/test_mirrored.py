"""A run on two replicas of one process is the run on one, resumed or not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.training.conftest import SMALL, variables, without_seconds
from tfrs_selfattn import training
from tfrs_selfattn.data import pack_rows

BATCH = 5


@pytest.fixture(scope="module")
def runs(split, make_run, run_python, tmp_path_factory):
    """The folders of all runs, by name, and after how many epochs each went on."""
    path = tmp_path_factory.mktemp("runs")
    # Dropout is each replica's own.
    options = {"epochs": 2, "batch_size": BATCH, "model": {"dropout": 0.0}}
    for name in ("alone", "replicas", "resumed"):
        make_run(path / name, **options)
    done = run_python("-m", "tests.training.mirrored", str(path))
    assert done.returncode == 0, done.stdout
    went_on = json.loads(done.stdout.splitlines()[-1])
    return {name: training.RunFolder.open(path / name) for name in went_on}, went_on


def assert_equal(one, two, **tolerance):
    """Compares metrics of every epoch, and weights and slots of the last."""
    first, second = (without_seconds(run.metrics())["epochs"] for run in (one, two))
    for mine, theirs in zip(first, second, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    mine, theirs = variables(one, "last"), variables(two, "last")
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        np.testing.assert_allclose(theirs[key], value, **tolerance, err_msg=key)


def test_two_replicas_learn_what_one_learns(runs, split):
    # Neither a batch, nor the last one, nor the cases fall into two equal parts.
    rows = len(pack_rows(split, row_length=SMALL["max_length"]))
    assert [each % 2 for each in (BATCH, rows % BATCH, len(split.validation))] == [
        1
    ] * 3
    folders, went_on = runs
    assert (went_on["alone"], went_on["replicas"]) == (0, 0)
    assert_equal(folders["alone"], folders["replicas"], rtol=1e-3, atol=1e-4)
    losses = [each["loss"] for each in folders["replicas"].metrics()["epochs"]]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ["resumed", "fewer"])
def test_stopped_it_goes_on_to_the_same_result(runs, name):
    folders, went_on = runs
    assert went_on[name] == 1
    assert_equal(folders["replicas"], folders[name], rtol=1e-3, atol=1e-4)
