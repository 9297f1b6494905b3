"""What a run knows beside ids: its features, fitted, and the values they have.

```
features.json            the fitted features
item_features.parquet    raw values of the items, in the order of the vocabulary
user_features.parquet    those of the users, in the order of the log
```

What is known of events and requests stands in the event log, which is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn._checks import InputError
from tfrs_selfattn.data.side import EVENT, QUERY, with_sides
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.features.feature_set import FeatureSet, check_distinct
from tfrs_selfattn.features.table import FeatureTable

if TYPE_CHECKING:
    from tfrs_selfattn.models.content_embedding import ItemContent

FILE = "features.json"
_TABLES = {"items": "item_features.parquet", "users": "user_features.parquet"}
# All that `save` writes, finished or not.
FILES = {name for file in (FILE, *_TABLES.values()) for name in (file, f"{file}.part")}


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of items, or of users.

    Args:
        features: `FeatureSet`, fitted.
        table: `FeatureTable`, their raw values.
    """

    features: FeatureSet
    table: FeatureTable

    @classmethod
    def fit(
        cls,
        features: FeatureSet,
        table: FeatureTable,
        trained: npt.NDArray[np.bool_] | None = None,
    ) -> Known:
        """Fits features to a table.

        Args:
            features: `FeatureSet`.
            table: `FeatureTable`.
            trained: bool `[n]`. The rows that training shows; None for all.
        """
        rows = np.arange(len(table.ids))
        if trained is not None:
            rows = rows[trained]
        return cls(features.fit(table.take(rows).raw, table.name), table)


@dataclass(frozen=True, eq=False)
class SideInformation:
    """What a run knows beside ids.

    Args:
        items: `Known`, in the order of the vocabulary, or None. Defaults to `None`.
        users: `Known`, in the order of the log, or None. Defaults to `None`.
        context: `FeatureSet` of requests, fitted, whose values are columns of the log,
            or None. Defaults to `None`.
        events: `FeatureSet` of events, likewise. Defaults to `None`.
    """

    items: Known | None = None
    users: Known | None = None
    context: FeatureSet | None = None
    events: FeatureSet | None = None

    def __bool__(self) -> bool:
        return bool(self._sets())

    def _sets(self) -> dict[str, FeatureSet]:
        sets = {
            "items": None if self.items is None else self.items.features,
            "users": None if self.users is None else self.users.features,
            "context": self.context,
            "events": self.events,
        }
        return {name: each for name, each in sets.items() if each is not None}

    @property
    def query(self) -> FeatureSet | None:
        """What is known when a user asks: of the user, then of the request."""
        sets = self._sets()
        parts = [sets[name] for name in ("users", "context") if name in sets]
        if not parts:
            return None
        check_distinct(*parts, self.events)
        return FeatureSet(tuple(feature for part in parts for feature in part))

    def attach(self, split: Split) -> Split:
        """The split, whose rows and cases carry what is known of users and events.

        Args:
            split: `Split` of the log, read with the columns of `context` and `events`.
        """
        # After the checks of what was asked: this starts TensorFlow.
        from tfrs_selfattn.features.events import table_of_events

        sequences, sides = split.sequences, {}
        if self.query is not None:
            raw = {
                each.name: sequences.columns[each.name] for each in self.context or ()
            }
            if self.users is not None:
                ids = sequences.user_ids.to_list()
                users, _ = self.users.table.align(ids, self.users.features)
                owner = np.repeat(np.arange(len(ids)), sequences.lengths)
                raw |= {name: values[owner] for name, values in users.raw.items()}
            sides[QUERY] = table_of_events(self.query, raw)
        if self.events is not None:
            raw = {each.name: sequences.columns[each.name] for each in self.events}
            sides[EVENT] = table_of_events(self.events, raw)
        return with_sides(split, sides) if sides else split

    def content(self) -> ItemContent | None:
        """The items as a model takes them."""
        if self.items is None:
            return None
        from tfrs_selfattn.models.content_embedding import ItemContent

        return ItemContent.of(self.items.features, self.items.table)

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold: the fitted features by what they are of."""
        return {name: each.to_config() for name, each in self._sets().items()}

    def fingerprint(self, columns: Mapping[str, npt.NDArray[Any]] | None = None) -> str:
        """SHA-256 of all that a model learns from; `""` for nothing.

        Args:
            columns: raw values of the log, by name. Defaults to `None`, for none.
        """
        if not self:
            return ""
        text = json.dumps(self.to_config(), sort_keys=True)
        digest = hashlib.sha256(text.encode())
        for known in (self.items, self.users):
            if known is not None:
                _update(digest, known.table.raw)
        _update(digest, columns or {})
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Writes the files, those of features last."""
        for name, file in _TABLES.items():
            known = getattr(self, name)
            if known is not None:
                known.table.save(folder / file)
        if self:
            beside = folder / f"{FILE}.part"
            text = json.dumps(self.to_config(), indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")
            os.replace(beside, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> SideInformation:
        """Reads what `save` wrote; nothing where it wrote nothing.

        Raises:
            InputError: when a file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            sets = {
                name: FeatureSet.from_config(config) for name, config in content.items()
            }
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} must be the features of a run. It cannot be used ({error}). "
                "Restore it, or train again."
            ) from None
        known = {
            name: Known(sets[name], FeatureTable.load(folder / file))
            for name, file in _TABLES.items()
            if name in sets
        }
        return cls(
            known.get("items"),
            known.get("users"),
            sets.get("context"),
            sets.get("events"),
        )


def _update(digest: Any, raw: Mapping[str, npt.NDArray[Any]]) -> None:
    for name in sorted(raw):
        values = raw[name]
        digest.update(name.encode())
        if values.dtype == object:
            digest.update(b"\0".join(values.tolist()))
        else:
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
