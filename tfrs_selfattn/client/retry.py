"""When a request is sent again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tfrs_selfattn._checks import check_positive, check_positive_int
from tfrs_selfattn.client.errors import ServerError

# A server with more calls than threads answers so at once; a message beyond a size
# limit has the same code, and would fail again.
_NO_THREAD = "threadpool exhausted"


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with full jitter, within the deadline of the call.

    A request is sent again when the server could not be reached or had no capacity, and
    then only: statuses `UNAVAILABLE` (HTTP 503), and `RESOURCE_EXHAUSTED` if its thread
    pool was.

    Args:
        attempts: int. How often a request is sent at most. Defaults to `5`.
        first: float. Longest pause before the second attempt, in seconds; it doubles
            with each further one. Defaults to `0.05`.
        longest: float. Longest pause of all. Defaults to `1.0`.
        seed: int or None. Makes the jitter repeatable. Defaults to `None`.
    """

    attempts: int = 5
    first: float = 0.05
    longest: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive_int("attempts", self.attempts, "Use 1 for no retry.")
        check_positive("first", self.first)
        check_positive("longest", self.longest)

    def pauses(self) -> Iterator[float]:
        """The pause before each further attempt."""
        draw = random.Random(self.seed)
        for attempt in range(self.attempts - 1):
            yield draw.uniform(0.0, min(self.longest, self.first * 2**attempt))


def is_transient(error: ServerError) -> bool:
    """Whether the same request may succeed a moment later."""
    if error.code == "RESOURCE_EXHAUSTED":
        return _NO_THREAD in error.details.lower()
    return error.code == "UNAVAILABLE"
