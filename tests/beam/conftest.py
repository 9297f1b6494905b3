"""Pipelines run on Beam's DirectRunner, in this process."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_ignore_collect(collection_path, config):
    # Under Keras 3 exports cannot be written; Beam itself does not care.
    from tfrs_selfattn._keras import KERAS_3

    return True if KERAS_3 and collection_path.name.startswith("test_") else None


@pytest.fixture(autouse=True)
def beam():
    """Apache Beam, without which the tests are left out."""
    if importlib.util.find_spec("apache_beam") is None:
        pytest.skip('Apache Beam is missing: pip install -e ".[beam]"')
    import apache_beam

    return apache_beam
