"""Splits built from a few letters, for tests of evaluation."""

from __future__ import annotations

import polars as pl
import pytest

from tfrs_selfattn.data import build_sequences, leave_one_out
from tfrs_selfattn.data.events import events_from_frame


@pytest.fixture
def split_of():
    """A function from strings, a user each and a letter an event, to a `Split`."""

    def split_of(*histories):
        rows = [
            (f"user {user}", letter, time)
            for user, history in enumerate(histories)
            for time, letter in enumerate(history)
        ]
        frame = pl.DataFrame(
            rows, schema=["user_id", "item_id", "timestamp"], orient="row"
        )
        return leave_one_out(build_sequences(events_from_frame(frame)))

    return split_of
