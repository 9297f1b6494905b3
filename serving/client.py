"""Asks a model server from the shell: `python serving/client.py --help`.

The client itself is `tfrs_selfattn.client`, so that programs, the command
`tfrs-selfattn recommend --server` and this file share one. It needs neither TensorFlow
nor NumPy: `pip install --no-deps tfrs-selfattn` beside `grpcio` and `protobuf` will do,
and for REST the first alone. To build on, see `ask`, `ask_many` and `follow` below.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from tfrs_selfattn import InputError
from tfrs_selfattn.client import (
    AsyncClient,
    Recommendations,
    Retry,
    ServerError,
    connect,
)


def ask(address: str, history: list[str], **options: Any) -> Recommendations:
    """One question; `address` is HOST:PORT for gRPC, http://HOST:PORT for REST."""
    with connect(address, retry=Retry(attempts=3), **options) as client:
        (answer,) = client.recommend([history])
    return answer


async def ask_many(
    address: str, histories: list[list[str]], **options: Any
) -> list[Recommendations]:
    """Many questions at once over one gRPC connection."""
    async with AsyncClient(address, **options) as client:
        answers = await asyncio.gather(*(client.recommend([row]) for row in histories))
    return [answer for (answer,) in answers]


def follow(address: str, **options: Any) -> list[str]:
    """A line for each version that the server knows of."""
    with connect(address, **options) as client:
        return [f"{s.version} {s.state} {s.error}".strip() for s in client.status()]


def main() -> int:
    """Prints recommendations or the versions; returns the exit status."""
    parser = argparse.ArgumentParser(description="Ask a model server.")
    parser.add_argument("address", help="HOST:PORT for gRPC, http://HOST:PORT for REST")
    parser.add_argument("--model", default="recommender")
    parser.add_argument("--version", help="number or label, in place of the newest")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds")
    parser.add_argument("--history", nargs="*", action="append", metavar="ID")
    parser.add_argument("--status", action="store_true", help="list the versions")
    options = parser.parse_args()
    version = options.version
    how = {
        "model": options.model,
        "timeout": options.timeout,
        "version": int(version) if (version or "").isdecimal() else version,
    }
    try:
        if options.status:
            print("\n".join(follow(options.address, **how)))
            return 0
        histories = options.history or [[]]
        if len(histories) > 1 and not options.address.startswith("http"):
            answers = asyncio.run(ask_many(options.address, histories, **how))
        else:
            answers = [ask(options.address, row, **how) for row in histories]
    except (InputError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    for history, answer in zip(histories, answers, strict=True):
        print(f"{' '.join(history) or 'nobody knows what'} -> {' '.join(answer.ids)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
