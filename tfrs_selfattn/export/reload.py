"""Asks a saved version in a process of its own that imports only TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfrs_selfattn.export.requests import Request


class ExportError(RuntimeError):
    """An export that does not answer as its model does; it was not published."""


def ask(
    folder: Path, scratch: Path, requests: Sequence[Request]
) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs of each request, by name, from a process that loads the version."""
    script = Path(__file__).with_name("_reload_script.py").read_text(encoding="utf-8")
    asked, answered = scratch / "requests.json", scratch / "answers.json"
    asked.write_text(json.dumps([[r.signature, _to_json(r.inputs)] for r in requests]))
    paths = [str(path.resolve()) for path in (folder, asked, answered)]
    run = subprocess.run(
        [sys.executable, "-c", script, *paths],
        cwd=scratch,
        # A GPU may be full of the model that is being exported.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if run.returncode != 0:
        last = [line for line in run.stderr.splitlines() if line.strip()][-3:]
        raise ExportError(
            "The export must load and answer in a process that imports only "
            f"TensorFlow. Received: exit status {run.returncode}, {' / '.join(last)} "
            "Nothing was published. Check the model for custom operations."
        )
    result = json.loads(answered.read_text())
    if "tfrs_selfattn" in result["modules"]:
        raise ExportError(
            "The export must be verified by a process that does not import "
            "tfrs_selfattn. Received: one that did. Check sitecustomize and .pth files."
        )
    return [
        {name: _from_json(values) for name, values in outputs.items()}
        for outputs in result["answers"]
    ]


def _to_json(inputs: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    return {name: _array_to_json(values) for name, values in inputs.items()}


def _array_to_json(values: npt.NDArray[Any]) -> dict[str, Any]:
    flat = values.reshape(-1).tolist()
    dtype = values.dtype.name
    if values.dtype == object:
        flat, dtype = [value.decode("latin-1") for value in flat], "string"
    return {"shape": list(values.shape), "dtype": dtype, "flat": flat}


def _from_json(values: dict[str, Any]) -> npt.NDArray[Any]:
    flat = values["flat"]
    if flat and isinstance(flat[0], str):
        texts = [text.encode("latin-1").decode("utf-8", "replace") for text in flat]
        return np.array(texts, object).reshape(values["shape"])
    return np.array(flat, np.float64).reshape(values["shape"])
