"""What a run shows in TensorBoard beside Keras' metrics: items as points, attention.

The projector reads plain files beside the logs. Pictures of attention need matplotlib,
the extra `plot`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfrs_selfattn._checks import InputError, check_positive_int
from tfrs_selfattn._keras import keras
from tfrs_selfattn.data.splits import EvaluationSet
from tfrs_selfattn.data.vocabulary import Vocabulary
from tfrs_selfattn.explain.explainer import Explainer
from tfrs_selfattn.explain.plots import heat_map

# The projector holds them all in a browser, which draws no more.
MOST_ITEMS = 10_000
_LONGEST = 20  # items of a history in a picture

_VECTORS, _METADATA, _CONFIG = "items.tsv", "items_metadata.tsv", "projector_config"
_PROJECTOR = f"""\
embeddings {{
  tensor_name: "items"
  tensor_path: "{_VECTORS}"
  metadata_path: "{_METADATA}"
}}
"""


class EpochMetrics(keras.callbacks.TensorBoard):  # type: ignore[misc]
    """Keras' metrics of every epoch, and nothing after a batch.

    Keras' own callback looks for something to write after every batch once another one
    has a use for batches: more than half a millisecond, and 30 of them the first time.

    Args:
        folder: of the logs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), write_graph=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


def write_projector(
    folder: Path,
    candidates: npt.NDArray[np.float32],
    vocabulary: Vocabulary,
    titles: Mapping[str, str],
) -> None:
    """Writes the vectors of the most frequent items for TensorBoard's projector.

    Args:
        folder: of the logs.
        candidates: float32 `[N, D]`, as `CandidateTower.catalogue` gives them.
        vocabulary: `Vocabulary` of the N items, the most frequent one first.
        titles: mapping from item id to title; an item without one is called by its id.
    """
    shown = min(len(vocabulary), MOST_ITEMS)
    vectors = [
        "\t".join(f"{value:.6g}" for value in row)
        for row in candidates[:shown].tolist()
    ]
    rows = ["title\titem_id\tevents"]
    for item, count in zip(
        vocabulary.ids[:shown], vocabulary.counts[:shown], strict=True
    ):
        rows.append(f"{_cell(titles.get(item, item))}\t{_cell(item)}\t{count}")
    folder.mkdir(parents=True, exist_ok=True)
    # The file that names the others comes last.
    for name, lines in (
        (_VECTORS, vectors),
        (_METADATA, rows),
        (f"{_CONFIG}.pbtxt", _PROJECTOR.splitlines()),
    ):
        beside = folder / f"{name}.part"
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(beside, folder / name)


class History(NamedTuple):
    """A history to draw the attention of.

    Args:
        labels: list of T str, titles or ids.
        indices: int32 `[T]`.
        times: int64 `[T]`.
        request_time: int.
    """

    labels: list[str]
    indices: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    request_time: int


def some_histories(
    cases: EvaluationSet,
    vocabulary: Vocabulary,
    titles: Mapping[str, str],
    count: int,
    max_length: int,
) -> list[History]:
    """The newest items of some users, evenly from the shortest history to the longest.

    Args:
        cases: to take them from.
        vocabulary: `Vocabulary`.
        titles: mapping from item id to title.
        count: int. How many, at most one a case.
        max_length: int. Items that the model reads; no more than 20 are drawn.
    """
    cases = cases.by_length()
    chosen = np.unique(
        np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    )
    found = []
    for case in chosen.tolist():
        indices = cases.history(case)[-min(_LONGEST, max_length) :]
        stamps = cases.padded_timestamps(case, case + 1)[0, -len(indices) :]
        labels = [titles.get(item, item) for item in vocabulary.decode(indices)]
        asked = int(cases.request_times[case])
        found.append(History(labels, indices, stamps, asked))
    return found


class AttentionImages(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws, after every epoch, where each block looks in some histories.

    Changes nothing that is trained: dropout is off, and no random number is drawn.

    Args:
        folder: of the logs; the images go to its `attention`.
        model: `SequenceRetrieval` with softmax attention, built.
        histories: list of `History`.

    Raises:
        InputError: when matplotlib is not installed, or the model has no attention
            weights.
    """

    def __init__(self, folder: Path, model: Any, histories: Sequence[History]) -> None:
        super().__init__()
        self._histories = list(histories)
        self._explainer = Explainer(model)
        self._time_aware = bool(model.time_aware)
        self._token = bool(getattr(model.query_tower, "query_token", False))
        if self._histories:
            self._pictures(self._histories[0])  # fails before an epoch is spent
        self._writer = tf.summary.create_file_writer(str(folder / "attention"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with self._writer.as_default(step=epoch):
            for number, history in enumerate(self._histories, start=1):
                for block, picture in enumerate(self._pictures(history), start=1):
                    name = f"attention, history {number}/block {block}"
                    tf.summary.image(name, picture[np.newaxis])
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _pictures(self, history: History) -> list[npt.NDArray[np.uint8]]:
        """RGB images `[height, width, 3]`, one a block."""
        times = (
            (history.times[np.newaxis], np.array([history.request_time]))
            if self._time_aware
            else ()
        )
        try:
            blocks = self._explainer.attention(history.indices[np.newaxis], *times)
        except ValueError as error:  # of a model without attention weights
            raise InputError(
                f"Pictures of attention cannot be drawn: {error}"
            ) from None
        labels = [*history.labels, *["(what comes next)"] * self._token]
        return [
            _pixels(
                heat_map(weights.numpy()[0].mean(axis=0), labels[-len(weights[0, 0]) :])
            )
            for weights in blocks
        ]


def check_attention_images(count: Any, preset: str, events: str = "") -> int:
    """Checks `attention_images` before a run folder is made.

    Raises:
        InputError: when the preset has no attention weights, the model takes features
            of events, or matplotlib is missing.
    """
    if not count:
        return 0
    number: int = check_positive_int("attention_images", count)
    if preset == "hstu":
        raise InputError(
            "Pictures of attention need a model with softmax attention. Received: "
            "--attention-images with --preset hstu, whose weights are no shares. Leave "
            "the option out, or use another preset."
        )
    if events:
        raise InputError(
            "Pictures of attention need a model of items and times. Received: "
            f"--attention-images with --event-features {events}. Leave one of them out."
        )
    heat_map(np.zeros([1, 1]), [""])  # says what to install
    return number


def _pixels(figure: Any) -> npt.NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _cell(text: str) -> str:
    """Text that stays in its cell: no tab, no line end."""
    return re.sub(r"\s+", " ", text).strip()
