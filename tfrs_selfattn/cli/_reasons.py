"""What `explain` asks: an export, or the model of a run folder, which knows more.

An export answers leave-one-out alone; gradients and attention weights need the trained
model in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.client.calls import times_of
from tfrs_selfattn.client.told import nothing_told, told_of

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.client import TensorSpec
    from tfrs_selfattn.data.vocabulary import Vocabulary
    from tfrs_selfattn.export.recommender import Contribution, Recommender
    from tfrs_selfattn.features import FeatureSet

METHODS = ("leave_one_out", "integrated_gradients", "attention_rollout")
_NEXT = "(what comes next)"


class Attention(NamedTuple):
    """Where one block looked, the mean of its heads.

    Args:
        block: int, from 1.
        labels: list of T str. Titles or ids, oldest first.
        weights: float32 `[T, T]`. Row: the item that looks.
    """

    block: int
    labels: list[str]
    weights: npt.NDArray[np.float32]


class ExportReasons:
    """Reasons from an export, by its signature `explain`."""

    def __init__(self, report: Report, base: Path) -> None:
        from tfrs_selfattn.cli._tensorflow import start_tensorflow

        with report.waiting("Loading the export"):
            start_tensorflow()
            from tfrs_selfattn.export import load_recommender

            self._recommender: Recommender = load_recommender(str(base))
        self._base = base

    def title(self, item: str) -> str | None:
        return self._recommender.title(item)

    def unknown(self, history: Sequence[str]) -> list[str]:
        return self._recommender.unknown(history)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What may be told of a request, by name."""
        return self._recommender.inputs

    def best(self, history: list[str], **times: Any) -> str | None:
        """The first item that is recommended after a history, None if there is none."""
        answer = self._recommender.recommend([history], **times)[0]
        return answer[0].id if answer else None

    def contributions(
        self, history: list[str], item: str, method: str, **times: Any
    ) -> list[Contribution]:
        """What each item of a history did for the score of an item."""
        if method != METHODS[0]:
            raise self._knows_too_little(f"--method {method}")
        return self._recommender.explain([history], [item], **times)[0]

    def attention(
        self, history: list[str], block: int | None, **times: Any
    ) -> Attention:
        raise self._knows_too_little("attention weights")

    def _knows_too_little(self, asked: str) -> InputError:
        return InputError(
            "A run folder must be explained, to ask for more than leave-one-out. "
            f"Received: {asked} of {self._base}, an export. Pass the folder that "
            "`train --output` wrote."
        )


class RunReasons:
    """Reasons from the best epoch's model of a run folder, in memory."""

    def __init__(self, report: Report, run: Path) -> None:
        from tfrs_selfattn import training
        from tfrs_selfattn.cli._steps import load_best

        folder = training.RunFolder.open(run)
        if folder.config.features.events:
            raise InputError(
                "A run folder must know no features of events to be explained. "
                f"Received: {run}, trained with --event-features. Export it, and "
                "explain the export with --event-feature."
            )
        self._model = load_best(report, folder)
        self._features: FeatureSet | None = folder.side().query
        self._vocabulary: Vocabulary = folder.vocabulary()
        self._known = frozenset(self._vocabulary.ids)
        self._titles: dict[str, str] = folder.titles()
        self._run = run

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What may be told of a request, by name."""
        from tfrs_selfattn.client import TensorSpec

        return {
            each.name: TensorSpec(each.dtype, (None, *each.shape))
            for each in self._features or ()
        }

    def title(self, item: str) -> str | None:
        return self._titles.get(item)

    def unknown(self, history: Sequence[str]) -> list[str]:
        return [item for item in history if item and item not in self._known]

    def best(self, history: list[str], **times: Any) -> str | None:
        """The item with the highest score that the history does not hold."""
        indices, moments = self._inputs(history, times)
        known = self._told(history, times)
        scores = self._model.score(indices, *moments, **known).numpy()[0]
        seen = indices[0][indices[0] != 0] - 1
        scores[seen] = -np.inf
        found = int(scores.argmax())
        return self._vocabulary.ids[found] if np.isfinite(scores[found]) else None

    def contributions(
        self, history: list[str], item: str, method: str, **times: Any
    ) -> list[Contribution]:
        """What each item of a history did for the score of an item."""
        from tfrs_selfattn.explain import Explainer
        from tfrs_selfattn.export import Contribution

        if item not in self._known:
            raise InputError(
                "--item must be an item of the run. Received: "
                f"{item!r}, which {self._run} does not know. Name one that it knows."
            )
        indices, moments = self._inputs(history, times)
        target = self._vocabulary.encode([item])
        try:
            found = Explainer(self._model).contributions(
                indices, target, *moments, **self._told(history, times), method=method
            )
        except ValueError as error:  # of a model without attention weights
            raise InputError(str(error)) from None
        values = found.numpy()[0].tolist()
        return [
            Contribution(one, value, self.title(one))
            for one, value in zip(history, values, strict=True)
        ]

    def attention(
        self, history: list[str], block: int | None, **times: Any
    ) -> Attention:
        """Where a block looked; None asks for the last one."""
        from tfrs_selfattn.explain import Explainer

        indices, moments = self._inputs(history, times)
        try:
            scores = Explainer(self._model).attention(indices, *moments)
        except ValueError as error:
            raise InputError(str(error)) from None
        block = len(scores) if block is None else block
        if block > len(scores):
            raise InputError(
                f"--block must be from 1 to {len(scores)}, the blocks of this model. "
                f"Received: {block}. Leave it out for the last one."
            )
        weights = scores[block - 1].numpy()[0].mean(axis=0)  # [T', T']
        # Aligned, the items that the model knows stand at the right end.
        known = [item for item in history if item in self._known]
        labels = [self.title(item) or item for item in known]
        if getattr(self._model.query_tower, "query_token", False):
            labels.append(_NEXT)
        labels = labels[-len(weights) :]
        shown = weights[-len(labels) :, -len(labels) :]
        return Attention(block, labels, np.asarray(shown, np.float32))

    def _told(self, history: list[str], given: dict[str, Any]) -> dict[str, Any]:
        """What is told of the user and the request, as an argument of the model."""
        if self._features is None:
            return {}
        import tensorflow as tf

        from tfrs_selfattn.features import FeatureEncoder

        told = told_of(
            [history], given.get("features"), given.get("event_features")
        ) or nothing_told([history])
        raw = {
            name: tf.constant(each.values, each.dtype, each.shape)
            for name, each in told.tensors(self.inputs, width=len(history)).items()
        }
        return {"query_features": FeatureEncoder(self._features)(raw)}

    def _inputs(
        self, history: list[str], times: dict[str, Any]
    ) -> tuple[npt.NDArray[np.int32], tuple[npt.NDArray[np.int64], ...]]:
        """One row of indices, and the times of a time-aware model."""
        given = times_of([history], times.get("timestamps"), None)
        indices = self._vocabulary.encode(history)[np.newaxis]
        if not self._model.time_aware:
            return indices, ()
        if given is None:
            raise InputError(
                "--times must be given to a time-aware model. Received: none for "
                f"{self._run}. Pass the Unix time of each item."
            )
        moments = np.array(given.timestamps, np.int64)
        return indices, (moments, np.array(given.request_times, np.int64))


def reasons(report: Report, path: Path) -> ExportReasons | RunReasons:
    """What explains: the run, if the folder is one, else the export."""
    if (path / "config.json").is_file():
        return RunReasons(report, path)
    return ExportReasons(report, path)
