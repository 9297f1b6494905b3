"""Features of a request on the command line: `--feature`, `--event-feature`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.client.told import features_taken

if TYPE_CHECKING:
    from tfrs_selfattn.client import TensorSpec

FEATURE_HELP = (
    "What is known of the user or the request: NAME=VALUE, numbers of a vector between "
    "commas. Repeat it for each."
)
EVENT_FEATURE_HELP = (
    "What is known of the events of the history: NAME=VALUE,VALUE,… with one for each, "
    "empty where it is not known. Repeat it for each."
)


def parse_told(
    features: Sequence[str],
    event_features: Sequence[str],
    specs: Mapping[str, TensorSpec],
) -> dict[str, Any]:
    """The arguments of `recommend` and `explain`; none where no option was given.

    Args:
        features: the options `--feature`.
        event_features: the options `--event-feature`.
        specs: the inputs of the model, by name.
    """
    if not features and not event_features:
        return {}
    found: dict[str, dict[str, Any]] = {"features": {}, "event_features": {}}
    for option, texts, place in (
        ("--feature", features, "features"),
        ("--event-feature", event_features, "event_features"),
    ):
        of_events = place == "event_features"
        known = features_taken(specs, of_events=of_events)
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or name not in known:
                raise InputError(
                    f"{option} must be NAME=VALUE, of a name that the model takes: "
                    f"{', '.join(sorted(known)) or 'none'}. Received: {text!r}. "
                    "Correct it, or leave it out."
                )
            spec = known[name]
            if len(spec.shape) == 1:
                found[place][name] = [_value(option, spec, value)]
                continue
            row: list[str] = next(csv.reader([value], skipinitialspace=True), [])
            if of_events and not any(row) and len(row) < 2:
                continue  # nothing is told, of however many items
            found[place][name] = [[_value(option, spec, each) for each in row]]
    return found


def _value(option: str, spec: TensorSpec, text: str) -> Any:
    text = text.strip()
    if spec.dtype == "string":
        return text
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{option} must hold a number there. Received: {text!r}. Correct it, or "
            "leave it empty where it is not known."
        ) from None
