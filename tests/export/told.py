"""A tiny model that is told of users and events, and what there is to tell."""

from __future__ import annotations

import math

import numpy as np

from tests.export.tiny import make_model
from tfrs_selfattn.features import Category, FeatureSet, Number, Vector

QUERY_RAW = {
    "country": np.array([b"it", b"fr", b"it", b"fr", b""], object),
    "taste": np.array([[1, 0], [0, 1], [1, 1], [0, 0], [2, 1]], np.float32),
}
EVENT_RAW = {
    "kind": np.array([b"buy", b"look", b"buy", b"look", b""], object),
    "price": np.array([1, 2, 3, math.nan, 5], np.float32),
}
HISTORIES = [["item 3", "item 14", "item 9"], [], ["item 7"]]
FEATURES = {"country": ["it", "fr", None], "taste": [None, [0, 3], (1.0, 1.0)]}
EVENTS = {
    "kind": [["buy", None, "look"], [], ["buy"]],
    "price": [[1, 5, None], [], [2]],
}


def told_model():
    query = FeatureSet((Category("country"), Vector("taste")))
    events = FeatureSet((Category("kind"), Number("price")))
    return make_model(
        query_features=query.fit(QUERY_RAW, "here"),
        event_features=events.fit(EVENT_RAW, "here"),
        seed=5,
    )
