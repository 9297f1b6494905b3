"""Writes a catalogue larger than one server: a query model, and shards of the items.

```
<base>/query/<version>/            a history in, a vector out
<base>/shard-0-of-2/<version>/     a vector in, the best of these items out
<base>/shard-1-of-2/<version>/
```

`client.ShardedClient` asks them. A shard holds a run of items in the order of the
vocabulary, so that merging by score, then by the number of the shard, gives the order
of a single index, equal scores included.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn._keras import require_legacy_keras
from tfrs_selfattn.export import checks, manifest, versions
from tfrs_selfattn.export.live import Live, Part
from tfrs_selfattn.export.popularity import all_events
from tfrs_selfattn.export.query_side import QuerySide
from tfrs_selfattn.export.saved_model import export_recommender, facts_of
from tfrs_selfattn.export.searching import Index, as_index
from tfrs_selfattn.export.writing import Export, Items, Settings, write

require_legacy_keras("tfrs_selfattn.export.export_shards")

_QUERY = "query"


def export_shards(
    model: Any,
    base: str | os.PathLike[str],
    *,
    vocabulary: checks.VocabularyLike,
    num_shards: int,
    k: int = 100,
    index: Any = "exact",
    xla: bool = False,
    titles: Mapping[str, str] | None = None,
    metrics: Any = None,
    source: Any = None,
    notes: str | None = None,
    verify: bool = True,
) -> list[Export]:
    """Exports a retrieval model as one query model and shards of its items.

    All get one version number, the next that is free in all of their folders. The query
    model comes last: whoever asks the shards for the version that it names finds them.
    When one cannot be written, none of them is left. Shards embed no new items.

    Args:
        model: as in `export_recommender`, like all that follow.
        base: folder of the folders of versions; made if need be.
        vocabulary: `tfrs_selfattn.data.Vocabulary`.
        num_shards: int. S. Into how many parts of about equal size the items are cut.
        k: int. Columns of a shard's answer, and of the merged one. Defaults to `100`.
        index: str or `PartitionedTopK`. Of each shard. Unless the latter says how many
            leaves are searched, so many are as one index of all items would search.
            Defaults to `"exact"`.
        xla: bool. Defaults to `False`.
        titles: mapping from item id to title, or None. Defaults to `None`.
        metrics: what JSON can hold. Defaults to `None`.
        source: likewise. Defaults to `None`.
        notes: str or None. Markdown that every model card ends with. Defaults to
            `None`.
        verify: bool. Compare the answers of each before it is published. Defaults to
            `True`.

    Returns:
        list of `Export`: the query model, then the shards in their order.

    Raises:
        InputError: when there are more shards than items, or as `export_recommender`.
        ExportError: when one answers other than the model.
    """
    k = check_positive_int("k", k)
    num_shards = check_positive_int("num_shards", num_shards)
    base = Path(base)
    manifest.check_json(metrics=metrics, source=source, notes=notes)
    ids = checks.checked_ids(vocabulary.ids)
    if num_shards > len(ids):
        raise InputError(
            "`num_shards` must not exceed the number of items. Received: num_shards="
            f"{num_shards} for {len(ids)} items. Use fewer shards."
        )
    candidates = checks.candidates_of(model, len(ids))
    counts = np.asarray(vocabulary.counts, np.int64)
    settings = Settings(
        k=k,
        keep_seen=True,  # who asks says what to leave out
        index=as_index(index, k=k, xla=xla),
        parts="index",
        time_aware=bool(getattr(model.query_tower, "time_aware", False)),
    )
    names = [f"shard-{number}-of-{num_shards}" for number in range(num_shards)]
    folders = [base / name for name in (_QUERY, *names)]
    version = 1 + max(max(versions.versions(each), default=0) for each in folders)
    whole = Live(
        model,
        ids,
        counts,
        candidates,
        time_aware=settings.time_aware,
        side=QuerySide.of(model.query_tower),
    )

    def index_of(rows: slice) -> Index:
        return settings.index.of_shard(len(ids), rows.stop - rows.start, k)

    done: list[Export] = []
    try:
        for number, folder in enumerate(folders[1:]):
            rows = slice(
                len(ids) * number // num_shards, len(ids) * (number + 1) // num_shards
            )
            done.append(
                write(
                    folder,
                    version,
                    Items(
                        ids[rows],
                        candidates[rows],
                        counts[rows],
                        titles or {},
                        np.arange(rows.start + 1, rows.stop + 1, dtype=np.int32),
                        all_events=all_events(counts),
                    ),
                    dataclasses.replace(settings, index=index_of(rows)),
                    encode_query=None,
                    truth=Part(whole, rows, counts) if verify else None,
                    samples=None,
                    about={
                        "shard": {"number": number, "of": num_shards},
                        "first_row": rows.start,
                        "model": facts_of(model),
                        "refreshed_from": None,
                        "metrics": metrics,
                        "source": source,
                        "notes": notes,
                    },
                )
            )
        query = export_recommender(
            model,
            folders[0],
            vocabulary=vocabulary,
            k=k,
            version=version,
            parts="query",
            titles=titles,
            metrics=metrics,
            source=source,
            notes=notes,
            verify=verify,
        )
    except BaseException:
        for export in done:
            _remove(export)
        raise
    return [query, *done]


def _remove(export: Export) -> None:
    """Takes a version back, by one rename before its files go."""
    with versions.staging(export.path.parent) as scratch:
        export.path.rename(scratch / export.path.name)
