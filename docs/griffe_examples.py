"""Shows the doctests of docstrings as code: their outputs are no Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n\n((?:>>> .*(?:\n.+)*\n*)+)", re.MULTILINE)


class Examples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_as_code, obj.docstring.value)


def _as_code(found: re.Match[str]) -> str:
    return f"**Example**\n\n```pycon\n{found[1].rstrip()}\n```\n\n"
