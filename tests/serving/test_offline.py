"""What is served is what is evaluated: every user of MovieLens-100K."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.serving.conftest import needs_server
from tfrs_selfattn import data
from tfrs_selfattn.client import Client
from tfrs_selfattn.evaluation.ranking import target_ranks
from tfrs_selfattn.export import export_recommender
from tfrs_selfattn.models import presets

pytestmark = needs_server

K = 100
BATCH = 128


def test_answers_are_the_top_k_of_the_offline_evaluation(ml_100k, start, tmp_path):
    sequences = data.build_sequences(data.read_events(ml_100k))
    cases = data.leave_one_out(sequences).test
    vocabulary = sequences.vocabulary
    model = presets.sasrec(
        num_items=len(vocabulary), embedding_dim=16, max_length=50, seed=3
    )
    base = tmp_path / "base"
    export_recommender(model, base, vocabulary=vocabulary, k=K, verify=False)
    server = start({"recommender": base}).wait("recommender")
    score = tf.function(
        model.score, input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )
    placed = 0
    with Client(server.address, timeout=60.0) as client:
        for first in range(0, len(cases), BATCH):
            last = min(first + BATCH, len(cases))
            history = cases.padded_histories(first, last)
            targets = cases.targets[first:last]
            scores = score(tf.constant(history))
            ranks = target_ranks(scores, tf.constant(targets), tf.constant(history))
            answers = client.recommend([vocabulary.decode(row) for row in history])
            for row, answer in enumerate(answers):
                unseen = scores[row].numpy()
                unseen[history[row][history[row] > 0] - 1] = -np.inf
                best = np.sort(unseen)[::-1][:K]
                given = np.array([item.score for item in answer.items])
                np.testing.assert_allclose(given, best, rtol=1e-4, atol=1e-5)
                rows = vocabulary.encode(answer.ids) - 1
                np.testing.assert_allclose(unseen[rows], best, rtol=1e-4, atol=1e-5)
                # The rank of the evaluation is the place in the answer; the best has 1.
                target = vocabulary.decode([targets[row]])[0]
                rank = int(ranks[row]) - 1
                near = np.abs(best - unseen[targets[row] - 1]) < 1e-5
                if target in answer.ids and near.sum() == 1:
                    assert answer.ids.index(target) == rank
                    placed += 1
                elif target not in answer.ids:
                    assert rank >= K or near.any()
    assert len(cases) == 943
    assert placed > 40
