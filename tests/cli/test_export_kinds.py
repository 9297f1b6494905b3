"""`export` in parts and with other indexes, and combinations that make no sense."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from tests.export.conftest import ask_in_this_process

RECOMMENDING = {"serving_default", "recommend_excluding", "recommend_among"}
RECOMMENDING |= {"tf_example", "explain"}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Verification without its process, which costs seconds; others have it."""
    from tfrs_selfattn.export import verification

    monkeypatch.setattr(verification, "ask", ask_in_this_process)


def options_alone(value):
    """The name of a case. Sets have none: their order changes with the process."""
    return " ".join(value) if isinstance(value, list) else ""


@pytest.mark.parametrize(
    ("options", "kind", "parts", "signatures"),
    [
        (["--query-only"], "exact", "query", {"embed_query"}),
        (["--index-only"], "exact", "index", {"embed_item", "search"}),
        (["--index", "partitioned"], "partitioned", "all", RECOMMENDING),
        (["--index", "partitioned", "--xla"], "partitioned", "all", RECOMMENDING),
        (
            ["--index", "partitioned", "--index-only"],
            "partitioned",
            "index",
            {"embed_item", "search"},
        ),
    ],
    ids=options_alone,
)
def test_kinds_of_exports(cli, trained, tmp_path, options, kind, parts, signatures):
    done = cli("export", trained, "--to", tmp_path, "--k", "5", "--json", *options)
    assert done.status == 0, done.err
    told, folder = done.json, Path(done.json["export"])
    assert (told["version"], told["k"], told["parts"]) == (1, 5, parts)
    from tfrs_selfattn.export import manifest

    contents = manifest.read(folder)
    assert contents["parts"] == parts
    assert contents["verified"] > 0
    if parts == "all":
        signatures = {*signatures, "embed_query", "embed_item"}
    assert set(contents["signatures"]) == signatures
    vectors = folder / "assets.extra" / "embeddings.parquet"
    assert vectors.exists() is (parts == "index")
    if parts == "index":
        frame = pl.read_parquet(vectors)
        assert frame["embedding"].list.len().unique().to_list() == [8]
        assert len(frame) == contents["items"]
    if parts != "query":
        assert (contents["index"]["kind"], told["index"]) == (kind, kind)
    # Whether the graph is compiled, tests/export sees, with more items than these.
    batching = (folder / "batching_params.pbtxt").read_text()
    assert ("allowed_batch_sizes" in batching) is ("--xla" in options)
    assert contents["index"]["settings"].get("xla", False) is ("--xla" in options)
    # How to ask it is said of what can be asked.
    assert ("Ask it" in done.err) is (parts == "all")
    if parts == "all" and kind == "partitioned":
        assert "of the right items, the index found" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--query-only", "--index-only"], "At most one of --query-only and --index-"),
        (["--xla"], "--xla must come with --index partitioned"),
        (["--xla", "--shards", "2"], "--xla must come with --index partitioned"),
        (["--index", "scann"], "--index must be one of exact, partitioned"),
        (["--index", "partitioned", "--query-only"], "which exports no items"),
        (["--keep-seen", "--query-only"], "--keep-seen must come without"),
        (["--keep-seen", "--index-only"], "--keep-seen must come without"),
        (["--k", "0"], "'--k'"),
    ],
    ids=options_alone,
)
def test_what_is_refused(refused, trained, tmp_path, options, message):
    line = refused("export", trained, "--to", tmp_path / "base", *options)
    assert re.search(message, line)
