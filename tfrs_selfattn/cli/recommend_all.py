"""`tfrs-selfattn recommend-all`: the best items of every user, as Parquet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tfrs_selfattn import InputError
from tfrs_selfattn.cli._beam import Runner, check_beam, refuse_more


def recommend_all(
    context: typer.Context,
    export: Annotated[str, typer.Argument(help="Folder given to `export --to`.")],
    users: Annotated[
        str,
        typer.Option(
            help="A folder written by `prepare`, or Parquet with the columns user_id "
            "and history (a list of ids, oldest first), those of the features that "
            "the export takes, and optionally exclude, timestamps and request_time."
        ),
    ],
    output: Annotated[str, typer.Option(help="Folder of the answers.")],
    batch_size: Annotated[
        int, typer.Option(min=1, help="Users that are asked about at once.")
    ] = 256,
    users_per_file: Annotated[
        int, typer.Option(min=1, help="Users of a file of answers.")
    ] = 20_000,
    request_time: Annotated[
        int | None,
        typer.Option(
            help="Unix time at which users ask, for a time-aware model.",
            show_default="now",
        ),
    ] = None,
    runner: Runner = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
) -> None:
    """Recommend to every user, in files.

    Items of the history are left out as the export does it, those of the column
    exclude too. Stopped and repeated, it goes on with the users that have no answer.

    \b
    Example:
        tfrs-selfattn recommend-all models/films --users prepared --output answers
    """
    from tfrs_selfattn.cli._report import Report
    from tfrs_selfattn.cli._tensorflow import start_tensorflow

    started = time.perf_counter()
    report = Report(as_json)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "users_per_file": users_per_file,
        "request_time": request_time,
    }
    with report.working():
        if runner is None:
            refuse_more(context)
        else:
            check_beam()
        with report.waiting("Starting TensorFlow"):
            start_tensorflow()
        if runner is None:
            from tfrs_selfattn.export import recommend_all as in_process

            for name, path in (("EXPORT", export), ("--users", users)):
                _check_local(name, path)
            with report.progress("Recommending") as progress:
                done = in_process(
                    export, users, Path(output), progress=progress, **options
                )
        else:
            from tfrs_selfattn.beam.recommend_all import recommend_all_on_beam

            with report.waiting(f"Recommending on {runner}"):
                done = recommend_all_on_beam(
                    export,
                    users,
                    output,
                    runner=runner,
                    arguments=context.args,
                    **options,
                )
    seconds = time.perf_counter() - started
    report.say(f"Answers for {done.users:,} users in {done.files:,} files of {output}")
    if done.resumed:
        report.say(f"  {done.resumed:,} of them were there already")
    report.result(
        {
            "output": output,
            "users": done.users,
            "files": done.files,
            "resumed": done.resumed,
            "seconds": round(seconds, 1),
        }
    )


def _check_local(name: str, path: str) -> None:
    if "://" in path:
        raise InputError(
            f"{name} must be a path on this machine. Received: {path}. Add --runner, "
            "which reads other places."
        )
