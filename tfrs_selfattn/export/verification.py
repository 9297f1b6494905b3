"""Compares the answers of a saved version with those of the model in memory.

The model's answer is worked out here in NumPy, in the plainest way, from its scores of
the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.export.live import UNKNOWN, Histories, Live
from tfrs_selfattn.export.reload import ExportError, ask
from tfrs_selfattn.export.requests import Request, examples, padded
from tfrs_selfattn.ops.top_k import LOWEST_SCORE


def verify(
    folder: Path,
    scratch: Path,
    live: Live,
    histories: Histories | None = None,
    also: Sequence[Request] = (),
) -> int:
    """Raises `ExportError` when a signature answers other than the model does.

    Args:
        folder: the saved version.
        scratch: folder for the questions and answers.
        live: the model in memory.
        histories: lists of item ids, or None for the samples of `live`.
        also: further requests, which only have to be answered.

    Returns:
        The number of histories.
    """
    histories = live.samples() if histories is None else histories
    if not histories:
        raise ValueError(
            "`sample_histories` must hold at least one history. Received: none. Leave "
            "it out, or pass verify=False."
        )
    draw = np.random.default_rng(1)
    lists = []
    for _ in histories:
        some = [live.ids[row] for row in draw.integers(0, len(live.ids), 5)]
        lists.append([*some, UNKNOWN, "", some[0]])
    items = [row[0] for row in lists]
    history, others = padded(histories), padded(lists)
    as_examples = examples(history=histories, exclude=lists)
    questions = [
        Request("serving_default", {"history": history}),
        Request("recommend_excluding", {"history": history, "exclude": others}),
        Request("recommend_among", {"history": history, "candidates": others}),
        Request("tf_example", {"examples": as_examples}),
        Request("embed_query", {"history": history}),
        Request("embed_item", {"item": others[:, 0]}),
    ]
    answers = ask(folder, scratch, [*questions, *also])
    queries, scores = live.encode(histories)
    check = _Check(live, histories, scores)
    check.ranking("serving_default", answers[0])
    check.ranking("recommend_excluding", answers[1], excluded=lists)
    check.ranking("recommend_among", answers[2], allowed=lists)
    check.ranking("tf_example", answers[3], excluded=lists)
    check.vectors("embed_query", answers[4], queries)
    check.vectors("embed_item", answers[5], live.candidates[live.rows(items)])
    return len(histories)


class _Check:
    """Compares the outputs of one signature after the other, history by history."""

    def __init__(
        self, live: Live, histories: Histories, scores: npt.NDArray[Any]
    ) -> None:
        self._live = live
        self._histories = histories
        self._scores = scores
        self._tolerance = live.tolerance()

    def ranking(
        self,
        signature: str,
        outputs: dict[str, npt.NDArray[Any]],
        excluded: Histories | None = None,
        allowed: Histories | None = None,
    ) -> None:
        for number, history in enumerate(self._histories):
            wanted = np.full(self._scores.shape[1], -np.inf)
            rows = slice(None) if allowed is None else self._live.rows(allowed[number])
            wanted[rows] = self._scores[number][rows]
            if not self._live.keep_seen:
                wanted[self._live.rows(history)] = -np.inf
            if excluded is not None:
                wanted[self._live.rows(excluded[number])] = -np.inf
            answer = (outputs["ids"][number], outputs["scores"][number])
            self._compare(signature, number, wanted, *answer)

    def vectors(
        self, signature: str, outputs: dict[str, npt.NDArray[Any]], wanted: Any
    ) -> None:
        for number, row in enumerate(wanted):
            got = outputs["embedding"][number]
            if not np.allclose(got, row, rtol=0, atol=self._limit(row)):
                self._fail(signature, number, f"the vector {row}", f"{got}")

    def _limit(self, values: npt.NDArray[Any]) -> float:
        return self._tolerance * max(float(np.abs(values).max(initial=0.0)), 1e-6)

    def _compare(
        self,
        signature: str,
        number: int,
        wanted: npt.NDArray[Any],
        ids: Any,
        scores: Any,
    ) -> None:
        order = np.argsort(-wanted, kind="stable")
        best = order[np.isfinite(wanted[order])][: len(ids)]
        limit = self._limit(wanted[best])
        for place, (item, score) in enumerate(zip(ids, scores, strict=True)):
            name, value = "", LOWEST_SCORE
            if place < len(best):
                name, value = self._live.ids[best[place]], wanted[best[place]]
            right = item == name
            if not right and item not in ("", *ids[:place]):
                # In the place of an item of the same score is no difference.
                right = any(abs(wanted[self._live.rows([item])] - value) <= limit)
            if not right or not abs(score - value) <= limit:
                self._fail(
                    signature,
                    number,
                    f"{name!r} with score {value:g} in place {place + 1}",
                    f"{item!r} with score {score:g}",
                )

    def _fail(self, signature: str, number: int, wanted: str, got: str) -> None:
        history = list(self._histories[number])
        shown = str(history) if len(history) <= 20 else f"{history[:20]} and so on"
        raise ExportError(
            "The export must answer as its model does. Received: for the history "
            f"{shown} (sample {number}) by {signature!r}, {got}, where the model says "
            f"{wanted}. Nothing was published. Check that nothing changes the model "
            "meanwhile."
        )
