"""A conversation with a model server: type item ids or titles, see what follows.

    python serving/demo.py localhost:8500 --items models/films/1/assets.extra/titles.csv

`-WORD` takes an item back, an empty line starts over, Ctrl-D ends.
"""

from __future__ import annotations

import argparse
import sys

from tfrs_selfattn import InputError
from tfrs_selfattn.client import ServerError, connect
from tfrs_selfattn.data import read_titles

SHOWN = 10


def find(word: str, titles: dict[str, str]) -> str | None:
    """The id that a word means: itself, or the shortest title that holds it."""
    if word in titles or not titles:
        return word
    found = [item for item, title in titles.items() if word.lower() in title.lower()]
    return min(found, key=lambda item: len(titles[item]), default=None)


def main() -> int:
    """Reads lines until they end; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="HOST:PORT for gRPC, http://HOST:PORT for REST")
    parser.add_argument("--model", default="recommender")
    parser.add_argument("--items", help="file with the columns item_id and title")
    options = parser.parse_args()
    history: list[str] = []
    try:
        titles = read_titles(options.items) if options.items else {}
        with connect(options.address, model=options.model) as client:
            print("Type an item. An empty line starts over, Ctrl-D ends.")
            while True:
                show(client.recommend([history])[0].ids[:SHOWN], titles)
                try:
                    word = input("> ").strip()
                except EOFError:
                    print()
                    return 0
                history = follow(history, word, titles)
                print("history:", ", ".join(titles.get(i, i) for i in history) or "-")
    except (InputError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1


def follow(history: list[str], word: str, titles: dict[str, str]) -> list[str]:
    """The history after a line was typed."""
    if not word:
        return []
    item = find(word.removeprefix("-"), titles)
    if item is None:
        print(f"no title holds {word!r}")
        return history
    if word.startswith("-"):
        return [other for other in history if other != item]
    return [*history, item]


def show(ids: list[str], titles: dict[str, str]) -> None:
    """Prints what is recommended."""
    for place, item in enumerate(ids, start=1):
        print(f"{place:>3}  {item}  {titles.get(item, '')}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
