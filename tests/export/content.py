"""A tiny model that knows its items by features too."""

from __future__ import annotations

import numpy as np

from tests.export.tiny import IDS, make_model
from tfrs_selfattn.features import FeatureSet, FeatureTable, MultiCategory, Number

TASTES = (b"sweet", b"sour|salty", b"salty", b"", b"sweet|sour")
RAW = {
    "tastes": np.array([TASTES[j % 5] for j in range(len(IDS))], object),
    "price": np.array([j % 7 if j % 11 else np.nan for j in range(len(IDS))], "f4"),
}
FEATURES = FeatureSet((MultiCategory("tastes"), Number("price"))).fit(RAW, "here")


def content_model(**options):
    from tfrs_selfattn.models import ItemContent

    content = ItemContent.of(FEATURES, FeatureTable(list(IDS), RAW))
    return make_model(content=content, seed=2, **options)
