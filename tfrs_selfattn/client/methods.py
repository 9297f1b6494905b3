"""The methods that the two clients that wait for an answer have in common."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tfrs_selfattn._checks import check_positive
from tfrs_selfattn.client import calls
from tfrs_selfattn.client.answers import (
    Embedding,
    Explanation,
    Prediction,
    Recommendations,
    Signature,
    TensorSpec,
    VersionStatus,
)
from tfrs_selfattn.client.calls import Call, Id, Ids
from tfrs_selfattn.client.closing import Closing
from tfrs_selfattn.client.errors import ServerError
from tfrs_selfattn.client.tensors import Tensor
from tfrs_selfattn.client.told import Told, told_of

Answer = TypeVar("Answer")

# Between two looks at a model that is not served yet, and what a look may meet.
_POLL_SECONDS = 0.1
_NOT_YET = ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED")


class Methods(Closing):
    """Asks a server and waits for its answer.

    Args:
        address: str. For messages.
        examples: bool. Send histories and exclusions as tf.Examples.
        width: int. Matrices have a multiple of so many columns.
    """

    def __init__(self, address: str, *, examples: bool, width: int) -> None:
        self.address = address
        self._examples = examples
        self._width = width
        self._known: Mapping[str, Signature] | None = None

    @property
    def width(self) -> int:
        """Matrices have a multiple of so many columns."""
        return self._width

    @abc.abstractmethod
    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Tensor],
        *,
        version: int | None = None,
    ) -> Prediction:
        """The raw outputs of any signature.

        Args:
            signature: str.
            inputs: dictionary from name to `Tensor`.
            version: int. In place of the version that the client asks, or None.
        """

    @abc.abstractmethod
    def status(self) -> list[VersionStatus]:
        """The versions of the model that the server knows of."""

    @abc.abstractmethod
    def signatures(self) -> dict[str, Signature]:
        """The signatures of the model, by name."""

    def recommend(
        self,
        histories: Ids,
        *,
        exclude: Ids | None = None,
        among: Ids | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[Recommendations]:
        """The best items for each history.

        Args:
            histories: list of lists of item ids, oldest first; may be empty lists.
                Unknown ids are passed over.
            exclude: list of lists of ids, one for each history, or None. Left out.
            among: likewise. Only these are ranked. Not together with `exclude`.
            timestamps: list of lists of int, the Unix time of each item, or None. For
                time-aware models.
            request_times: list of int, one for each history, or None. Defaults to now.
            features: by name, a list with a value for each history, of its user or
                request: text, a number, a list of numbers, or None where it is not
                known. For models that take them.
            event_features: by name, a list for each history with a value for each of
                its items, likewise.

        Returns:
            A `Recommendations` for each history.
        """
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return self._ask_told(
            lambda about: calls.recommend(
                histories,
                exclude,
                among,
                about,
                examples=self._examples,
                width=self._width,
            ),
            histories,
            times,
            told,
        )

    def embed_query(
        self,
        histories: Ids,
        *,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[Embedding]:
        """The query vector of each history; arguments as in `recommend`."""
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return self._ask_told(
            lambda about: calls.embed_query(histories, about, width=self._width),
            histories,
            times,
            told,
        )

    def embed_items(
        self, items: Sequence[Id], *, features: calls.Features = None
    ) -> list[Embedding]:
        """The vector of each item.

        Args:
            items: list of ids.
            features: by name, a list with a value for each item, as in `recommend`. By
                them a model that knows items by features embeds one that is new to it;
                of an item that it knows they say nothing.
        """
        nothing: Ids = [[]] * len(items)
        return self._ask_told(
            lambda about: calls.embed_items(items, about),
            nothing,
            None,
            told_of(nothing, features, None, of="item"),
            signature="embed_item",
        )

    def explain(
        self,
        histories: Ids,
        items: Sequence[Id],
        *,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[Explanation]:
        """How much each item of each history did for the score of an item.

        Args:
            histories: as in `recommend`, like `timestamps` and `request_times`.
            items: list of ids, one for each history: the item to explain.
            timestamps: list of lists of int.
            request_times: list of int.
            features: as in `recommend`.
            event_features: likewise.

        Returns:
            An `Explanation` for each history.
        """
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return self._ask_told(
            lambda about: calls.explain(histories, items, about, width=self._width),
            histories,
            times,
            told,
        )

    def inputs(self) -> Mapping[str, TensorSpec]:
        """What a request may tell, by name: the history, its times, and features.

        The server is asked once.
        """
        return self._inputs_of("embed_query")

    def wait_until_available(self, timeout: float = 60.0) -> VersionStatus:
        """Waits until the server serves a version of the model, and returns that."""
        deadline = time.monotonic() + check_positive("timeout", timeout)
        while True:
            try:
                known = self.status()
            except ServerError as error:
                if error.code not in _NOT_YET or time.monotonic() > deadline:
                    raise
            else:
                for status in known:
                    if status.state == "AVAILABLE":
                        return status
                if time.monotonic() > deadline:
                    shown = [f"{s.version} {s.state} {s.error}".strip() for s in known]
                    raise ServerError(
                        "UNAVAILABLE",
                        f"no version is available ({', '.join(shown) or 'none known'})",
                        self.address,
                    )
            time.sleep(_POLL_SECONDS)

    def _inputs_of(self, signature: str) -> Mapping[str, TensorSpec]:
        """The inputs of a signature; the server is asked once for all of them."""
        if self._known is None:
            self._known = self.signatures()
        found = self._known.get(signature)
        return {} if found is None else found.inputs

    def _ask_told(
        self,
        make: Callable[[calls.About], Call[list[Answer]]],
        histories: Ids,
        times: calls.Times | None,
        told: Told | None,
        *,
        signature: str = "embed_query",
    ) -> list[Answer]:
        """Asks with what is told, checked by the inputs of a signature.

        Every input of a signature must be sent, so where nothing is told and the server
        refuses, the model is looked up: if it takes features, they are missing ones.
        """
        if told is None and self._known is not None:
            told = calls.filled(histories, self._inputs_of(signature))
        if told is not None:
            about = calls.About(times, told, self._inputs_of(signature))
            return self._ask(make(about), len(histories))
        call = make(calls.About(times))
        try:
            return self._ask(call, len(histories))
        except ServerError as error:
            told = self._missing(call, error, histories, signature)
            if told is None:
                raise
        about = calls.About(times, told, self._inputs_of(signature))
        return self._ask(make(about), len(histories))

    def _missing(
        self, call: Call[Any], error: ServerError, histories: Ids, signature: str
    ) -> Told | None:
        """What to send in place of nothing, if that is what the server refused."""
        if error.code != "INVALID_ARGUMENT" or call.signature == calls.EXAMPLES:
            return None
        try:
            return calls.filled(histories, self._inputs_of(signature))
        except ServerError:
            return None

    def _ask(self, call: Call[list[Answer]], count: int) -> list[Answer]:
        if not count:  # Servers differ about empty batches, and there is no question.
            return []
        return call.read(self.predict(call.signature, call.inputs))
