"""The how-to of vector databases: Qdrant's program finds what an exact index finds."""

from __future__ import annotations

import types

import polars as pl
import pytest
import tensorflow as tf

from tests.export.tiny import COUNTS, IDS, make_model
from tests.test_docs import DOCS, blocks_of
from tfrs_selfattn import client, data, index
from tfrs_selfattn.export import export_recommender

PAGE = DOCS / "how-to" / "vector-database.md"
PROGRAMS = [text for language, text in blocks_of(PAGE) if language == "python"]
HISTORY = [IDS[4], IDS[0]]


def test_the_page_asks_for_a_vector_and_two_databases_for_items():
    """What no test can run is Python at least."""
    assert len(PROGRAMS) == 5
    for text in PROGRAMS:
        compile(text, PAGE.name, "exec")


def test_qdrant_finds_what_an_exact_index_finds(tmp_path, monkeypatch):
    qdrant_client = pytest.importorskip("qdrant_client", reason="needs qdrant-client")
    model = make_model()
    vocabulary = data.Vocabulary(tuple(IDS), COUNTS)
    export_recommender(
        *(model, tmp_path / "models" / "items"),
        **{"vocabulary": vocabulary, "k": 5, "parts": "index", "verify": False},
    )
    rows = vocabulary.encode(HISTORY)
    (vector,) = model.query_tower(tf.constant([rows])).numpy().tolist()

    class Client:
        """The query model, without its server."""

        def __init__(self, address, model):
            assert (address, model) == ("localhost:8500", "query")

        __enter__ = __exit__ = lambda self, *_: self

        def embed_query(self, histories):
            assert histories == [HISTORY]
            return [types.SimpleNamespace(vector=vector)]

    memory = qdrant_client.QdrantClient(":memory:")
    monkeypatch.setattr(client, "Client", Client)
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda address: memory)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for text in PROGRAMS[:3]:
        text = text.replace('["50", "172", "181"]', repr(HISTORY))
        exec(compile(text, PAGE.name, "exec"), namespace)

    items = pl.read_parquet("models/items/1/assets.extra/embeddings.parquet")
    exact = index.ExactTopK(k=20).index(
        tf.constant(items["embedding"].to_list()), tf.constant(items["item_id"])
    )
    _, wanted = exact.query_with_exclusions(
        tf.constant([vector]), tf.constant([HISTORY])
    )
    assert namespace["ids"] == [item.decode() for item in wanted.numpy()[0]]
    assert len(namespace["ids"]) == 20
