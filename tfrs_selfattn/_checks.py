"""Argument checks that speak in three parts: expected, received, what to do.

Nothing here imports TensorFlow, so that the data package and the command line can
use it cheaply. Checks on tensors live beside the layers that need them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """Bad input of a user: a file, an option or a value that cannot be used.

    The message says what was passed, what was expected and how to put it right, and
    names the file and row, or the option. The command line prints it as one line and
    exits with status 2.
    """


def _message(name: str, expected: str, value: Any, hint: str) -> str:
    text = f"`{name}` must be {expected}. Received: {name}={value!r}."
    return f"{text} {hint}" if hint else text


def check_positive_int(name: str, value: Any, hint: str = "") -> int:
    """Returns `value` when it is an integer of at least 1, else raises `ValueError`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(_message(name, "a positive integer", value, hint))
    return int(value)


def optional_positive(name: str, value: Any) -> int | None:
    """None, or what `check_positive_int` returns."""
    return None if value is None else check_positive_int(name, value, "Or pass None.")


def check_flag(name: str, value: Any, hint: str = "Use True or False.") -> bool:
    """Returns `value` when it is True or False, else raises `ValueError`."""
    # A word in the place of a flag is True to Python, "no" too.
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's, not imported here
        raise ValueError(_message(name, "a bool", value, hint))
    return bool(value)


def check_fraction(name: str, value: Any, hint: str = "") -> float:
    """Returns `value` when it lies in [0, 1), else raises `ValueError`."""
    number = _as_float(name, value, "a number in [0, 1)", hint)
    if not 0.0 <= number < 1.0:
        raise ValueError(_message(name, "a number in [0, 1)", value, hint))
    return number


def check_positive(name: str, value: Any, hint: str = "") -> float:
    """Returns `value` when it is a finite number above 0, else raises `ValueError`."""
    number = _as_float(name, value, "a positive finite number", hint)
    if not (number > 0.0 and math.isfinite(number)):
        raise ValueError(_message(name, "a positive finite number", value, hint))
    return number


def check_not_negative(name: str, value: Any, hint: str = "") -> float:
    """Returns `value` when it is a finite number of at least 0, else `ValueError`."""
    number = _as_float(name, value, "a finite number of at least 0", hint)
    if not (number >= 0.0 and math.isfinite(number)):
        raise ValueError(_message(name, "a finite number of at least 0", value, hint))
    return number


def check_choice(name: str, value: Any, choices: Sequence[str], hint: str = "") -> str:
    """Returns `value` when it is one of `choices`, else raises `ValueError`."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(_message(name, f"one of {listed}", value, hint))
    return value


def _as_float(name: str, value: Any, expected: str, hint: str) -> float:
    if isinstance(value, bool | str):
        raise ValueError(_message(name, expected, value, hint))
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(_message(name, expected, value, hint)) from None
