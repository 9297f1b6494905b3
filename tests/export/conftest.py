"""A tiny untrained model whose scores have no near ties, and one export of it."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn._keras import KERAS_3

N, WIDTH, K, MAX_LENGTH = 31, 8, 7, 10
# Not in order of popularity, with ties, and one item without an event.
COUNTS = np.array([(7 * j) % 13 for j in range(N)])
# What people call their items: a name, spaces, other scripts, quotes, a tab.
IDS = (*(f"item {j}" for j in range(N - 4)), "naïve ☕", "a\tb", 'say "x"', "0")
LOWEST = np.float32(np.finfo(np.float32).min)


def pytest_ignore_collect(collection_path, config):
    # Without TensorFlow Recommenders only the reading side can be imported.
    return True if KERAS_3 and collection_path.name.startswith("test_") else None


def make_model(num_items=N, seed=0):
    from tfrs_selfattn.models import presets

    tf.keras.utils.set_random_seed(seed)
    model = presets.sasrec(
        num_items=num_items, embedding_dim=WIDTH, max_length=MAX_LENGTH, seed=seed
    )
    model.query_tower(tf.zeros([1, 1], tf.int32))
    draw = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(draw.normal(scale=0.5, size=weight.shape))
    return model


def make_vocabulary(ids=IDS, counts=COUNTS):
    from tfrs_selfattn.data import Vocabulary

    return Vocabulary(tuple(ids), np.asarray(counts))


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


def quick_export(base, **options):
    """Exports a tiny model without verifying it, unless told otherwise."""
    from tfrs_selfattn.export import export_recommender

    model = options.pop("model", None) or make_model()
    vocabulary = options.pop("vocabulary", None) or make_vocabulary()
    options = {"k": K, "verify": False, **options}
    return export_recommender(model, base, vocabulary=vocabulary, **options)


@pytest.fixture
def in_this_process(monkeypatch):
    """Verification without its process, which costs seconds; one test has it."""
    from tfrs_selfattn.export import verification

    def ask(folder, scratch, requests):
        signatures = tf.saved_model.load(str(folder)).signatures
        return list(answers_in_text(signatures, requests))

    monkeypatch.setattr(verification, "ask", ask)


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


def top_k_oracle(scores, eligible, k):
    """The best k of [N] scores, one at a time: ids and scores, padded."""
    left = [j for j in range(len(scores)) if eligible(j)]
    answer = []
    while left and len(answer) < k:
        best = max(left, key=lambda j: (scores[j], -j))
        left.remove(best)
        answer.append((IDS[best].encode(), scores[best]))
    answer += [(b"", LOWEST)] * (k - len(answer))
    return [name for name, _ in answer], [score for _, score in answer]


@pytest.fixture(scope="session")
def expected(model):
    """The answer to one history, from the live model and by plain loops."""

    @functools.cache
    def score(known):
        if known:
            return model.score(tf.constant([known])).numpy()[0]
        events = [max(count, 0.5) / COUNTS.sum() for count in COUNTS]
        return np.log(events).astype(np.float32)

    def expected(history, exclude=(), among=None, keep_seen=False):
        scores = score(tuple(IDS.index(item) + 1 for item in history if item in IDS))
        hidden = set(exclude) if keep_seen else {*exclude, *history}

        def eligible(j):
            return IDS[j] not in hidden and (among is None or IDS[j] in among)

        return top_k_oracle(scores, eligible, K)

    return expected
