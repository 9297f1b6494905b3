"""What a command prints: text and tables for people, one JSON object for machines."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table


class Report:
    """Prints the progress and the result of one command.

    With `as_json`, standard output carries the JSON object and nothing else; whatever
    people would read, Keras' progress bars included, goes to standard error.

    Args:
        as_json: bool.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    @property
    def keras_verbosity(self) -> int:
        """A progress bar on a terminal, one line an epoch elsewhere."""
        return 1 if self._console.is_terminal else 2

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Keeps the prints of libraries off a machine's standard output."""
        with contextlib.ExitStack() as stack:
            if self._as_json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield

    def say(self, text: str = "") -> None:
        """Prints a line as it is."""
        self._console.print(text, markup=False)

    def heading(self, text: str) -> None:
        """Prints the title of a step."""
        self._console.print()
        self._console.print(text, style="bold", markup=False)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table; every column but the first is aligned to the right."""
        table = Table()
        for index, column in enumerate(columns):
            table.add_column(column, justify="right" if index else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; yields a function of (done, total)."""
        with Progress(console=self._console, transient=True) as bar:
            task = bar.add_task(label)

            def update(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield update

    def result(self, content: dict[str, Any]) -> None:
        """Prints the JSON object when one was asked for."""
        if self._as_json:
            print(json.dumps(content), file=sys.stdout, flush=True)
