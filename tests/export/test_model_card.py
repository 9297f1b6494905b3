"""The model card: of what it speaks, and that it says it of this version."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest

from tests.export.tiny import IDS, K, N, quick_export
from tests.export.told import told_model
from tfrs_selfattn.export import manifest, read_new_items, refresh_recommender
from tfrs_selfattn.export.model_card import FILE, model_card
from tfrs_selfattn.features import FeatureSet, MultiCategory

SECTIONS = ("Intended use", "Model", "Data", "Protocol and metrics", "Limits")
ABOUT = {
    "metrics": {
        "validation": {"ndcg@10": 0.25, "hr@10": 0.5},
        "test": {
            "metrics": {"popularity": {"hr@10": 0.125}, "model": {"hr@10": 0.4375}},
            "users": 12,
            "filter_seen": True,
        },
    },
    "source": {
        "run": "tiny|run",
        "data": "abc",
        "events": {"users": 12, "last event": "2000-01-02"},
        "settings": {"preset": "sasrec", "seed": 0},
        "protocol": "Leave-one-out.",
    },
    "notes": "Owner: the shop.\n\n- a list",
}


def card_of(export):
    return (export.path / "assets.extra" / FILE).read_text(encoding="utf-8")


def sections_of(card):
    parts = re.split(r"^## (.*)$", card, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("card") / "base"
    quick_export(base, titles={IDS[0]: "Zero"}, **ABOUT)
    return base


def test_a_card_says_what_the_exporter_said(base):
    card = (base / "1" / "assets.extra" / FILE).read_text(encoding="utf-8")
    assert card.startswith("# Model card: ")
    assert ", version 1\n" in card
    sections = sections_of(card)
    assert tuple(sections) == (*SECTIONS, "Notes")
    assert f"Ranks {N} items" in sections["Intended use"]
    assert f"with the {K} that it expects" in sections["Intended use"]
    for row in ("| preset | sasrec |", "| seed | 0 |", "| training run | tiny\\|run |"):
        assert row in sections["Model"]
    for row in ("| users | 12 |", "| last event | 2000-01-02 |"):
        assert row in sections["Data"]
    metrics = sections["Protocol and metrics"]
    assert metrics.strip().startswith("Leave-one-out.")
    assert "|  | ndcg@10 | hr@10 |" not in metrics  # of unlike tables none is made
    for row in (
        "| ndcg@10 | 0.25 |",
        "|  | hr@10 |",
        "| popularity | 0.125 |",
        "| model | 0.4375 |",
        "| filter_seen | yes |",
    ):
        assert row in metrics
    assert "after 2000-01-02" in sections["Limits"]
    assert "not compared with the trained model's" in sections["Limits"]
    assert sections["Notes"].strip() == ABOUT["notes"]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(base):
    card = (base / "1" / "assets.extra" / FILE).read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", card, flags=re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        rows = table.replace("\\|", "").splitlines()
        assert {row.count("|") for row in rows} == {rows[0].count("|")}


def test_a_refresh_carries_the_card_on(base, tmp_path):
    listed = tmp_path / "items.csv"
    pl.DataFrame({"item_id": list(IDS[:-1])}).write_csv(listed)
    done = refresh_recommender(base, read_new_items(listed), verify=False)
    sections = sections_of(card_of(done.export))
    assert f"Ranks {N - 1} items" in sections["Intended use"]
    assert "version 1 was refreshed into this one" in sections["Protocol and metrics"]
    assert "| model | 0.4375 |" in sections["Protocol and metrics"]
    assert "| preset | sasrec |" in sections["Model"]
    assert sections["Notes"].strip() == ABOUT["notes"]


@pytest.mark.parametrize(
    ("parts", "use", "absent"),
    [
        ("query", "into a vector", "A new item"),
        ("index", "for a vector of the query tower", "Ids that it does not know"),
    ],
)
def test_parts_have_cards_of_their_own(tmp_path, parts, use, absent):
    sections = sections_of(card_of(quick_export(tmp_path / parts, parts=parts)))
    assert use in sections["Intended use"]
    assert absent not in sections["Limits"]
    # What nobody said is called unsaid.
    assert "Metrics: not stated" in sections["Protocol and metrics"]
    assert "trained on: not stated" in sections["Data"]


def test_a_card_is_made_of_the_manifest_alone(base):
    export = quick_export(base, **ABOUT)
    assert card_of(export) == model_card(export.manifest)
    partitioned = {"kind": "partitioned", "recall": 0.987}
    searched = model_card({**export.manifest, "index": partitioned, "verified": 3})
    assert "| index | partitioned; finds 98.7% of the exact answers |" in searched
    assert "may miss the best" in searched
    assert "not compared with the trained model's" not in searched
    for odd in (0.5, [0.5, 1], {"a": {"b": {"c": 1}}, "d": [1]}):
        assert "## Limits" in model_card({**export.manifest, "metrics": odd})


def test_a_card_says_what_is_known_beside_ids(base, tmp_path):
    plain = sections_of((base / "1" / "assets.extra" / FILE).read_text("utf-8"))
    assert "| knows items by | id |" in plain["Model"]
    assert "knows users" not in plain["Model"] and "knows events" not in plain["Model"]
    assert "everybody is answered alike, with the most popular" in plain["Limits"]

    sections = sections_of(card_of(quick_export(tmp_path / "told", model=told_model())))
    assert "| knows users and requests by | country, taste |" in sections["Model"]
    assert "| knows events of a history by | kind, price |" in sections["Model"]
    limits = sections["Limits"]
    assert "answers by what is told of the user and the request, and with" in limits
    assert "everybody is answered alike" not in limits

    genres = FeatureSet((MultiCategory("genres", min_count=1),))
    genres = genres.fit({"genres": np.array([b"a|b"], object)}, "here").to_config()
    contents = {**manifest.read(base / "1"), "features": {"items": genres}}
    sections = sections_of(model_card(contents))
    assert "| knows items by | id, genres |" in sections["Model"]
    assert "known by its features alone" in sections["Limits"]
