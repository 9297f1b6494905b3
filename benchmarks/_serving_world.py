"""What the serving benchmarks serve: exports of random or of trained towers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._trained_run import read_run

LENGTH, K = 50, 100
HISTORIES = 64
# How far items beside the trained ones lie from them, as a share of their length.
BESIDE = 0.5


@dataclass
class World:
    """Towers, the items that they rank, and what is asked about.

    Args:
        model: `SequenceRetrieval`.
        known: list of ids that its towers know, in their order.
        ids: list of N ids, those that are known first.
        candidates: float32 `[N, D]`.
        histories: list of lists of LENGTH known ids.
    """

    model: Any
    known: list
    ids: list
    candidates: Any
    histories: list


def random_histories(ids, seed=0):
    """Histories of popular items: ids come in the order of popularity."""
    draw = random.Random(seed)
    return [draw.sample(ids[:2000], LENGTH) for _ in range(HISTORIES)]


def synthetic_world(size, width):
    ids = [f"item-{number}" for number in range(size)]
    model = make_model(size, width)
    candidates = model.candidate_tower.catalogue().numpy()
    return World(model, ids, ids, candidates, random_histories(ids))


def trained_world(run, size):
    """The towers of a run; items beyond its own lie near a random one of them."""
    model, vocabulary, test = read_run(run)
    pasts = [vocabulary.decode(row) for row in test.padded_histories(0, len(test))]
    pasts = [[item for item in past if item][-LENGTH:] for past in pasts]
    whole = [past for past in pasts if len(past) == LENGTH]
    known = list(vocabulary.ids)
    if len(whole) < HISTORIES:  # a log of short histories: fill them up
        whole = [(past + random_histories(known)[0])[:LENGTH] for past in pasts]
    draw = np.random.default_rng(0)
    chosen = draw.choice(len(whole), HISTORIES, replace=False)
    candidates = model.candidate_tower.catalogue().numpy()
    more = max(size - len(known), 0)
    near = candidates[draw.integers(len(known), size=more)]
    lengths = np.linalg.norm(near, axis=1, keepdims=True)
    noise = draw.standard_normal(near.shape, np.float32)
    near += BESIDE * lengths * noise / near.shape[1] ** 0.5
    near *= lengths / np.linalg.norm(near, axis=1, keepdims=True)
    return World(
        model,
        known,
        [*known, *(f"beside-{number}" for number in range(more))],
        np.concatenate([candidates, near]),
        [whole[place] for place in chosen],
    )


def make_model(size, width, seed=0):
    import tensorflow as tf

    from tfrs_selfattn.models import presets

    tf.keras.utils.set_random_seed(seed)  # exports made apart have one tower
    model = presets.sasrec(
        num_items=size, embedding_dim=width, max_length=LENGTH, seed=seed
    )
    draw = np.random.default_rng(seed)
    centers = draw.standard_normal([int(size**0.5), width], np.float32)
    table = draw.standard_normal([size + 1, width], np.float32)
    table *= 0.5
    table += centers[draw.integers(len(centers), size=size + 1)]
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    model.query_tower(tf.zeros([1, 1], tf.int32))
    model.query_tower.item_embedding.embeddings.assign(table)
    return model


def export_ours(world, base, index):
    from tfrs_selfattn.data import Vocabulary
    from tfrs_selfattn.export import NewItems, export_recommender, refresh_recommender

    known = len(world.known)
    index, _, xla = index.partition(" ")
    done = export_recommender(
        world.model,
        base,
        vocabulary=Vocabulary(tuple(world.known), np.arange(known, 0, -1)),
        k=K,
        index=index,
        xla=bool(xla),
        verify=False,
    )
    if len(world.ids) > known:
        vectors = [*[None] * known, *world.candidates[known:]]
        items = NewItems(world.ids, embeddings=vectors)
        done = refresh_recommender(base, items, prune=1, verify=False).export
    return done.path


def export_brute_force(world, base):
    """The same tower and candidates, as a user of TFRS would export them."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    vocabulary = base.parent / "ids.txt"
    vocabulary.write_text("".join(f"{item}\n" for item in world.known))
    brute = tfrs.layers.factorized_top_k.BruteForce(k=K)
    brute.index(tf.constant(world.candidates), tf.constant(world.ids))
    module = tf.Module()
    module.brute, module.tower = brute, world.model.query_tower
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        -1,
    )

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string, "history")])
    def serve(history):
        rows = tf.cast(module.table.lookup(history) + 1, tf.int32)
        scores, found = brute(module.tower(rows, training=False))
        return {"ids": found, "scores": scores}

    path = base / "1"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path


def newest(base):
    """The highest version in a folder, or None."""
    found = [path for path in base.glob("*") if path.name.isdecimal()]
    return max(found, key=lambda path: int(path.name), default=None)
