"""What a server answers, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from tfrs_selfattn.client.tensors import Tensor


@dataclass(frozen=True)
class RankedItem:
    """An item of an answer.

    Args:
        id: str.
        score: float. Comparable within one answer.
    """

    id: str
    score: float


@dataclass(frozen=True)
class Recommendations:
    """The answer to one history.

    Args:
        items: tuple of `RankedItem`, best first, without the padding of a short answer.
        version: int or None. The version that answered; None over REST, which does not
            say.
    """

    items: tuple[RankedItem, ...]
    version: int | None

    @property
    def ids(self) -> list[str]:
        """The ids alone, best first."""
        return [item.id for item in self.items]


@dataclass(frozen=True)
class ShardedRecommendations(Recommendations):
    """The answer to one history, merged from shards.

    Args:
        items: tuple of `RankedItem`, as in `Recommendations`.
        version: int or None, that of the query model.
        missing: tuple of int. The shards, from 0, whose items could not be considered;
            empty for a whole answer.
    """

    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Embedding:
    """The vector of a history or an item; zeros for one that the model does not know.

    Args:
        vector: tuple of float.
        version: int or None. As in `Recommendations`.
    """

    vector: tuple[float, ...]
    version: int | None


@dataclass(frozen=True)
class Explanation:
    """How much each item of a history did for the score of an item.

    Args:
        contributions: tuple of float, in the order of the history: what the score loses
            without the item. 0 for one that the model does not know.
        version: int or None. As in `Recommendations`.
    """

    contributions: tuple[float, ...]
    version: int | None


@dataclass(frozen=True)
class Prediction:
    """The raw answer of a signature.

    Args:
        outputs: dictionary from name to `Tensor`.
        version: int or None. As in `Recommendations`.
    """

    outputs: dict[str, Tensor]
    version: int | None


@dataclass(frozen=True)
class VersionStatus:
    """A version that a server knows of.

    Args:
        version: int.
        state: str. `"START"`, `"LOADING"`, `"AVAILABLE"`, `"UNLOADING"` or `"END"`.
        error: str. Why it did not load; empty if nothing went wrong.
    """

    version: int
    state: str
    error: str


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Args:
        dtype: str.
        shape: tuple of int or None, None for a size that may vary.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """A signature of a model.

    Args:
        inputs: dictionary from name to `TensorSpec`.
        outputs: likewise.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
