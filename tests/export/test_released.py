"""Exports of released versions are still loaded, answered and refreshed."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tfrs_selfattn import __version__
from tfrs_selfattn.export import NewItems, load_recommender, refresh_recommender

RELEASED = Path(__file__).with_name("released")
VERSIONS = sorted(path.stem for path in RELEASED.glob("*.json"))


def test_this_version_is_kept():
    assert __version__ in VERSIONS, "run python tests/export/released/make.py"


@pytest.mark.parametrize("version", VERSIONS)
def test_it_answers_as_it_did(version, tmp_path):
    with tarfile.open(RELEASED / f"{version}.tar.xz") as archive:
        # Python 3.12 warns without a filter, and 3.10.0 knows none.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safe)
    recommender = load_recommender(tmp_path)
    kept = json.loads((RELEASED / f"{version}.json").read_text(encoding="utf-8"))
    answers = recommender.recommend([case["history"] for case in kept])
    for case, answer in zip(kept, answers, strict=True):
        assert [item.id for item in answer] == [item for item, _ in case["answer"]]
        scores = [score for _, score in case["answer"]]
        assert [item.score for item in answer] == pytest.approx(scores, abs=1e-3)
    assert recommender.title("tea") == "Tea"
    items = NewItems([item for item in sorted(recommender.ids) if item != "oil"])
    done = refresh_recommender(tmp_path, items, verify=False)
    assert done.removed == ["oil"]
    refreshed = load_recommender(done.export.path)
    assert "oil" not in {
        i.id for row in refreshed.recommend([["tea"], []]) for i in row
    }


def test_the_kept_files_are_small():
    sizes = [path.stat().st_size for path in RELEASED.glob("*.tar.xz")]
    assert max(sizes) < 200_000
