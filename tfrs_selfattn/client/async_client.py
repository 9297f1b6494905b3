"""A client over gRPC for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc  # type: ignore[import-untyped]

from tfrs_selfattn._checks import check_positive, check_positive_int
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
from tfrs_selfattn.client.errors import ServerError
from tfrs_selfattn.client.grpc_wire import (
    DEFAULT_TIMEOUT,
    DEFAULT_WIDTH,
    METADATA,
    PREDICT,
    STATUS,
    Method,
    attempts,
    metadata_request,
    multicallable,
    open_channel,
    predict_request,
    read_prediction,
    read_signatures,
    read_status,
    status_request,
)
from tfrs_selfattn.client.retry import Retry
from tfrs_selfattn.client.tensors import Tensor
from tfrs_selfattn.client.told import Told, told_of

if TYPE_CHECKING:
    from typing_extensions import Self

Answer = TypeVar("Answer")


class AsyncClient:
    """Asks a model server over gRPC from asyncio.

    Args:
        address: as in `Client`, like all that follow.
        model: str.
        version: int, str or None.
        timeout: float.
        retry: `Retry` or None.
        credentials: `grpc.ChannelCredentials` or None.
        examples: bool.
        width: int.

    Example:

        async with AsyncClient("localhost:8500", model="films") as client:
            answers = await client.recommend([["50", "172", "181"]])
    """

    def __init__(
        self,
        address: str,
        *,
        model: str = "recommender",
        version: int | str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retry: Retry | None = None,
        credentials: Any = None,
        examples: bool = True,
        width: int = DEFAULT_WIDTH,
    ) -> None:
        self.address = address
        self.model = model
        self.version = version
        self.timeout = check_positive("timeout", timeout)
        self.retry = Retry() if retry is None else retry
        self._examples = examples
        self._width = check_positive_int("width", width)
        self._known: Mapping[str, Signature] | None = None
        self._channel = open_channel(grpc.aio, address, credentials)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def recommend(
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
        """The best items for each history; see `Client.recommend`."""
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return await self._ask_told(
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

    async def embed_query(
        self,
        histories: Ids,
        *,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[Embedding]:
        """The query vector of each history."""
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return await self._ask_told(
            lambda about: calls.embed_query(histories, about, width=self._width),
            histories,
            times,
            told,
        )

    async def embed_items(
        self, items: Sequence[Id], *, features: calls.Features = None
    ) -> list[Embedding]:
        """The vector of each item; see `Client.embed_items`."""
        nothing: Ids = [[]] * len(items)
        return await self._ask_told(
            lambda about: calls.embed_items(items, about),
            nothing,
            None,
            told_of(nothing, features, None, of="item"),
            signature="embed_item",
        )

    async def explain(
        self,
        histories: Ids,
        items: Sequence[Id],
        *,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[Explanation]:
        """How much each item of each history did for a score; see `Client.explain`."""
        times = calls.times_of(histories, timestamps, request_times)
        told = told_of(histories, features, event_features)
        return await self._ask_told(
            lambda about: calls.explain(histories, items, about, width=self._width),
            histories,
            times,
            told,
        )

    async def predict(self, signature: str, inputs: Mapping[str, Tensor]) -> Prediction:
        """The raw outputs of any signature."""
        request = predict_request(self.model, self.version, signature, inputs)
        return read_prediction(await self._call(PREDICT, request))

    async def status(self) -> list[VersionStatus]:
        """The versions of the model that the server knows of."""
        request = status_request(self.model, self.version)
        return read_status(await self._call(STATUS, request))

    async def signatures(self) -> dict[str, Signature]:
        """The signatures of the model, by name."""
        request = metadata_request(self.model, self.version)
        return read_signatures(await self._call(METADATA, request))

    async def close(self) -> None:
        """Closes the connections."""
        await self._channel.close()

    async def _inputs_of(self, signature: str) -> Mapping[str, TensorSpec]:
        """The inputs of a signature; the server is asked once for all of them."""
        if self._known is None:
            self._known = await self.signatures()
        found = self._known.get(signature)
        return {} if found is None else found.inputs

    async def _ask_told(
        self,
        make: Callable[[calls.About], Call[list[Answer]]],
        histories: Ids,
        times: calls.Times | None,
        told: Told | None,
        *,
        signature: str = "embed_query",
    ) -> list[Answer]:
        """As that of the other clients."""
        if told is None and self._known is not None:
            told = calls.filled(histories, await self._inputs_of(signature))
        if told is not None:
            about = calls.About(times, told, await self._inputs_of(signature))
            return await self._ask(make(about), len(histories))
        call = make(calls.About(times))
        try:
            return await self._ask(call, len(histories))
        except ServerError as error:
            told = await self._missing(call, error, histories, signature)
            if told is None:
                raise
        about = calls.About(times, told, await self._inputs_of(signature))
        return await self._ask(make(about), len(histories))

    async def _missing(
        self, call: Call[Any], error: ServerError, histories: Ids, signature: str
    ) -> Told | None:
        """What to send in place of nothing, if that is what the server refused."""
        if error.code != "INVALID_ARGUMENT" or call.signature == calls.EXAMPLES:
            return None
        try:
            return calls.filled(histories, await self._inputs_of(signature))
        except ServerError:
            return None

    async def _ask(self, call: Call[list[Answer]], count: int) -> list[Answer]:
        if not count:
            return []
        return call.read(await self.predict(call.signature, call.inputs))

    async def _call(self, method: Method, request: Any) -> Any:
        ask = multicallable(self._channel, method)
        for attempt in attempts(self.address, self.timeout, self.retry):
            try:
                return await ask(request, timeout=attempt.seconds_left())
            except grpc.RpcError as error:
                attempt.fail(error)
            await asyncio.sleep(attempt.pause)
        raise AssertionError  # the last attempt has raised
