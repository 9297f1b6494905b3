"""Options that the benchmarks which train share: data, seeds, settings, cache."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import platformdirs


def parser_of(doc: str | None, datasets: dict[str, Any], cache: str) -> Any:
    """A parser with these options; `cache` names a folder of the user's cache."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=sorted(datasets), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of its files")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(platformdirs.user_cache_dir("tfrs_selfattn")) / cache,
        help="where runs are kept (default: %(default)s)",
    )
    return parser


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `--set` gave: numbers, true, false and null as such, the rest as text."""
    settings = {}
    for setting in options.set:
        name, separator, value = setting.partition("=")
        if not separator:
            raise SystemExit(f"--set must be NAME=VALUE. Received: {setting}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings
