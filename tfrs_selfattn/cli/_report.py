"""What a command prints: text and tables for people, one JSON object for machines."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
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
        # Ids and titles are printed as they are: "[REC]" is a film, not a style.
        self._console = Console(
            stderr=as_json, highlight=False, markup=False, emoji=False, soft_wrap=True
        )

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
        self._console.print(text)

    def heading(self, text: str) -> None:
        """Prints the title of a step."""
        self._console.print()
        self._console.print(text, style="bold")

    def commands(self, commands: dict[str, str]) -> None:
        """Prints labelled commands to go on with, below each other."""
        width = max(map(len, commands)) + 1
        for label, command in commands.items():
            self.say(f"{label + ':':<{width}} {command}")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table; columns of numbers are aligned to the right."""
        table = Table()
        for index, column in enumerate(columns):
            numbers = all(_is_number(row[index]) for row in rows)
            table.add_column(
                column, justify="right" if numbers else "left", overflow="fold"
            )
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    @contextlib.contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Shows, on a terminal, that something is under way."""
        with contextlib.ExitStack() as stack:
            if not self._as_json:
                stack.enter_context(self._console.status(label))
            yield

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; yields a function of (done, total)."""
        away = not self._console.is_terminal
        with Progress(console=self._console, transient=True, disable=away) as bar:
            task = bar.add_task(label)

            def update(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield update

    def result(self, content: dict[str, Any]) -> None:
        """Prints the JSON object when one was asked for."""
        if self._as_json:
            print(json.dumps(content), file=sys.stdout, flush=True)


def shell(*words: object) -> str:
    """A command as it can be pasted into the shell, quoted where needed."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False
