"""Makes the small export of this version that later versions must still load.

    python tests/export/released/make.py

Once for each release: an untrained model of six items, its answers beside it.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tfrs_selfattn import __version__  # noqa: E402
from tfrs_selfattn.data import Vocabulary  # noqa: E402
from tfrs_selfattn.export import export_recommender, load_recommender  # noqa: E402
from tfrs_selfattn.models import presets  # noqa: E402

HISTORIES = [["tea"], ["tea", "salt"], [], ["nothing"], ["rice", "oil", "tea", "rice"]]


def anonymous(member):
    """The same bytes whoever makes it, and whenever."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def main():
    model = presets.sasrec(
        num_items=6, embedding_dim=4, num_blocks=1, max_length=8, seed=7
    )
    model.query_tower(tf.zeros([1, 1], tf.int32))
    draw = np.random.default_rng(7)
    for weight in model.trainable_weights:
        if weight.shape.rank > 1:
            weight.assign(draw.normal(scale=0.5, size=weight.shape))
    ids = ("tea", "milk", "salt", "rice", "oil", "naïve ☕")
    vocabulary = Vocabulary(ids, np.array([7, 5, 5, 3, 2, 0]))
    with tempfile.TemporaryDirectory() as folder:
        export = export_recommender(
            model, folder, vocabulary=vocabulary, k=4, titles={"tea": "Tea"}
        )
        answers = load_recommender(export.path).recommend(HISTORIES)
        with tarfile.open(HERE / f"{__version__}.tar.xz", "w:xz", preset=9) as archive:
            archive.add(export.path, "1", filter=anonymous)
    expected = [
        {"history": history, "answer": [[i.id, round(i.score, 5)] for i in answer]}
        for history, answer in zip(HISTORIES, answers, strict=True)
    ]
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (HERE / f"{__version__}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
