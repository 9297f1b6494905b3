"""A batch on two replicas is the batch on one: loss, gradients, training, metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest

# Which of the cuts of `replicas.FIRST`.
CUTS = {
    "halves": ("full_softmax", 0),
    "11 and 1": ("full_softmax", 1),
    "12 and 0": ("full_softmax", 2),
    **{
        name: (name, 0)
        for name in (
            *("in_batch_softmax", "in_batch_retrieval", "sampled_softmax", "gbce"),
            *("bce", "hstu", "bert4rec"),
        )
    },
}


@pytest.fixture(scope="module")
def seen(run_python):
    done = run_python("-m", "tests.models.replicas")
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("name", "cut"), CUTS.values(), ids=CUTS)
def test_loss_and_gradients(seen, name, cut):
    alone, replicas = seen[name]["alone"], seen[name]["replicas"][cut]
    assert len(alone) == len(replicas) > 10
    for one, two in zip(alone, replicas, strict=True):
        np.testing.assert_allclose(two, one, rtol=2e-5, atol=1e-6)
    assert max(np.abs(each).max() for each in alone[1:]) > 0.01


def test_negatives_of_the_replica_alone_are_others(seen):
    found = seen["in_batch_of_its_own"]
    alone, (replicas,) = found["alone"], found["replicas"]
    assert alone == seen["in_batch_softmax"]["alone"]
    assert abs(replicas[0] - alone[0]) > 0.01


def test_training_by_keras(seen):
    alone, replicas = seen["fit"]["alone"], seen["fit"]["replicas"]
    np.testing.assert_allclose(replicas["loss"], alone["loss"], rtol=1e-5)
    for one, two in zip(alone["weights"], replicas["weights"], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert alone["loss"][1] < alone["loss"][0]


def test_metrics(seen):
    alone, replicas = (seen["fit"][each]["metrics"] for each in ("alone", "replicas"))
    assert alone == pytest.approx(replicas, abs=1e-6)
    assert 0.0 < alone["ndcg@10"] < 1.0


def test_corpus_top_k_of_a_users_own_model(seen):
    """Training differs: `Retrieval` takes negatives of the replica alone."""
    alone, replicas = (seen["corpus_top_k"][each] for each in ("alone", "replicas"))
    assert replicas[0] == pytest.approx(alone[0], abs=1e-6)
    top = "factorized_top_k/top_10_categorical_accuracy"
    for before, after in (alone, replicas):
        assert 0.0 < before[top] < after[top] < 1.0
