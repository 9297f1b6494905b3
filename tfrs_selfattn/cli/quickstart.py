"""`tfrs-selfattn quickstart`: the whole chain on MovieLens-100K in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

_STAR_WARS_FAN = "50,172,181"  # the first three films
_TOY_STORY_FAN = "1,588,95"  # then Beauty and the Beast, Aladdin
_PATIENCE = 40  # all of the epochs: they are few, and the last ones still help


def quickstart(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with MovieLens-100K; found or downloaded if absent."),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for the run and the export.")
    ] = Path("tfrs-selfattn-quickstart"),
    history: Annotated[
        str, typer.Option(help="Film ids to recommend for, separated by commas.")
    ] = _STAR_WARS_FAN,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many.")] = 40,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last.")
    ] = False,
) -> None:
    """Train, evaluate, export and ask on MovieLens-100K.

    Takes a few minutes. The data comes from --data, else from the folder named by the
    environment variable TFRS_SELFATTN_DATA, else from the cache, else it is downloaded.

    \b
    Example:
        tfrs-selfattn quickstart --history "1,588,95"
    """
    from tfrs_selfattn import training
    from tfrs_selfattn.cli import _evaluation, _steps
    from tfrs_selfattn.cli._report import Report, shell
    from tfrs_selfattn.cli.export import export_run, serve_command
    from tfrs_selfattn.cli.recommend import print_answer, split_ids
    from tfrs_selfattn.data import locate_movielens_100k

    started = time.perf_counter()
    report = Report(as_json)
    run, base = output / "run", output / "export"
    training.check_output(run)
    with report.working():
        report.heading("1. Data: MovieLens-100K")
        movielens = locate_movielens_100k(data)
        report.say(f"{movielens.folder} ({movielens.source}; {movielens.licence})")
        source = training.DataConfig(path=str(movielens.folder.absolute()))
        prepared = _steps.prepare(report, source)

        report.heading("2. Train: SASRec, every position predicts the next film")
        folder = _steps.create_run(
            report,
            run,
            prepared,
            source,
            training.ModelConfig(),
            training.TrainingConfig(epochs=epochs, patience=_PATIENCE, batch_size=16),
        )
        model = _steps.fit(report, folder, prepared.split).model

        report.heading("3. Evaluate: the last film of every user")
        results = _evaluation.evaluate_all(
            report,
            model,
            prepared.split,
            filter_seen=True,
            baselines=_evaluation.QUICK_BASELINES,
        )
        _evaluation.print_metrics(
            report, results, prepared.split, True, _evaluation.SHORT
        )

        tested = {
            "metrics": _evaluation.metrics_json(results, _evaluation.SHORT),
            "users": len(prepared.split.test),
            "filter_seen": True,
            "split": _evaluation.split_json(prepared.split.times),
        }
        folder.write_metrics({**folder.metrics(), "test": tested})

        report.heading("4. Export: one SavedModel, the index inside")
        exported = export_run(report, folder, model, base, k=100)

        report.heading("5. Recommend: from the SavedModel")
        from tfrs_selfattn.export import load_recommender

        recommender = load_recommender(base)
        user = int(prepared.split.test.users[0])
        seen, _ = prepared.sequences.user(user)
        watched = prepared.sequences.vocabulary.decode(seen)
        histories = {
            f"User {prepared.sequences.user_ids[user]}": watched,
            f'The history "{history}"': split_ids(history),
        }
        for label, past in histories.items():
            report.say(label)
            print_answer(
                report, recommender, past, recommender.recommend([past])[0][:10]
            )

    report.heading("What next")
    report.commands(
        {
            "Ask again": shell(
                "tfrs-selfattn", "recommend", base, "--history", _TOY_STORY_FAN
            ),
            "Look inside": shell("tensorboard", "--logdir", folder.tensorboard),
            "Serve it": serve_command(base),
            "Train anew": shell(
                *("tfrs-selfattn", "train", "--data", movielens.folder),
                *("--output", output / "my-run"),
            ),
            "Your own data": shell("tfrs-selfattn", "train", "--help"),
        }
    )
    seconds = time.perf_counter() - started
    report.say(f"Done in {seconds:.0f} seconds")
    report.result(
        {
            "dataset": "ml-100k",
            "users": prepared.summary.users,
            "items": prepared.summary.items,
            "events": prepared.summary.events,
            "metrics": tested["metrics"],
            "export": str(exported.path),
            "seconds": round(seconds, 1),
        }
    )
