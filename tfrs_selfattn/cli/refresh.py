"""`tfrs-selfattn refresh`: other items in a served model, without training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfrs_selfattn import InputError


def refresh(
    base: Annotated[Path, typer.Argument(help="Folder given to `export --to`.")],
    items: Annotated[
        Path,
        typer.Option(
            help="File of all items that may be recommended from now on: item_id, and "
            "optionally title, events, embedding, and the columns of its features. Or "
            "MovieLens' movies.dat or u.item, or RecBole's .item."
        ),
    ],
    item_column: Annotated[
        str, typer.Option(help="Column of items in --items.")
    ] = "item_id",
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            help="A feature whose vectors are in a file of their own: NAME=FILE.npy, "
            "with a row for each row of --items. Repeat it for each."
        ),
    ] = None,
    source: Annotated[
        int | None,
        typer.Option(help="Version to start from, in place of the highest."),
    ] = None,
    max_removed: Annotated[
        float,
        typer.Option(help="Refuse to remove a larger share of the items than this."),
    ] = 0.5,
    prune: Annotated[
        int | None,
        typer.Option(min=1, help="Keep so many versions and remove the older ones."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Write a new version of an export, with other items.

    The version in service is not touched: a server that watches the folder takes the
    new one over once it has loaded. To go back, remove the new version's folder. New
    items are embedded from their features, where the model was trained with
    --item-features; else they need a vector each, in the column `embedding`. So are
    items whose features are others now, if the file has the columns of all features.
    If items are refused, --json lists all of them.

    \b
    Example:
        tfrs-selfattn refresh models/films --items films.csv --prune 3
    """
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._tensorflow import start_tensorflow

    report = Report(as_json)
    matrices = _named_files(vectors or [])
    with report.working(), report.waiting("Reading the items"):
        start_tensorflow()
        from tfrs_selfattn.export import read_new_items, refresh_recommender
        from tfrs_selfattn.export.merging import RefusedItems
        from tfrs_selfattn.export.refresh import features_of

        features = features_of(base, source)
        new = read_new_items(
            items, item_column=item_column, features=features, vectors=matrices
        )
    if features is not None and new.features and not new.tells_all(features):
        lacking = [name for name in features.names if name not in new.features]
        report.say(
            f"  {items} has no column {', '.join(lacking)}: items that the export "
            "knows keep their vectors"
        )
    try:
        with report.working(), report.waiting("Writing and asking the new version"):
            done = refresh_recommender(
                base, new, source=source, max_removed=max_removed, prune=prune
            )
    except RefusedItems as error:  # of which the message names the first alone
        report.result({"error": str(error), "items": error.items})
        raise
    counts = {
        "added": len(done.added),
        "removed": len(done.removed),
        "changed": len(done.changed),
    }
    export = done.export
    report.say(
        f"Version {export.version} in {export.path}, from version {done.source}: "
        f"{len(new.ids):,} items, "
        + ", ".join(f"{count:,} {what}" for what, count in counts.items())
    )
    if done.embedded:
        report.say(f"  {len(done.embedded):,} are embedded from their features")
    for number in done.pruned:
        report.say(f"  version {number} is removed")
    report.result(
        {
            "export": str(export.path),
            "version": export.version,
            "source": done.source,
            "items": len(new.ids),
            **counts,
            "embedded": len(done.embedded),
            "pruned": done.pruned,
            "seconds": round(export.seconds, 1),
        }
    )


def _named_files(texts: list[str]) -> dict[str, str]:
    """The options `--vectors`, by name."""
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise InputError(
                "--vectors must be NAME=FILE.npy. Received: "
                f"{text!r}. Name the feature and its file, as in look=look.npy."
            )
        found[name] = path
    return found
