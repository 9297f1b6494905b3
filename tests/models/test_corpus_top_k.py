"""`CorpusTopK` in a TFRS model, beside `FactorizedTopK`: the same figures."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.models.two_towers import (
    TwoTowers,
    batches,
    with_corpus_top_k,
    with_factorized_top_k,
)
from tfrs_selfattn._keras import keras


@pytest.fixture
def rows():
    return batches()


def train_and_evaluate(make_metric, rows):
    keras.utils.set_random_seed(0)
    model = TwoTowers(make_metric)
    model.compile(keras.optimizers.Adagrad(0.5))
    # Twice: the corpus moves, and the second evaluation must see it where it is.
    before = model.evaluate(rows, return_dict=True, verbose=0)
    history = model.fit(rows, validation_data=rows, epochs=2, verbose=0).history
    return model, before, history


def test_the_same_figures_as_factorized_top_k(rows, tmp_path):
    _, *expected = train_and_evaluate(with_factorized_top_k, rows)
    model, *figures = train_and_evaluate(with_corpus_top_k, rows)
    for mine, theirs in zip(figures, expected, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5)
    before, history = figures
    accuracy = "factorized_top_k/top_10_categorical_accuracy"
    assert before[accuracy] < history[f"val_{accuracy}"][-1] < 1
    # It does not stand in the way of saving, with the metric in place.
    model.save_weights(str(tmp_path / "weights"))
    tf.saved_model.save(model.candidates, str(tmp_path / "candidates"))


def test_without_identifiers_it_says_what_to_do(rows):
    class Forgetful(TwoTowers):
        def compute_loss(self, inputs, training=False):
            return self.task(
                self.queries(inputs["user"]), self.candidates(inputs["item"])
            )

    model = Forgetful(with_corpus_top_k)
    model.compile()
    with pytest.raises(ValueError, match="Pass `candidate_ids=` to the Retrieval task"):
        model.evaluate(rows, verbose=0)
