"""Compares the answers of a saved version with those that it must give.

The right answer is worked out here in NumPy, in the plainest way, from the scores of
the whole catalogue. An index that is not exact may overlook items; what it answers must
be right all the same, and how much it overlooks is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.export.live import UNKNOWN, Truth
from tfrs_selfattn.export.reload import ExportError, ask
from tfrs_selfattn.export.requests import Defaults, Request, Sample, question
from tfrs_selfattn.ops.top_k import LOWEST_SCORE

# Each is a history to encode: of an explanation, so many items are looked at.
_EXPLAINED = 24

_RANKED = ("serving_default", "recommend_excluding", "recommend_among", "tf_example")
_WITHOUT_THE_OTHERS = ("recommend_excluding", "tf_example", "search")


class Verified(NamedTuple):
    """What a verification found.

    Args:
        samples: int. The number of histories.
        recall: float. The share of the right items that were answered, 1 when exact.
    """

    samples: int
    recall: float


def verify(
    folder: Path,
    scratch: Path,
    truth: Truth,
    signatures: Sequence[str],
    *,
    exact: bool = True,
    tolerance: float = 0.0,
    samples: Sequence[Sample] | None = None,
    also: Sequence[Request] = (),
    defaults: Defaults | None = None,
) -> Verified:
    """Raises `ExportError` when a signature answers other than it must.

    Args:
        folder: the saved version.
        scratch: folder for the questions and answers.
        truth: `Live`, or what else knows the right answers.
        signatures: list of str. Those of the version.
        exact: bool. Whether the index overlooks nothing. Defaults to `True`.
        tolerance: float. How far the scores of the index may be off, relative to the
            largest one. Defaults to `0.0`.
        samples: list of `Sample`, or None for those of `truth`.
        also: further requests, which only have to be answered.
        defaults: further inputs; see `requests.question`.
    """
    samples = truth.samples() if samples is None else samples
    if not samples:
        raise ValueError(
            "`sample_histories` must hold at least one history. Received: none. Leave "
            "it out, or pass verify=False."
        )
    draw = np.random.default_rng(1)
    others = []
    for _ in samples:
        some = [truth.ids[row] for row in draw.integers(0, len(truth.ids), 5)]
        others.append([*some, UNKNOWN, "", some[0]])
    width = truth.candidates.shape[1]
    vectors = draw.normal(size=[len(samples), width]).astype(np.float32)
    vectors[-1] = 0.0
    questions = [
        question(
            name,
            samples,
            others,
            vectors,
            time_aware=truth.time_aware,
            side=truth.side,
            defaults=defaults,
        )
        for name in signatures
    ]
    answers = ask(folder, scratch, [*questions, *also])
    check = _Check(truth, samples, others, exact, tolerance)
    for name, outputs in zip(signatures, answers, strict=False):
        if name in _RANKED:
            check.ranking(name, outputs)
        elif name == "search":
            check.search(outputs, vectors)
        elif name == "embed_query":
            check.vectors(name, outputs, check.queries)
        elif name == "embed_item":
            items = [row[0] for row in others]
            check.vectors(name, outputs, truth.candidates[truth.rows(items)])
        elif name == "explain":
            check.contributions(outputs)
    return Verified(len(samples), check.recall())


class _Check:
    """Compares the outputs of one signature after the other, history by history."""

    def __init__(
        self,
        truth: Truth,
        samples: Sequence[Sample],
        others: Sequence[Sequence[str]],
        exact: bool,
        tolerance: float,
    ) -> None:
        self._truth = truth
        self._samples = samples
        self._others = others
        self._exact = exact
        self._tolerance = max(truth.tolerance(), tolerance)
        self._right, self._found = 0, 0
        self.queries, self._scores = truth.encode(samples)

    def recall(self) -> float:
        """The share of the right items that the answers held."""
        return self._found / self._right if self._right else 1.0

    def ranking(self, signature: str, outputs: dict[str, npt.NDArray[Any]]) -> None:
        for number, (history, *_) in enumerate(self._samples):
            eligible = self._eligible(signature, number)
            if not self._truth.keep_seen:
                eligible[self._truth.rows(history)] = False
            wanted = np.where(eligible, self._scores[number], -np.inf)
            exact = self._exact or signature == "recommend_among"
            self._compare(signature, number, wanted, outputs, exact)

    def search(self, outputs: dict[str, npt.NDArray[Any]], vectors: Any) -> None:
        scores = vectors @ self._truth.candidates.T
        scores = np.where(vectors.any(axis=1)[:, None], scores, self._truth.popular)
        for number in range(len(vectors)):
            eligible = self._eligible("search", number)
            wanted = np.where(eligible, scores[number], -np.inf)
            self._compare("search", number, wanted, outputs, self._exact)

    def vectors(
        self, signature: str, outputs: dict[str, npt.NDArray[Any]], wanted: Any
    ) -> None:
        for number, row in enumerate(wanted):
            got = outputs["embedding"][number]
            if not np.allclose(got, row, rtol=0, atol=self._limit(row)):
                self._fail(signature, number, f"the vector {row}", f"{got}")

    def contributions(self, outputs: dict[str, npt.NDArray[Any]]) -> None:
        for number, sample in enumerate(self._samples):
            history = sample.history
            got = outputs["contribution"][number]
            last = len(history) - 1
            places = sorted(
                {*np.linspace(0, last, _EXPLAINED, dtype=int)} & {*range(last + 1)}
            )
            without = [sample.without(place) for place in places]
            if not without:
                continue
            (row,) = self._truth.rows(self._others[number][:1])
            candidate = self._truth.candidates[row]
            whole = float(self.queries[number] @ candidate)
            scores = self._truth.encode(without)[0] @ candidate
            limit = self._limit(np.array([whole, *scores]))
            for place, score in zip(places, scores, strict=True):
                if not abs(got[place] - (whole - score)) <= 2 * limit:
                    self._fail(
                        "explain",
                        number,
                        f"a contribution of {whole - score:g} in place {place + 1}",
                        f"{got[place]:g}",
                    )
            if got[len(history) :].any():
                self._fail("explain", number, "zeros at padding", f"{got}")

    def _eligible(self, signature: str, number: int) -> npt.NDArray[np.bool_]:
        others = self._truth.rows(self._others[number])
        eligible = np.full(len(self._truth.ids), signature != "recommend_among")
        if signature == "recommend_among":
            eligible[others] = True
        elif signature in _WITHOUT_THE_OTHERS:
            eligible[others] = False
        return eligible

    def _limit(self, values: npt.NDArray[Any]) -> float:
        return self._tolerance * max(float(np.abs(values).max(initial=0.0)), 1e-6)

    def _compare(
        self,
        signature: str,
        number: int,
        wanted: npt.NDArray[Any],
        outputs: dict[str, npt.NDArray[Any]],
        exact: bool,
    ) -> None:
        ids, scores = outputs["ids"][number], outputs["scores"][number]
        order = np.argsort(-wanted, kind="stable")
        best = order[np.isfinite(wanted[order])][: len(ids)]
        limit = self._limit(wanted[best])
        names = [self._truth.ids[row] for row in best]
        self._right += len(best)
        self._found += len(set(names) & set(ids))
        for place, (item, score) in enumerate(zip(ids, scores, strict=True)):
            name, value = "", LOWEST_SCORE
            if place < len(best):
                name, value = names[place], wanted[best[place]]
            right = item == name
            if not right and item not in ("", *ids[:place]):
                given = wanted[self._truth.rows([item])]
                if exact:
                    # In the place of an item of the same score is no difference.
                    right = any(abs(given - value) <= limit)
                else:
                    right = any(np.isfinite(given)) and score <= value + limit
                    value = given[0] if right else value
            if not right or not abs(score - value) <= limit:
                self._fail(
                    signature,
                    number,
                    f"{name!r} with score {value:g} in place {place + 1}",
                    f"{item!r} with score {score:g}",
                )

    def _fail(self, signature: str, number: int, wanted: str, got: str) -> None:
        history = list(self._samples[number].history)
        shown = str(history) if len(history) <= 20 else f"{history[:20]} and so on"
        raise ExportError(
            "The export must answer as its model does. Received: for the history "
            f"{shown} (sample {number}) by {signature!r}, {got}, where the model says "
            f"{wanted}. Nothing was published. Check that nothing changes the model "
            "meanwhile."
        )
