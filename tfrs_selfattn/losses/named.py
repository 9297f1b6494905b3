"""Losses by name, for the presets and for what a run writes down."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfrs_selfattn._checks import check_choice, check_positive_int

# What each loss takes beside a temperature and a seed.
_TAKES: dict[str, tuple[str, ...]] = {
    "full-softmax": (),
    "sampled-softmax": (
        *("negatives", "num_negatives", "shared_by", "correct_sampling"),
    ),
    "gbce": ("num_negatives", "shared_by"),
    "bce": ("negatives", "num_negatives", "shared_by"),
}
LOSSES = tuple(_TAKES)
NEGATIVES = ("uniform", "popularity", "in-batch", "mixed")
_OF_THE_BATCH = ("in-batch", "mixed")
_SHARED_BY = ("batch", "row", "query")


@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss that is made when temperature and seed are known.

    Args:
        name: str. "full-softmax", "sampled-softmax", "gbce" or "bce".
        num_negatives: int or None. Negatives of a draw. None takes the loss's own
            number: 256, and 1 of "bce"; of "in-batch" all there are. Defaults to
            `None`.
        shared_by: "batch", "row", "query" or None. Which queries share a draw. None
            takes the loss's own: by batch of "sampled-softmax", by row of "gbce", by
            query of "bce". Defaults to `None`.
        correct_sampling: bool or None. Whether "sampled-softmax" estimates the full
            softmax. None does. Defaults to `None`.
        negatives: str or None. Where negatives come from: "uniform", "popularity",
            "in-batch" (the targets of the batch's other queries) or "mixed" (these and
            `num_negatives` uniform ones). None is uniform. Defaults to `None`.

    Raises:
        ValueError: when the name is unknown, or an argument is out of range or not one
            of this loss.
    """

    name: str
    num_negatives: int | None = None
    shared_by: str | None = None
    correct_sampling: bool | None = None
    negatives: str | None = None

    def __post_init__(self) -> None:
        check_choice("loss", self.name, LOSSES)
        for option, value in self._given().items():
            if option not in _TAKES[self.name]:
                able = ", ".join(name for name in LOSSES if option in _TAKES[name])
                raise ValueError(
                    f"`{option}` belongs to the losses {able}. Received: {option}="
                    f"{value!r}, loss={self.name!r}. Leave one of them out."
                )
        if self.num_negatives is not None:
            check_positive_int("num_negatives", self.num_negatives)
        if self.shared_by is not None:
            check_choice("shared_by", self.shared_by, _SHARED_BY)
        if self.negatives is not None:
            check_choice("negatives", self.negatives, NEGATIVES)
        if self.negatives in _OF_THE_BATCH and self.shared_by not in (None, "batch"):
            raise ValueError(
                "`shared_by` must be 'batch' for negatives of a whole batch. Received: "
                f"shared_by={self.shared_by!r}, negatives={self.negatives!r}. Leave "
                "`shared_by` out."
            )

    def build(
        self,
        temperature: float,
        seed: int | None,
        item_counts: Sequence[int] | None = None,
    ) -> Any:
        """The loss, a layer.

        Args:
            temperature: float above 0, by which scores are divided.
            seed: int or None, of the draws.
            item_counts: sequence of N ints, the training events of each item; needed by
                all `negatives` but uniform ones. Defaults to `None`.

        Raises:
            ValueError: when `item_counts` is needed and not given.
        """
        from tfrs_selfattn import losses

        options: dict[str, Any] = self._given()
        if self.name == "full-softmax":
            return losses.FullSoftmax(temperature)
        options.pop("negatives", None)
        options |= {"temperature": temperature, "seed": seed}
        if self.name == "gbce":
            return losses.GBCE(**options)
        options |= self._samplers(options.pop("num_negatives", None), item_counts)
        if self.name == "bce":
            return losses.BinaryCrossEntropy(**options)
        return losses.SampledSoftmax(**options)

    def _samplers(
        self, num_negatives: int | None, item_counts: Sequence[int] | None
    ) -> dict[str, Any]:
        """The arguments of a loss by which it draws; none where its own are asked."""
        from tfrs_selfattn import losses

        if self.negatives in (None, "uniform") and num_negatives is None:
            return {}
        number = {} if num_negatives is None else {"num_negatives": num_negatives}
        if self.negatives in (None, "uniform"):
            return {"negatives": losses.UniformNegatives(**number)}
        if item_counts is None:
            raise ValueError(
                f"`item_counts` must be given for negatives={self.negatives!r}. "
                "Received: None. Give the training events of each item, as "
                "`Split.train_counts()[1:]` has them."
            )
        if self.negatives == "popularity":
            if self.name == "bce" and not number:
                number = {"num_negatives": 1}
            return {"negatives": losses.PopularityNegatives(item_counts, **number)}
        samplers: list[Any] = [losses.InBatchNegatives(item_counts)]
        if self.negatives == "mixed":
            samplers.append(losses.UniformNegatives(**number))
        elif number:
            samplers = [losses.InBatchNegatives(item_counts, **number)]
        return {"negatives": samplers, "shared_by": "batch"}

    def _given(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        del values["name"]
        return {name: value for name, value in values.items() if value is not None}
