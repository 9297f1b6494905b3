"""What a run knows beside ids: its features, fitted, and the values they have.

```
features.json            the fitted features of the items
item_features.parquet    raw values of the items, in the order of the vocabulary
```
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
from tfrs_selfattn.features.feature_set import FeatureSet
from tfrs_selfattn.features.table import FeatureTable

if TYPE_CHECKING:
    from tfrs_selfattn.models.content_embedding import ItemContent

FILE = "features.json"
_TABLES = {"items": "item_features.parquet"}
# All that `save` writes, finished or not.
FILES = {name for file in (FILE, *_TABLES.values()) for name in (file, f"{file}.part")}


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of items.

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
    """

    items: Known | None = None

    def __bool__(self) -> bool:
        return bool(self._sets())

    def _sets(self) -> dict[str, FeatureSet]:
        return {} if self.items is None else {"items": self.items.features}

    def content(self) -> ItemContent | None:
        """The items as a model takes them."""
        if self.items is None:
            return None
        from tfrs_selfattn.models.content_embedding import ItemContent

        return ItemContent.of(self.items.features, self.items.table)

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold: the fitted features by what they are of."""
        return {name: each.to_config() for name, each in self._sets().items()}

    def fingerprint(self) -> str:
        """SHA-256 of all that a model learns from; `""` for nothing."""
        if not self:
            return ""
        text = json.dumps(self.to_config(), sort_keys=True)
        digest = hashlib.sha256(text.encode())
        if self.items is not None:
            _update(digest, self.items.table.raw)
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
        return cls(known.get("items"))


def _update(digest: Any, raw: Mapping[str, npt.NDArray[Any]]) -> None:
    for name in sorted(raw):
        values = raw[name]
        digest.update(name.encode())
        if values.dtype == object:
            digest.update(b"\0".join(values.tolist()))
        else:
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
