"""`export --target-recall`: an index tuned to the requests that a run held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tfrs_selfattn import InputError

if TYPE_CHECKING:
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.data import EvaluationSet
    from tfrs_selfattn.models import SequenceRetrieval
    from tfrs_selfattn.training import DataConfig, RunFolder

# More of them would not change which setting is chosen, only take longer.
_MOST_HISTORIES = 512
_BATCH = 64


def tuned_index(
    report: Report,
    folder: RunFolder,
    model: SequenceRetrieval,
    source: DataConfig,
    *,
    target_recall: float,
    k: int,
    xla: bool,
) -> Any:
    """A `PartitionedTopK` of a run's items, tuned on its validation histories."""
    from tfrs_selfattn.cli._features import side_of_run
    from tfrs_selfattn.cli._steps import prepare_again
    from tfrs_selfattn.export.checks import candidates_of
    from tfrs_selfattn.export.searching import as_index
    from tfrs_selfattn.index import PartitionedTopK

    prepared = prepare_again(report, folder, source)
    split = side_of_run(folder, prepared.split).attach(prepared.split)
    if not len(split.validation):
        raise InputError(
            "--target-recall must have users with 3 or more events, on whose histories "
            "it is measured. Received: none. Leave it out, and tune in Python with "
            "queries of your own."
        )
    candidates = candidates_of(model, len(split.sequences.vocabulary))
    with report.waiting("Tuning the index"):
        queries = _queries(model, split.validation)
        settings = as_index("partitioned", k=k, xla=xla).settings
        index = PartitionedTopK(k=k, **settings).index(candidates)
        chosen = index.tune(queries, target_recall).chosen
    missed = "" if chosen.recall >= target_recall else ", the most that it can"
    report.say(
        f"A search of {chosen.num_leaves_to_search:,} of {chosen.num_leaves:,} leaves "
        f"finds {chosen.recall:.1%} of the best {k}{missed}, for "
        f"{len(queries):,} queries of validation"
    )
    return index


def _queries(model: SequenceRetrieval, cases: EvaluationSet) -> Any:
    """The query vectors of some cases, several for one with several interests."""
    from tfrs_selfattn.evaluation.evaluate import (
        batches,
        score_inputs,
        shortest_first,
        take,
    )
    from tfrs_selfattn.models.query_features import feature_specs

    count = min(len(cases), _MOST_HISTORIES)
    cases = take(cases, np.linspace(0, len(cases) - 1, count).astype(np.int64))
    cases = take(cases, shortest_first(cases))
    features = tuple(feature_specs(model.query_tower))
    names = ("timestamps", "request_time") if model.time_aware else ()

    def embed(history: Any, *more: Any) -> Any:
        told = dict(zip((*names, *features), more, strict=True))
        return model(history, training=False, **told)

    embed.time_aware, embed.side_features = model.time_aware, features  # type: ignore[attr-defined]
    found = [
        np.asarray(embed(*score_inputs(embed, cases, part)))
        for part in batches(count, _BATCH)
    ]
    return np.concatenate([each.reshape(-1, each.shape[-1]) for each in found])
