"""`assets.extra/model_card.md`: what a version is for, and what it is not, for people.

Made from the manifest alone, so that whoever can read `recommender.json` can make it
again, and a refresh carries it on. A server does not look at it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfrs_selfattn.export import manifest

FILE = "model_card.md"

_UNSTATED = "Not stated by whoever exported the model."


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Writes the card into the `assets.extra` of a version."""
    text = model_card(contents)
    (folder / manifest.FOLDER / FILE).write_text(text, encoding="utf-8")


def model_card(contents: Mapping[str, Any]) -> str:
    """The card of a version, in Markdown.

    Args:
        contents: the manifest of the version, see `tfrs_selfattn.export.manifest`.

    Returns:
        str with the sections Intended use, Model, Data, Protocol and metrics, Limits
        and, where the exporter gave some, Notes.

    References:
        - [Mitchell et al., 2019](https://arxiv.org/abs/1810.03993), on what a card
          should hold.
    """
    source = contents.get("source")
    source = source if isinstance(source, Mapping) else {"source": source}
    name = (contents.get("model") or {}).get("name") or "recommender"
    lines = [
        f"# Model card: {_text(name)}, version {contents['version']}",
        "",
        f"Written {contents['created']} from `{manifest.FILE}`, which lies beside it.",
        "",
        *_section("Intended use", _intended_use(contents)),
        *_section("Model", _table(_model(contents, source))),
        *_section("Data", _data(contents, source)),
        *_section("Protocol and metrics", _metrics(contents, source)),
        *_section("Limits", [f"- {limit}" for limit in _limits(contents, source)]),
    ]
    if contents.get("notes"):
        lines += _section("Notes", [str(contents["notes"]).strip()])
    return "\n".join(lines).rstrip() + "\n"


def _intended_use(contents: Mapping[str, Any]) -> list[str]:
    items = f"{contents['items']:,}"
    if contents.get("parts") == "query":
        return [
            "Turns the history of a user, item ids oldest first, into a vector, to be "
            "looked up in an index of the same training run."
        ]
    if contents.get("parts") == "index":
        return [
            f"Finds the best of {items} items for a vector of the query tower of the "
            "same training run."
        ]
    seen = "may be among them" if contents.get("keep_seen") else "are left out"
    return [
        f"Ranks {items} items for the history of a user, item ids oldest first, and "
        f"answers with the {contents['k']} that it expects next; items of the history "
        f"{seen}. Made for shelves of recommendations and as the first stage before a "
        "ranker. Not made for decisions about people: it says what users like these "
        "went on with, and not what is good for anybody."
    ]


def _model(
    contents: Mapping[str, Any], source: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    model = contents.get("model") or {}
    index = contents.get("index") or {}
    searched = index.get("kind")
    if searched == "partitioned" and index.get("recall") is not None:
        searched = f"partitioned; finds {index['recall']:.1%} of the exact answers"
    settings = source.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    rows = [
        ("class", model.get("class")),
        *((name, value) for name, value in settings.items()),
        ("newest items of a history that are read", model.get("max_length")),
        ("uses times", "yes" if contents.get("time_aware") else "no"),
        ("width of vectors", contents.get("embedding_dim")),
        *_known_by(contents),
        ("index", searched),
        ("training run", source.get("run")),
        ("written with", _packages(contents)),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _known_by(contents: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the model is told, by what it is told of."""
    names = {
        group: [each["name"] for each in described.get("features", ())]
        for group, described in (contents.get("features") or {}).items()
    }
    known = {
        "items": ["id", *names.get("items", ())],
        "users and requests": names.get("query", []),
        "events of a history": names.get("events", []),
    }
    return [(f"knows {of} by", ", ".join(by)) for of, by in known.items() if by]


def _packages(contents: Mapping[str, Any]) -> str:
    packages = contents.get("packages") or {}
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def _data(contents: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    rows = [("items that may be answered", f"{contents['items']:,}")]
    if contents.get("events"):
        rows.append(("events behind their popularity", f"{contents['events']:,}"))
    events = source.get("events")
    if isinstance(events, Mapping):
        rows += [(name, value) for name, value in events.items() if value is not None]
    if source.get("data"):
        rows.append(("fingerprint of the events (SHA-256)", f"`{source['data']}`"))
    if source.get("source") is not None:
        rows.append(("source", source["source"]))
    lines = _table(rows)
    if not isinstance(events, Mapping) and not source.get("data"):
        lines += ["", f"The events that it was trained on: {_UNSTATED.lower()}"]
    return lines


def _metrics(contents: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    lines = [str(source.get("protocol") or f"Protocol: {_UNSTATED.lower()}")]
    metrics = contents.get("metrics")
    if not metrics:
        return [*lines, "", f"Metrics: {_UNSTATED.lower()}"]
    if contents.get("refreshed_from") is not None:
        lines += [
            "",
            f"Measured before the items were changed; version "
            f"{contents['refreshed_from']} was refreshed into this one.",
        ]
    return [*lines, *_tables("", metrics)]


def _limits(contents: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
    model = contents.get("model") or {}
    limits = []
    if contents.get("parts") != "index":
        if model.get("max_length"):
            limits.append(
                f"It reads the newest {model['max_length']} items of a history and "
                "knows nothing of older ones."
            )
        limits.append(
            " ".join(
                [
                    "Ids that it does not know are passed over.",
                    *_without_history(contents),
                ]
            )
        )
    if (contents.get("features") or {}).get("items"):
        limits.append(
            "A new item is known by its features alone until the model is trained "
            "again; how well that works is not in the metrics above."
        )
    elif contents.get("parts") != "query":
        limits.append("A new item cannot be answered until it is given a vector.")
    if (contents.get("index") or {}).get("kind") == "partitioned":
        limits.append("The index looks at a part of the items and may miss the best.")
    events = source.get("events")
    if isinstance(events, Mapping) and events.get("last event"):
        limits.append(f"It saw nothing that happened after {events['last event']}.")
    limits += [
        "It was trained and measured on what users did with what they were shown. "
        "Rare items, rare tastes and users with few events are answered worse, and the "
        "metrics, which are means over users, do not say how much.",
        "Offline metrics rank models; they do not tell what a recommendation changes.",
        "Scores compare items within one answer, not answers with each other.",
    ]
    if not contents.get("verified"):
        limits.append("Its answers were not compared with the trained model's.")
    return limits


def _without_history(contents: Mapping[str, Any]) -> list[str]:
    """How a history without a known item is answered."""
    if contents.get("parts") != "all":
        return []
    if (contents.get("features") or {}).get("query"):
        return [
            "After a history without a known item it answers by what is told of the "
            "user and the request, and with the most popular items where that says "
            "nothing to it."
        ]
    return [
        "After a history without a known item everybody is answered alike, with the "
        "most popular items."
    ]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _table(
    rows: Sequence[tuple[Any, ...]], head: Sequence[str] = ("", "")
) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(map(_text, row)) + " |" for row in rows),
    ]


def _tables(title: str, metrics: Any) -> list[str]:
    """Metrics of any form: numbers in tables, mappings of tables below each other."""
    if not isinstance(metrics, Mapping):
        return ["", f"{title}: {_text(metrics)}" if title else _text(metrics)]
    inner = {k: v for k, v in metrics.items() if isinstance(v, Mapping)}
    plain = [(k, v) for k, v in metrics.items() if k not in inner and v is not None]
    lines = ["", f"**{_text(title)}**"] if title else []
    if inner and all(_flat(value) for value in inner.values()):
        columns = list(dict.fromkeys(name for row in inner.values() for name in row))
        rows = [
            (name, *(row.get(column, "") for column in columns))
            for name, row in inner.items()
        ]
        lines += ["", *_table(rows, ("", *map(_text, columns)))]
        inner = {}
    if plain:
        lines += ["", *_table(plain)]
    for name, value in inner.items():
        lines += _tables(f"{title}, {name}" if title else name, value)
    return lines


def _flat(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(one, Mapping | list) for one in value.values())


def _text(value: Any) -> str:
    """A value as a cell: short numbers, one line, no sign that would end the cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split()).replace("|", "\\|")
