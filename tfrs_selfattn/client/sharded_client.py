"""One answer from many servers, each of which has a part of the items."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from tfrs_selfattn._checks import InputError, check_positive
from tfrs_selfattn.client import calls
from tfrs_selfattn.client.answers import (
    Embedding,
    Prediction,
    RankedItem,
    ShardedRecommendations,
    TensorSpec,
)
from tfrs_selfattn.client.by_address import connect
from tfrs_selfattn.client.calls import Ids
from tfrs_selfattn.client.closing import Closing
from tfrs_selfattn.client.errors import ServerError

if TYPE_CHECKING:
    from tfrs_selfattn.client.grpc_client import Client
    from tfrs_selfattn.client.rest_client import RestClient

    AnyClient: TypeAlias = "Client | RestClient"

# Requests to one shard at a time; each has threads of its own, so that a shard that
# hangs takes none from the others.
_CONCURRENCY = 16


class ShardedClient(Closing):
    """Asks a query model for a vector, all shards for their best items, and merges.

    The servers hold what `export_shards` wrote. With exact shards the answer is that of
    a single index over all items, equal scores in the same order. Of a server that
    says so, over gRPC, the shards are asked for the version of the query model: vectors
    of two trainings have nothing to do with each other. May be used from several
    threads.

    Args:
        query: client of the query model.
        shards: clients of the shards, in their order, which decides between items of
            equal scores.
        timeout: float. Seconds for an answer, query model included. Defaults to `1.0`.
        partial: bool. Answer from the shards that have answered in time, and name the
            missing; else a missing shard is an error. Defaults to `False`.
        keep_seen: bool. Answer with items of the history too. Defaults to `False`.

    Raises:
        InputError: without shards.
        ServerError: by `recommend`, when the query model or, without `partial`, a shard
            does not answer in time; with `partial`, when no shard does.

    Example:

        client = ShardedClient.connect(
            "localhost:8500/query",
            ["localhost:8501/shard-0-of-2", "localhost:8502/shard-1-of-2"],
            partial=True,
        )
        with client:
            (answer,) = client.recommend([["50", "172", "181"]])
            print(answer.ids[:3], answer.missing)
    """

    def __init__(
        self,
        query: AnyClient,
        shards: Sequence[AnyClient],
        *,
        timeout: float = 1.0,
        partial: bool = False,
        keep_seen: bool = False,
    ) -> None:
        if not shards:
            raise InputError(
                "`shards` must name at least one server. Received: none. Pass those "
                "that hold the items, in the order of their numbers."
            )
        self.timeout = check_positive("timeout", timeout)
        self.partial = bool(partial)
        self.keep_seen = bool(keep_seen)
        self._query = query
        self._shards = list(shards)
        self._threads = [ThreadPoolExecutor(_CONCURRENCY) for _ in self._shards]

    @classmethod
    def connect(
        cls,
        query: str,
        shards: Sequence[str],
        *,
        timeout: float = 1.0,
        version: int | str | None = None,
        **options: Any,
    ) -> ShardedClient:
        """Connects to servers.

        Args:
            query: str. `HOST:PORT/MODEL` of the query model for gRPC, or
                `http://HOST:PORT/MODEL`.
            shards: list of str, likewise.
            timeout: float. As in the class.
            version: int, str or None. Of the query model, by number or label; None
                takes the newest. Defaults to `None`.
            **options: likewise.
        """

        def client(address: str, version: int | str | None = None) -> AnyClient:
            server, slash, model = address.rpartition("/")
            if not slash or not model or server.endswith("/") or not server:
                raise InputError(
                    "A shard must be given as HOST:PORT/MODEL, or with http:// before. "
                    f"Received: {address!r}. Name the model that the server gives it."
                )
            return connect(server, model=model, version=version, timeout=timeout)

        return cls(
            client(query, version), [*map(client, shards)], timeout=timeout, **options
        )

    def close(self) -> None:
        """Closes the connections."""
        for threads in self._threads:
            threads.shutdown(wait=False, cancel_futures=True)
        for client in (self._query, *self._shards):
            client.close()

    def recommend(
        self,
        histories: Ids,
        *,
        exclude: Ids | None = None,
        timestamps: Sequence[Sequence[int]] | None = None,
        request_times: Sequence[int] | None = None,
        features: calls.Features = None,
        event_features: calls.EventFeatures = None,
    ) -> list[ShardedRecommendations]:
        """The best items for each history; arguments as in `Client.recommend`.

        Returns:
            A `ShardedRecommendations` for each history.
        """
        deadline = time.monotonic() + self.timeout
        left_out = calls.rows_to_exclude(
            None if self.keep_seen else histories, exclude, len(histories)
        )
        vectors = self._query.embed_query(
            histories,
            timestamps=timestamps,
            request_times=request_times,
            features=features,
            event_features=event_features,
        )
        if not vectors:
            return []
        answers, missing = self._search(vectors, left_out, deadline)
        return [
            ShardedRecommendations(
                items=_merged([answer.outputs for answer in answers], row),
                version=vector.version,
                missing=missing,
            )
            for row, vector in enumerate(vectors)
        ]

    def inputs(self) -> Mapping[str, TensorSpec]:
        """What a request may tell, as of `Client.inputs`."""
        return self._query.inputs()

    def _search(
        self, vectors: list[Embedding], left_out: list[list[bytes]], deadline: float
    ) -> tuple[list[Prediction], tuple[int, ...]]:
        """The answers of the shards, in their order, and who has not answered."""
        inputs = calls.search(vectors, left_out, width=self._query.width)
        version = vectors[0].version
        futures = [
            threads.submit(client.predict, "search", inputs, version=version)
            for threads, client in zip(self._threads, self._shards, strict=True)
        ]
        answers, failed = [], {}
        for number, future in enumerate(futures):
            try:
                answers.append(self._result(number, future, deadline))
            except ServerError as error:
                failed[number] = error
                if not self.partial:
                    break
        for future in futures:
            future.cancel()
        if failed and (not self.partial or not answers):
            raise next(iter(failed.values()))
        return answers, tuple(failed)

    def _result(
        self, number: int, future: Future[Prediction], deadline: float
    ) -> Prediction:
        try:
            return future.result(max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            raise ServerError(
                "DEADLINE_EXCEEDED",
                f"shard {number} of {len(self._shards)} did not answer within "
                f"{self.timeout:g} seconds",
                self._shards[number].address,
            ) from None


def _merged(shards: list[dict[str, Any]], row: int) -> tuple[RankedItem, ...]:
    """The best of what the shards answered, as many as each was asked for."""
    found: list[tuple[float, bytes]] = []
    for outputs in shards:
        found += _items(outputs, row)
    # Stable: among equal scores, the earlier shard and its earlier item come first.
    found.sort(key=lambda item: -item[0])
    k = max(outputs["ids"].shape[1] for outputs in shards)
    return tuple(
        RankedItem(item.decode("utf-8", "replace"), score) for score, item in found[:k]
    )


def _items(outputs: dict[str, Any], row: int) -> Iterator[tuple[float, bytes]]:
    ids, scores = outputs["ids"].rows()[row], outputs["scores"].rows()[row]
    for item, score in zip(ids, scores, strict=True):
        if item:
            yield float(score), item
