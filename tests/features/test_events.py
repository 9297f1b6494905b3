"""Features of events: read from columns of a log, encoded once for all alike."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import build_sequences, events_from_frame
from tfrs_selfattn.features import (
    Category,
    FeatureEncoder,
    FeatureSet,
    MultiCategory,
    Number,
    Vector,
)
from tfrs_selfattn.features.columns import column_readers
from tfrs_selfattn.features.events import table_of_events


def draw_raw(count):
    draw = np.random.default_rng(0)
    prices = draw.choice([1, 2, np.nan], count).astype(np.float32)
    return {
        "kind": np.array(draw.choice([b"buy", b"look", b""], count), object),
        "price": prices,
        "vector": draw.choice([0.0, 1.0], [count, 2]).astype(np.float32),
    }


def test_events_that_are_alike_are_encoded_once_and_all_keep_their_own():
    raw = draw_raw(500)
    features = FeatureSet((Category("kind"), Number("price"), Vector("vector")))
    features = features.fit(raw, "here")
    table = table_of_events(features, raw)
    assert len(table.dense) <= 3 * 3 * 4
    assert len(table.thing_of) == 500
    found = table.at(np.arange(500))
    wanted = FeatureEncoder(features).rows(raw)
    np.testing.assert_array_equal(found["dense"], wanted.dense)
    for event in range(500):
        part = slice(wanted.splits[event], wanted.splits[event + 1])
        size = part.stop - part.start
        assert found["tokens"][event, :size].tolist() == wanted.tokens[part].tolist()
        assert found["weights"][event, :size].tolist() == wanted.weights[part].tolist()
        assert not found["weights"][event, size:].any()


def test_columns_are_read_in_the_order_of_the_events():
    log = pl.DataFrame(
        {
            "user_id": ["u", "v", "u", "u", "v"],
            "item_id": ["a", "a", "b", "c", "b"],
            "timestamp": [30, 10, 10, 20, 20],
            "kind": ["3", None, "1", "2", "5"],
            "price": [3.0, 4.0, 1.0, None, 5.0],
        }
    )
    features = FeatureSet((Category("kind"), Number("price")))
    sequences = build_sequences(
        events_from_frame(log), columns=column_readers(features, None)
    )
    assert sequences.columns["kind"].tolist() == [b"1", b"2", b"3", b"", b"5"]
    np.testing.assert_array_equal(sequences.columns["price"], [1, np.nan, 3, 4, 5])
    # What falls away, falls away with its columns.
    kept = build_sequences(
        events_from_frame(log), min_item_events=2, columns=column_readers(features)
    )
    assert kept.columns["kind"].tolist() == [b"1", b"3", b"", b"5"]


def test_repeated_texts_are_read_as_any_others():
    texts = pl.Series("tags", ["a|b", None, " b ", "a|b", "", "ünï|a"] * 3)
    for feature in (MultiCategory("tags"), Category("tags")):
        read = column_readers(FeatureSet((feature,)))["tags"]
        assert read(texts, "here").tolist() == feature.read(texts, "here").tolist()


@pytest.mark.parametrize(
    ("price", "message"),
    [
        (["1", "dear", "2"], r"column 'price' must hold finite.*'dear' in row 2"),
        ([1.0, 2.0, float("inf")], r"column 'price' must hold finite.*inf in row 3"),
    ],
)
def test_numbers_that_are_none_are_refused_with_the_column(price, message):
    log = pl.DataFrame(
        {"user_id": "u", "item_id": list("abc"), "timestamp": [1, 2, 3], "price": price}
    )
    readers = column_readers(FeatureSet((Number("price"),)))
    with pytest.raises(InputError, match=message):
        build_sequences(events_from_frame(log), columns=readers)


def test_a_column_that_is_absent_is_refused():
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    readers = column_readers(FeatureSet((Number("price"),)))
    with pytest.raises(InputError, match="must have the column 'price' of a feature"):
        build_sequences(events_from_frame(log), columns=readers)
