"""Where an exported model comes from: what its manifest and its model card say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._clock import day, moment

if TYPE_CHECKING:
    from tfrs_selfattn.training import RunFolder

# Said elsewhere in the card, from the model itself.
_KNOWN_OTHERWISE = {"max_length", "time_aware", "embedding_dim"}


def facts_of(folder: RunFolder) -> dict[str, Any]:
    """What a run folder tells every kind of export, by argument."""
    metrics = folder.metrics()
    return {
        "vocabulary": folder.vocabulary(),
        "titles": folder.titles(),
        "metrics": {name: metrics.get(name) for name in ("validation", "test")},
        "source": source_of(folder),
    }


def source_of(folder: RunFolder) -> dict[str, Any]:
    """Data, settings and protocol of a run, as `export.manifest` names them."""
    config, metrics = folder.config, folder.metrics()
    events: dict[str, Any] = {"read from": Path(config.data.path).name}
    if config.summary is not None:
        events |= {
            "users": config.summary.users,
            "events": config.summary.events,
            "first event": day(config.summary.first),
            "last event": day(config.summary.last),
        }
    if config.data.min_item_events > 1:
        events["fewest events of an item"] = config.data.min_item_events
    settings = {
        name: value
        for name, value in dataclasses.asdict(config.model).items()
        if value is not None and name not in _KNOWN_OTHERWISE
    }
    training = config.training
    settings |= {
        "epochs": len(metrics.get("epochs", [])),
        "best epoch": metrics.get("best_epoch"),
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "schedule": training.schedule,
        "seed": training.seed,
    }
    return {
        "run": folder.path.name,
        "data": config.data.fingerprint,
        "events": events,
        "settings": settings,
        "protocol": _protocol(metrics.get("test"), config.data.times),
    }


def read_notes(path: Path) -> str:
    """The text that a model card ends with."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--card-notes must be a text file in UTF-8. Received: {path} ({error}). "
            "Name a file that can be read."
        ) from None


def _protocol(test: dict[str, Any] | None, times: tuple[int, int] | None) -> str:
    if times is None:
        split = (
            "Leave-one-out: the last event of each user is the test, the one before it "
            "the validation, which chose the epoch."
        )
    else:
        validation, tested = map(moment, times)
        split = (
            f"Split by the clock: events before {validation} were trained on. Each "
            f"user's first event from then on, before {tested}, is the validation, "
            f"which chose the epoch; the first one from {tested} on is the test."
        )
    text = f"{split} All items are ranked, and ties count against the model."
    if test is None:
        return f"{text} The test was not run before this export."
    seen = "left out" if test.get("filter_seen") else "kept in"
    return f"{text} Items of the history are {seen}; {test['users']:,} users tested."
