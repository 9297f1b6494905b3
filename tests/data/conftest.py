"""Small generated logs and files; the real data is the fixture `ml_100k`."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tfrs_selfattn import data


def pytest_configure(config):
    config.addinivalue_line("markers", "network: needs the user's package index")


@pytest.fixture(scope="session")
def generated() -> pl.DataFrame:
    """A log of 200 users whose histories have 1 to about 50 events."""
    return data.generate_events(200, 37, 7.0, seed=3)


@pytest.fixture(scope="session")
def sequences(generated) -> data.Sequences:
    return data.build_sequences(data.events_from_frame(generated))


@pytest.fixture(scope="session")
def split(sequences) -> data.Split:
    return data.leave_one_out(sequences)


@pytest.fixture
def write(tmp_path):
    """Writes a text file and returns its path."""

    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
