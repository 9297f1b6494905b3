"""A tiny untrained model whose scores have no near ties, and what it must answer."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

N, WIDTH, K, MAX_LENGTH = 31, 8, 7, 10
# Not in order of popularity, with ties, and one item without an event.
COUNTS = np.array([(7 * j) % 13 for j in range(N)])
# What people call their items: a name, spaces, other scripts, quotes, a tab.
IDS = (*(f"item {j}" for j in range(N - 4)), "naïve ☕", "a\tb", 'say "x"', "0")
LOWEST = np.float32(np.finfo(np.float32).min)


def make_model(num_items=N, seed=0, preset="sasrec", **options):
    from tfrs_selfattn.models import presets
    from tfrs_selfattn.models.query_features import nothing_known

    tf.keras.utils.set_random_seed(seed)
    model = getattr(presets, preset)(
        num_items=num_items,
        embedding_dim=WIDTH,
        max_length=MAX_LENGTH,
        seed=seed,
        **options,
    )
    times = tf.zeros([1, 1], tf.int64)
    history = tf.zeros([1, 1], tf.int32)
    model.query_tower(
        history,
        timestamps=times,
        request_time=times[0],
        **nothing_known(model.query_tower, history),
    )
    draw = np.random.default_rng(seed)
    # Not the biases and scales of norms: they would drown what the history says.
    for weight in model.trainable_weights:
        if weight.shape.rank > 1:
            weight.assign(draw.normal(scale=0.5, size=weight.shape))
    return model


def make_vocabulary(ids=IDS, counts=COUNTS):
    from tfrs_selfattn.data import Vocabulary

    return Vocabulary(tuple(ids), np.asarray(counts))


def quick_export(base, **options):
    """Exports a tiny model without verifying it, unless told otherwise."""
    from tfrs_selfattn.export import export_recommender

    model = options.pop("model", None) or make_model()
    vocabulary = options.pop("vocabulary", None) or make_vocabulary()
    options = {"k": K, "verify": False, **options}
    return export_recommender(model, base, vocabulary=vocabulary, **options)


def top_k_oracle(scores, eligible, k):
    """The best k of [N] scores of the tiny model's items."""
    return top_k_of(IDS, scores, eligible, k)


def top_k_of(ids, scores, eligible, k):
    """The best k of [N] scores, one at a time: ids and scores, padded."""
    left = [j for j in range(len(scores)) if eligible(j)]
    answer = []
    while left and len(answer) < k:
        best = max(left, key=lambda j: (scores[j], -j))
        left.remove(best)
        answer.append((ids[best].encode(), scores[best]))
    answer += [(b"", LOWEST)] * (k - len(answer))
    return [name for name, _ in answer], [score for _, score in answer]


def answers_of(model):
    """A function from one history to its ids and scores, by plain loops."""

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
