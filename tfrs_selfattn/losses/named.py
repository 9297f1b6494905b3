"""Losses by name, for the presets and for what a run writes down."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrs_selfattn._checks import check_choice, check_positive_int

# What each loss takes beside a temperature and a seed.
_TAKES: dict[str, tuple[str, ...]] = {
    "full-softmax": (),
    "sampled-softmax": ("num_negatives", "shared_by", "correct_sampling"),
    "gbce": ("num_negatives", "shared_by"),
    "bce": ("num_negatives", "shared_by"),
}
LOSSES = tuple(_TAKES)
_SHARED_BY = ("batch", "row", "query")


@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss that is made when temperature and seed are known.

    Args:
        name: str. "full-softmax", "sampled-softmax", "gbce" or "bce".
        num_negatives: int or None. Uniform negatives of a draw. None takes the loss's
            own number: 256, and 1 of "bce". Defaults to `None`.
        shared_by: "batch", "row", "query" or None. Which queries share a draw. None
            takes the loss's own: by batch of "sampled-softmax", by row of "gbce", by
            query of "bce". Defaults to `None`.
        correct_sampling: bool or None. Whether "sampled-softmax" estimates the full
            softmax. None does. Defaults to `None`.

    Raises:
        ValueError: when the name is unknown, or an argument is out of range or not one
            of this loss.
    """

    name: str
    num_negatives: int | None = None
    shared_by: str | None = None
    correct_sampling: bool | None = None

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

    def build(self, temperature: float, seed: int | None) -> Any:
        """The loss, a layer.

        Args:
            temperature: float above 0, by which scores are divided.
            seed: int or None, of the draws.
        """
        from tfrs_selfattn import losses

        options: dict[str, Any] = self._given()
        if self.name == "full-softmax":
            return losses.FullSoftmax(temperature)
        options |= {"temperature": temperature, "seed": seed}
        if self.name == "gbce":
            return losses.GBCE(**options)
        if "num_negatives" in options:
            options["negatives"] = losses.UniformNegatives(options.pop("num_negatives"))
        if self.name == "bce":
            return losses.BinaryCrossEntropy(**options)
        return losses.SampledSoftmax(**options)

    def _given(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        del values["name"]
        return {name: value for name, value in values.items() if value is not None}
