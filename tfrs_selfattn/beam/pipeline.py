"""Builds and runs a pipeline on any of Beam's runners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tfrs_selfattn._checks import InputError


class PipelineFailed(RuntimeError):
    """A pipeline that did not end well; its message says what to look at."""


def pipeline_options(runner: str, arguments: Sequence[str]) -> PipelineOptions:
    """Pipeline options as Beam's own command lines take them.

    Raises:
        InputError: at an option that neither this command nor Beam knows.
    """
    options = PipelineOptions([f"--runner={runner}", *arguments])
    known = options.get_all_options()
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    if unknown:
        raise InputError(
            "Options of this command or of Beam's were expected. Received: "
            f"--{', --'.join(sorted(unknown))}. See --help here, and Beam's pipeline "
            f"options of {runner}."
        )
    return options


def run(options: PipelineOptions, build: Callable[[beam.Pipeline], None]) -> None:
    """Runs a pipeline to its end.

    Raises:
        InputError: when a step has found the input unusable.
        PipelineFailed: when it ends otherwise than done.
    """
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
    except Exception as error:
        raise _explained(error) from error
    if state is not None and state != "DONE":
        raise PipelineFailed(
            f"The pipeline ended as {state}. The log of its workers says why; what was "
            "there before is untouched. Repeat the command once that is mended."
        )


def _explained(error: BaseException) -> Exception:
    """An `InputError` of a step as itself; runners wrap it in errors of their own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, InputError):
            return InputError(str(seen).partition(" [while running")[0])
        seen = seen.__cause__ or seen.__context__
    text = str(error)
    marker = f"{InputError.__module__}.{InputError.__name__}: "
    if marker in text:
        line = text.rpartition(marker)[2].partition("\n")[0]
        return InputError(line.partition(" [while running")[0])
    return PipelineFailed(
        f"The pipeline failed: {type(error).__name__}: {text.strip()}. What was there "
        "before is untouched. --debug shows where."
    )
