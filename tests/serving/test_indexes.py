"""Approximate indexes behind a server, with XLA and without."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.export.tiny import K, make_model, make_vocabulary, quick_export
from tests.serving import model_server
from tests.serving.conftest import needs_server
from tfrs_selfattn.client import Client, RestClient
from tfrs_selfattn.index import PartitionedTopK

pytestmark = needs_server

MANY = 400
NAMES = [f"{j}" for j in range(MANY)]
HISTORIES = [["3", "5"], [], ["nothing"], ["7", "", "150", "8"]]
EXCLUDED = [NAMES[:150], ["399"], [], NAMES[:390]]


@pytest.fixture(scope="module")
def model():
    return make_model(MANY)


@pytest.fixture(scope="module")
def bases(model, tmp_path_factory):
    """Partitioned indexes that look into most of their leaves."""
    folder = tmp_path_factory.mktemp("indexes")
    settings = {"num_leaves": 20, "num_leaves_to_search": 15}
    whole = {"quantization": "int8", "num_reordering_candidates": 100}
    indexes = {
        "partitioned": PartitionedTopK(**settings),
        "xla": PartitionedTopK(xla=True, **whole, **settings),
    }
    for name, index in indexes.items():
        vocabulary = make_vocabulary(NAMES, np.arange(MANY))
        quick_export(folder / name, model=model, vocabulary=vocabulary, index=index)
    return {name: folder / name for name in indexes}


@pytest.fixture(scope="module")
def server(bases, start):
    return start(bases, xla_cpu_compilation_enabled="true").wait(*bases)


@pytest.mark.parametrize("name", ["partitioned", "xla"])
@pytest.mark.parametrize("kind", [Client, RestClient])
def test_a_partitioned_index_answers_behind_a_server(server, model, name, kind):
    address = server.address if kind is Client else server.rest_address
    with kind(address, model=name, timeout=60) as client:
        answers = client.recommend(HISTORIES, exclude=EXCLUDED)
        among = client.recommend(HISTORIES[:1], among=[NAMES[:30]])
    found = 0
    for history, excluded, answer in zip(HISTORIES, EXCLUDED, answers, strict=True):
        known = [NAMES.index(item) + 1 for item in history if item in NAMES]
        scores = np.arange(MANY, dtype=np.float32)  # the most popular ones
        if known:
            scores = model.score(tf.constant([known])).numpy()[0]
        left = [NAMES[j] for j in np.argsort(-scores)]
        left = [item for item in left if item not in (*history, *excluded)]
        places = [left.index(item) for item in answer.ids]
        assert places == sorted(places)
        assert len(places) == min(K, len(left))
        found += len(set(answer.ids) & set(left[:K]))
    assert found >= 0.8 * K * len(HISTORIES)
    assert len(among[0].ids) == K
    assert set(among[0].ids) <= set(NAMES[:30]) - set(HISTORIES[0])


def test_an_xla_export_does_not_load_without_the_flag(bases, start):
    """It would load and then fail, but for its warm-up."""
    graph = (bases["xla"] / "1" / "saved_model.pb").read_bytes()
    assert b"_XlaMustCompile" in graph
    server = start({"xla": bases["xla"]})
    assert server.process.wait(timeout=model_server.START_SECONDS) != 0
    assert "XLA compilation disabled" in server.log.read_text()
