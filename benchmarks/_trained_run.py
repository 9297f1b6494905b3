"""A trained run, with the events that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_run(run: Path) -> tuple[Any, Any, Any]:
    """The model, its vocabulary, and the test cases of leave-one-out."""
    # Keras reads the caller's choice of its version when it is imported.
    from tfrs_selfattn import data, training

    folder = training.RunFolder.open(run)
    about = folder.config.data
    events = data.read_events(
        Path(about.path),
        user_column=about.user_column,
        item_column=about.item_column,
        time_column=about.time_column,
    )
    log = data.build_sequences(events, min_item_events=about.min_item_events)
    model = training.load_model(folder)
    return model, log.vocabulary, data.leave_one_out(log).test
