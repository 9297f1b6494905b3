"""What a request tells beside its histories: of users, of itself, and of events.

Not known is `""` for text, NaN for a number and zeros for a vector; here `None` stands
for each of them, and so does a feature that is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.client.answers import TensorSpec
from tfrs_selfattn.client.tensors import Tensor

# Inputs of signatures that are no features.
_OTHERS = {"history", "timestamps", "request_time", "exclude", "candidates", "item"}


@dataclass(frozen=True)
class Told:
    """Checked values: bytes, floats, lists of floats for a vector, None.

    Args:
        lengths: list of B int. Items of each history.
        features: by name, a value for each history.
        events: by name, a list for each history with a value for each of its items.
    """

    lengths: list[int]
    features: dict[str, list[Any]]
    events: dict[str, list[list[Any]]]

    def of(self, row: int) -> tuple[dict[str, list[bytes]], dict[str, list[float]]]:
        """Lists of bytes and of floats for a tf.Example, without what is not known."""
        texts: dict[str, list[bytes]] = {}
        numbers: dict[str, list[float]] = {}
        for name, values in self.features.items():
            value = values[row]
            if isinstance(value, bytes):
                texts[name] = [value]
            elif value is not None:
                numbers[name] = value if isinstance(value, list) else [value]
        for name, lists in self.events.items():
            known = [value for value in lists[row] if value is not None]
            if known and isinstance(known[0], bytes):
                texts[name] = [b"" if v is None else v for v in lists[row]]
            elif known:
                numbers[name] = [math.nan if v is None else v for v in lists[row]]
        return texts, numbers

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """Checks that a signature takes what is told.

        Args:
            specs: inputs of the signature.

        Raises:
            InputError: when it does not take a feature, or one of another kind.
        """
        for argument, given, of_events in (
            ("features", self.features, False),
            ("event_features", self.events, True),
        ):
            taken = features_taken(specs, of_events=of_events)
            for name, values in given.items():
                if name not in taken:
                    names = ", ".join(sorted(taken)) or "none"
                    raise InputError(
                        f"`{argument}` must be among {names}, which the model takes. "
                        f"Received: {name!r}. Leave it out, or correct the name."
                    )
                each = [v for row in values for v in row] if of_events else values
                for value in each:
                    _check(name, taken[name], value)

    def tensors(
        self, specs: Mapping[str, TensorSpec], *, width: int, before: int = 0
    ) -> dict[str, Tensor]:
        """A tensor for each feature that a signature takes, told or not.

        Args:
            specs: inputs of the signature; those that are no features are left out.
            width: int. Columns of the histories.
            before: int. Columns of padding before the first item. Defaults to `0`.

        Raises:
            InputError: as `check`.
        """
        self.check(specs)
        return {
            name: self._tensor(name, spec, width, before)
            for name, spec in _features(specs).items()
        }

    def _tensor(self, name: str, spec: TensorSpec, width: int, before: int) -> Tensor:
        count = len(self.lengths)
        values: list[Any] = []
        if _of_event(spec):
            for row in self.events.get(name, [[]] * count):
                after = width - before - len(row)
                values += [None] * before + list(row) + [None] * after
            return _filled(spec, (count, width), values)
        values = list(self.features.get(name, [None] * count))
        if len(spec.shape) == 1:
            return _filled(spec, (count,), values)
        size = spec.shape[1] or 0
        each = [[0.0] * size if vector is None else vector for vector in values]
        return _filled(spec, (count, size), [number for row in each for number in row])


def told_of(
    histories: Sequence[Sequence[Any]],
    features: Mapping[str, Sequence[Any]] | None,
    event_features: Mapping[str, Sequence[Sequence[Any]]] | None,
    *,
    of: str = "history",
) -> Told | None:
    """Checked values; None when no argument was given.

    Args:
        histories: list of B lists.
        features: by name, a value for each history: str, number, list of numbers, or
            None where it is not known.
        event_features: by name, a list for each history with a value for each item.
        of: str. What `features` are of, for messages. Defaults to `"history"`.

    Raises:
        InputError: when there are more or fewer values, or of another kind.
    """
    if features is None and event_features is None:
        return None
    lengths = [len(row) for row in histories]
    mine = {name: list(values) for name, values in _named("features", features)}
    for name, values in mine.items():
        if len(values) != len(lengths):
            raise InputError(
                f"`features` must hold a value of {name!r} for each {of}. Received: "
                f"{len(values)} for {len(lengths)}. Use None where it is not known."
            )
    events = {}
    for name, lists in _named("event_features", event_features):
        found = [len(row) for row in lists]
        if found != lengths:
            raise InputError(
                f"`event_features` must hold a value of {name!r} for each item of each "
                f"history. Received: {found} values for {lengths} items. Use None "
                "where it is not known."
            )
        events[name] = [[_checked(name, value) for value in row] for row in lists]
    return Told(
        lengths,
        {
            name: [_checked(name, each, True) for each in row]
            for name, row in mine.items()
        },
        events,
    )


def takes_features(specs: Mapping[str, TensorSpec] | None) -> bool:
    """Whether a signature has inputs that must be filled where nothing is told."""
    return bool(_features(specs or {}))


def nothing_told(histories: Sequence[Sequence[Any]]) -> Told:
    """Nothing of these histories, so that all that is taken is missing."""
    return Told([len(row) for row in histories], {}, {})


def features_taken(
    specs: Mapping[str, TensorSpec], *, of_events: bool
) -> dict[str, TensorSpec]:
    """The features among the inputs of a signature: of events, or of requests."""
    return {
        name: spec
        for name, spec in _features(specs).items()
        if _of_event(spec) is of_events
    }


def _features(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    return {name: spec for name, spec in specs.items() if name not in _OTHERS}


def _filled(spec: TensorSpec, shape: tuple[int, ...], values: list[Any]) -> Tensor:
    missing: Any = b"" if spec.dtype == "string" else math.nan
    filled = [missing if value is None else value for value in values]
    return Tensor(spec.dtype, shape, filled)


def _check(name: str, spec: TensorSpec, value: Any) -> None:
    if value is None:
        return
    if len(spec.shape) == 2 and not _of_event(spec):
        size = spec.shape[1]
        numbers = isinstance(value, list) and {type(v) for v in value} <= {float}
        if not numbers or len(value) != size:
            raise InputError(
                f"`features` must hold lists of {size} numbers for {name!r}. "
                f"Received: {value!r}. Pass a vector of that length."
            )
    elif not isinstance(value, bytes if spec.dtype == "string" else float):
        expected = "text" if spec.dtype == "string" else "numbers"
        raise InputError(
            f"{name!r} must be told as {expected}. Received: {value!r}. Pass what the "
            "model was trained on."
        )


def _of_event(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and spec.shape[1] is None


def _named(argument: str, given: Any) -> Iterator[tuple[str, Any]]:
    for name, values in (given or {}).items():
        if isinstance(values, str | bytes) or not isinstance(values, Sequence):
            raise InputError(
                f"`{argument}` must hold lists by name, with a value or a list for "
                f"each history. Received: {values!r} for {name!r}. For one user, use "
                f"{{{name!r}: [value]}}."
            )
        yield name, values


def _checked(name: str, value: Any, vectors: bool = False) -> Any:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if vectors and isinstance(value, Sequence):
        return [_checked(name, each) for each in value]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"{name!r} must be told as text or numbers. Received: {value!r}. Convert "
            "it, or pass None where it is not known."
        ) from None
