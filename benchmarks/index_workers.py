"""The processes of `benchmarks/index.py`: each builds or measures one index.

    python benchmarks/index_workers.py NAME THREADS FOLDER

THREADS 0 builds the index of that NAME over FOLDER/candidates.npy and saves it there;
others measure it over FOLDER/queries.npy. One JSON line a result.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

K = 100
BATCHES = {1: 200, 32: 50}  # and how many timed calls of each
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
OURS = {
    "PartitionedTopK": {},
    "PartitionedTopK xla": {"xla": True},
    "PartitionedTopK int8": {
        "quantization": "int8",
        "num_reordering_candidates": 2 * K,
    },
    "PartitionedTopK bfloat16": {
        "quantization": "bfloat16",
        "num_reordering_candidates": 2 * K,
    },
    "PartitionedTopK int8 xla": {
        "quantization": "int8",
        "num_reordering_candidates": 2 * K,
        "xla": True,
    },
    "PartitionedTopK int8 alone": {"quantization": "int8"},
}
SCANN_LEAVES, IVF_LEAVES = (1, 4, 8), (4, 8)  # times the root of the candidates
HNSW_LINKS = {32: 80, 48: 200}  # and the effort to build with
HNSW_EFFORTS = (100, 150, 200, 300, 400, 600, 800, 1600)


class Report:
    """What a worker measures, one JSON line a point."""

    def __init__(self, folder: Path, name: str, threads: int) -> None:
        self.queries = np.load(folder / "queries.npy")
        self.best = np.load(folder / "best.npy")
        self.name, self.threads = name, threads

    def point(self, search: Any, setting: str, overhead: dict[int, float]) -> float:
        """Measures `search` (queries → rows); returns its recall."""
        found = np.concatenate(
            [
                np.asarray(search(self.queries[start : start + 20]))
                for start in range(0, len(self.queries), 20)
            ]
        )
        hits = [
            len(np.intersect1d(a, b)) for a, b in zip(found, self.best, strict=True)
        ]
        recall = float(np.mean(hits)) / self.best.shape[1]
        times = {batch: self.times(search, batch) for batch in BATCHES}
        line = {
            "index": self.name,
            "threads": self.threads,
            "setting": setting,
            "recall": recall,
            "median": {b: float(np.median(t)) for b, t in times.items()},
            "p99": {b: float(np.percentile(t, 99)) for b, t in times.items()},
            "overhead": overhead,
        }
        print(json.dumps(line), flush=True)
        return recall

    def times(self, search: Any, batch: int) -> list[float]:
        """Milliseconds of calls with a batch of queries each."""
        result = []
        for call in range(BATCHES[batch] + 3):
            start = call * batch % (len(self.queries) - batch)
            queries = self.queries[start : start + batch]
            begin = time.perf_counter()
            search(queries)
            result.append(1e3 * (time.perf_counter() - begin))
        return result[3:]


class Memory:
    """The most anonymous memory of this process (Linux) above that at the start.

    What is mapped from files is left out: the kernel takes it back at will.
    """

    def __init__(self) -> None:
        self._start = self._most = self._now()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()

    def _now(self) -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self._most = max(self._most, self._now())

    def peak(self) -> int:
        """Bytes, and the end of watching."""
        self._done.set()
        self._watch.join()
        return self._most - self._start


def _tensorflow(threads: int) -> Any:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return tf


def _function(tf: Any, report: Report, search: Any) -> Any:
    """A concrete function from an array of queries to an array of rows."""
    spec = tf.TensorSpec([None, report.queries.shape[1]], tf.float32)
    traced = tf.function(search, autograph=False).get_concrete_function(spec)
    return lambda queries: traced(tf.constant(queries)).numpy()


def _tensorflow_overhead(tf: Any, report: Report) -> dict[int, float]:
    nothing = _function(tf, report, lambda queries: tf.cast(queries, tf.int32))
    return {batch: float(np.median(report.times(nothing, batch))) for batch in BATCHES}


def ours(folder: Path, name: str, threads: int) -> None:
    """`PartitionedTopK`: builds and saves it (threads 0), or measures it."""
    tf = _tensorflow(threads)
    from tfrs_selfattn.index import PartitionedTopK

    path = folder / f"{name.replace(' ', '_')}.keras"
    if not threads:
        candidates = np.load(folder / "candidates.npy", mmap_mode="r")
        memory = Memory()
        start = time.perf_counter()
        index = PartitionedTopK(k=K, **OURS[name]).index(candidates)
        seconds = time.perf_counter() - start
        peak = memory.peak()
        held = sum(np.asarray(weight).nbytes for weight in index.weights)
        line = {
            "index": name,
            "build_s": seconds,
            "peak_ratio": peak / candidates.nbytes,
            "held_ratio": held / candidates.nbytes,
        }
        index.save(path)
        print(json.dumps(line), flush=True)
        return
    report = Report(folder, name, threads)
    index = tf.keras.models.load_model(path)
    overhead = _tensorflow_overhead(tf, report)
    num_leaves, capacity = index._members.shape
    for probes in PROBES:
        if probes * capacity < K:
            continue  # it would search on until K are found
        if probes > num_leaves:
            break
        index.num_leaves_to_search = probes
        search = _function(tf, report, lambda queries: index.search_rows(queries)[1])
        if report.point(search, f"{probes} leaves", overhead) > 0.997:
            break


def exact(folder: Path, name: str, threads: int) -> None:
    """`ExactTopK`, and TFRS' `BruteForce`."""
    tf = _tensorflow(threads)
    import tensorflow_recommenders as tfrs

    from tfrs_selfattn.index import ExactTopK

    classes = {
        "ExactTopK": ExactTopK,
        "TFRS BruteForce": tfrs.layers.factorized_top_k.BruteForce,
    }
    report = Report(folder, name, threads)
    candidates = np.load(folder / "candidates.npy")
    index = classes[name](k=K).index(tf.constant(candidates))
    search = _function(tf, report, lambda queries: index(queries)[1])
    report.point(search, "all", _tensorflow_overhead(tf, report))


def scann(folder: Path, name: str, threads: int) -> None:
    """TFRS' `ScaNN`: its searcher, over the settings that can change once built."""
    tf = _tensorflow(threads)
    import tensorflow_recommenders as tfrs
    from scann.scann_ops.py import scann_ops

    report = Report(folder, name, threads)
    candidates = np.load(folder / "candidates.npy")
    overhead = _tensorflow_overhead(tf, report)
    for leaves in (round(times * len(candidates) ** 0.5) for times in SCANN_LEAVES):
        index = tfrs.layers.factorized_top_k.ScaNN(
            k=K, num_leaves=leaves, num_reordering_candidates=2 * K
        ).index(candidates)
        searcher = scann_ops.searcher_from_module(index._serialized_searcher)
        for reordered in (2 * K, 5 * K, 15 * K):
            for probes in (*PROBES[8:], 768, 1_024, 1_536, 2_048):
                search = _function(
                    tf,
                    report,
                    lambda queries: searcher.search_batched_parallel(  # noqa: B023
                        queries,
                        final_num_neighbors=K,
                        pre_reorder_num_neighbors=reordered,  # noqa: B023
                        leaves_to_search=probes,  # noqa: B023
                    )[0],
                )
                setting = f"{probes} of {leaves} leaves, {reordered} reordered"
                if report.point(search, setting, overhead) > 0.985 or probes > leaves:
                    break


def faiss(folder: Path, name: str, threads: int) -> None:
    """FAISS' IVF-Flat or HNSW: builds and saves them (threads 0), or measures them."""
    import faiss as library

    candidates = np.load(folder / "candidates.npy", mmap_mode="r")
    root, width = len(candidates) ** 0.5, candidates.shape[1]
    kinds = HNSW_LINKS
    if "IVF" in name:
        kinds = dict.fromkeys(max(1, round(times * root)) for times in IVF_LEAVES)
    path = f"{folder / name.replace(' ', '_')}-{{}}"
    if not threads:
        library.omp_set_num_threads(os.cpu_count() or 1)
        for kind, effort in kinds.items():
            start = time.perf_counter()
            index = _faiss_index(library, width, kind, effort)
            if effort is None:
                index.train(np.ascontiguousarray(candidates[: 64 * kind]))
            index.add(np.ascontiguousarray(candidates))
            seconds = time.perf_counter() - start
            library.write_index(index, path.format(kind))
            line = {"index": name, "kind": kind, "build_s": seconds}
            print(json.dumps(line), flush=True)
        return
    library.omp_set_num_threads(threads)
    report = Report(folder, name, threads)
    tiny = library.IndexFlatIP(width)
    tiny.add(np.ascontiguousarray(candidates[:1]))
    overhead = {
        batch: float(
            np.median(report.times(lambda queries: tiny.search(queries, 1), batch))
        )
        for batch in BATCHES
    }
    for kind, effort in kinds.items():
        index = library.read_index(path.format(kind))
        for setting in PROBES if effort is None else HNSW_EFFORTS:
            if effort is None:
                index.nprobe, label = setting, f"{setting} of {kind} leaves"
            else:
                index.hnsw.efSearch = setting
                label = f"{kind} links, efSearch {setting}"
            search = lambda queries: index.search(queries, K)[1]  # noqa: B023, E731
            if report.point(search, label, overhead) > 0.997:
                break


def _faiss_index(library: Any, width: int, kind: int, effort: int | None) -> Any:
    """IVF-Flat with `kind` leaves, or HNSW with as many links and a building effort."""
    if effort is None:
        return library.IndexIVFFlat(
            library.IndexFlatIP(width), width, kind, library.METRIC_INNER_PRODUCT
        )
    index = library.IndexHNSWFlat(width, kind, library.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = effort
    return index


WORKERS: dict[str, Any] = {
    **dict.fromkeys(OURS, ours),
    "ExactTopK": exact,
    "TFRS BruteForce": exact,
    "TFRS ScaNN": scann,
    "FAISS IVF-Flat": faiss,
    "FAISS HNSW": faiss,
}


if __name__ == "__main__":
    WORKERS[sys.argv[1]](Path(sys.argv[3]), sys.argv[1], int(sys.argv[2]))
