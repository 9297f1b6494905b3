"""`tfrs-selfattn benchmark`: how fast an export answers, here or behind a server."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tfrs_selfattn.cli._asked import (
    BaseArgument,
    ModelOption,
    ModelVersionOption,
    ServerOption,
    as_version,
    check_asked,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfrs_selfattn.client import TensorSpec

Ask: TypeAlias = "Callable[[Sequence[Sequence[str]]], object]"

_WARMUP = 10
_REQUESTS = 64  # different ones
_TIMEOUT = 60.0
_AN_HOUR = 3600


def benchmark(
    base: BaseArgument = None,
    server: ServerOption = None,
    model: ModelOption = "recommender",
    model_version: ModelVersionOption = None,
    batch: Annotated[int, typer.Option(min=1, help="Histories in a request.")] = 1,
    length: Annotated[int, typer.Option(min=1, help="Items in a history.")] = 50,
    clients: Annotated[
        int, typer.Option(min=1, help="Threads that ask all the time.")
    ] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure.")] = 5.0,
    seed: Annotated[int, typer.Option(help="Of the random histories.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Measure how fast an export or a server answers.

    Histories are drawn at random from the model's most popular items. Each client asks
    again as soon as it is answered, so a request waits for those of the other clients:
    one client shows what an answer takes, more of them how many there can be. For
    requests that arrive whatever the server does, see serving/load_test.py.

    \b
    Example:
        tfrs-selfattn benchmark models/films --batch 32
        tfrs-selfattn benchmark --server localhost:8500 --clients 8 --json
    """
    from tfrs_selfattn.cli._report import Report

    check_asked(base, server)
    report = Report(as_json)
    with report.working():
        if server is None:
            with report.waiting("Loading the export"):
                ask, popular, version = _export(str(base))
            close: Callable[[], None] = _nothing
        else:
            ask, popular, version, close = _server(server, model, model_version)
        try:
            draw = random.Random(seed)
            requests = [
                [draw.choices(popular, k=length) for _ in range(batch)]
                for _ in range(_REQUESTS)
            ]
            with report.waiting(f"Asking for {seconds:g} seconds"):
                times, took = measure(ask, requests, clients=clients, seconds=seconds)
        finally:
            close()
    figures = {
        "requests": len(times),
        "requests_per_second": round(len(times) / took, 1),
        "p50_ms": round(percentile(times, 0.50), 3),
        "p99_ms": round(percentile(times, 0.99), 3),
    }
    report.say(
        f"Version {version or 'the newest'} of {base or f'{model} at {server}'}: "
        f"{figures['requests']:,} requests of {batch} x {length} items from {clients} "
        f"{'client' if clients == 1 else 'clients'} in {took:.1f} s"
    )
    report.table(
        ("p50 ms", "p99 ms", "requests a second"),
        [tuple(str(figures[n]) for n in ("p50_ms", "p99_ms", "requests_per_second"))],
    )
    asked = {"export": str(base)} if server is None else {"server": server}
    report.result(
        {
            **asked,
            "version": version,
            "batch": batch,
            "length": length,
            "clients": clients,
            "seconds": round(took, 3),
            **figures,
        }
    )


def measure(
    ask: Ask,
    requests: Sequence[Sequence[Sequence[str]]],
    *,
    clients: int,
    seconds: float,
) -> tuple[list[float], float]:
    """Sorted milliseconds of each request, and the seconds that all of them took."""
    for request in itertools.islice(itertools.cycle(requests), _WARMUP):
        ask(request)
    began = time.perf_counter()

    def work(number: int) -> list[float]:
        times = []
        for request in itertools.cycle([*requests[number:], *requests[:number]]):
            asked = time.perf_counter()
            ask(request)
            answered = time.perf_counter()
            times.append(1e3 * (answered - asked))
            if answered - began >= seconds:
                break
        return times

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(work, [n % len(requests) for n in range(clients)]))
    took = time.perf_counter() - began
    return sorted(itertools.chain(*found)), took


def percentile(times: Sequence[float], share: float) -> float:
    """Of sorted times, that which `share` of them do not exceed."""
    return times[min(int(share * len(times)), len(times) - 1)]


def _export(base: str) -> tuple[Ask, list[str], int | None]:
    from tfrs_selfattn.cli._tensorflow import start_tensorflow

    start_tensorflow()
    from tfrs_selfattn.export import load_recommender

    recommender = load_recommender(base)
    inputs = recommender.inputs

    def ask(histories: Sequence[Sequence[str]]) -> Any:
        return recommender.recommend(histories, **_times(inputs, histories))

    return ask, [item.id for item in ask([[]])[0]], recommender.version


def _server(
    server: str, model: str, version: str | None
) -> tuple[Ask, list[str], int | None, Callable[[], None]]:
    from tfrs_selfattn.client import connect

    client = connect(server, model=model, version=as_version(version), timeout=_TIMEOUT)
    try:
        inputs = client.inputs()

        def ask(histories: Sequence[Sequence[str]]) -> Any:
            return client.recommend(histories, **_times(inputs, histories))

        (answer,) = ask([[]])
    except BaseException:
        client.close()
        raise
    return ask, answer.ids, answer.version, client.close


def _times(
    inputs: Mapping[str, TensorSpec], histories: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """For a time-aware model: an event an hour, the last one just now."""
    if "timestamps" not in inputs:
        return {}
    now = int(time.time())
    return {
        "timestamps": [
            [now - _AN_HOUR * (len(row) - place) for place in range(len(row))]
            for row in histories
        ],
        "request_times": [now] * len(histories),
    }


def _nothing() -> None:
    """Closes what needs no closing."""
