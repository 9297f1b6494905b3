"""`export --shards`: what every part says of where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "notes.md"
    path.write_text("Ask **the cook** about these.\n")
    return path


def test_every_part_has_the_provenance_of_a_whole_export(cli, trained, notes, tmp_path):
    base = tmp_path / "parts"
    options = ("--shards", "2", "--k", "5", "--card-notes", notes, "--json")
    done = cli("export", trained, "--to", base, *options)
    assert done.status == 0, done.err
    result = done.json
    paths = [Path(path) for path in (result["query"], *result["shards"])]
    assert [path.parent.name for path in paths] == [
        "query",
        "shard-0-of-2",
        "shard-1-of-2",
    ]
    # Made now, since an export has the metrics that the run has at the time.
    whole = cli("export", trained, "--to", tmp_path / "whole", "--k", "5", "--json")
    folder = Path(whole.json["export"])
    expected = json.loads((folder / "assets.extra" / "recommender.json").read_text())
    for path in paths:
        found = json.loads((path / "assets.extra" / "recommender.json").read_text())
        assert found["source"] == expected["source"]
        assert found["metrics"] == expected["metrics"]
        card = (path / "assets.extra" / "model_card.md").read_text()
        assert card.rstrip().endswith("Ask **the cook** about these.")


def test_options_that_shards_do_not_take(refused, trained, tmp_path):
    words = ("export", trained, "--to", tmp_path / "parts", "--shards", "2")
    for option in ("--query-only", "--index-only", "--keep-seen"):
        assert "--shards must come without --query-only" in refused(*words, option)
