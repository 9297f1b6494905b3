"""What a `PartitionedTopK` consists of: its bytes, its memory, its files, its graph."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.index.clusters import CANDIDATES, NAMES, QUERIES, VARIANTS, D, K, build
from tfrs_selfattn._keras import keras
from tfrs_selfattn.index import ExactTopK, PartitionedTopK, sources


def assert_same_bytes(first, second):
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_same_seed_same_bytes():
    first, second = build(8, quantization="int8"), build(8, quantization="int8")
    assert_same_bytes(first, second)


def test_a_dataset_gives_the_same_index(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 400)
    plain = build(8)
    rows = tf.data.Dataset.from_tensor_slices((NAMES, CANDIDATES)).batch(170)
    index = PartitionedTopK(k=K, num_leaves=61, num_leaves_to_search=8)
    index.index_from_dataset(rows)
    np.save(tmp_path / "candidates.npy", CANDIDATES)
    mapped = np.load(tmp_path / "candidates.npy", mmap_mode="r")
    from_file = PartitionedTopK(k=K, num_leaves=61, num_leaves_to_search=8)
    from_file.index(mapped, tf.constant(NAMES))
    for other in (index, from_file):
        assert_same_bytes(other, plain)


IN_A_PROCESS = """
import sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
import numpy as np
from tfrs_selfattn.index import PartitionedTopK
index = PartitionedTopK(k=10, num_leaves=61, quantization="int8", spill=True)
index.index(np.load(sys.argv[1]))
np.savez(sys.argv[2], *index.get_weights())
"""


def test_another_process_and_one_thread_give_the_same_bytes(run_python, tmp_path):
    paths = [str(tmp_path / name) for name in ("candidates.npy", "weights.npz")]
    np.save(paths[0], CANDIDATES)
    done = run_python("-c", IN_A_PROCESS, *paths)
    assert done.returncode == 0, done.stdout
    index = PartitionedTopK(k=K, num_leaves=61, quantization="int8", spill=True)
    index.index(CANDIDATES)
    with np.load(paths[1]) as theirs:
        weights = index.get_weights()
        assert len(weights) == len(theirs.files)
        for number, ours in enumerate(weights):
            assert ours.tobytes() == theirs[f"arr_{number}"].tobytes()


# Shares of the float32 matrix, as computed by hand: with 64 dimensions 1.09 · 64 bytes
# of leaves, 1.09 · 4 of members, 4 of slots and 8 of centers make 86 of 256.
@pytest.mark.parametrize(
    ("width", "options", "share"),
    [
        (64, {"quantization": "int8"}, 0.338),
        (128, {"quantization": "int8"}, 0.321),
        (
            64,
            {
                "quantization": "int8",
                "num_reordering_candidates": 40,
                "reordering_dtype": "bfloat16",
            },
            0.838,
        ),
    ],
)
def test_memory_at_rest(width, options, share):
    candidates = np.random.default_rng(0).normal(size=(20_000, width)).astype("f4")
    index = PartitionedTopK(training_iterations=1, **options).index(candidates)
    held = sum(weight.nbytes for weight in index.get_weights())
    assert held / candidates.nbytes == pytest.approx(share, abs=0.001)


def ops_of(path):
    """Every op and attribute name of a SavedModel, functions included."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((path / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    attributes = {name for node in nodes for name in node.attr}
    attributes |= {name for f in graph.library.function for name in f.attr}
    return {node.op for node in nodes}, attributes


def test_the_graph_holds_stock_ops_and_no_xla(tmp_path):
    sizes = []
    for number in (300, 3_000):
        index = PartitionedTopK(
            k=K,
            num_leaves=31,
            num_leaves_to_search=3,
            quantization="int8",
            num_reordering_candidates=20,
            spill=True,
        ).index(CANDIDATES[:number], tf.constant(NAMES[:number]))
        index.query_with_exclusions(QUERIES, NAMES[:64, np.newaxis])
        path = tmp_path / str(number)
        tf.saved_model.save(index, str(path))
        sizes.append((path / "saved_model.pb").stat().st_size)
    ops, attributes = ops_of(path)
    assert "GatherV2" in ops  # Else this test would look at nothing.
    known = set(tf.raw_ops.__dict__)
    assert not {op for op in ops if op not in known and not op.startswith("_")}
    assert not [name for name in attributes if "xla" in name.lower()]
    assert abs(sizes[1] - sizes[0]) < 2_000  # Digits of shapes, not candidates.


def test_the_graph_of_an_exact_index_holds_no_xla(tmp_path):
    index = ExactTopK(k=K).index(CANDIDATES, tf.constant(NAMES))
    index.query_with_exclusions(QUERIES, NAMES[:64, np.newaxis])
    tf.saved_model.save(index, str(tmp_path))
    ops, attributes = ops_of(tmp_path)
    assert "MatMul" in ops and ops <= set(tf.raw_ops.__dict__)
    assert not [name for name in attributes if "xla" in name.lower()]


def test_the_xla_form_says_so_in_the_graph(tmp_path):
    index = build(8, xla=True)
    tf.saved_model.save(index, str(tmp_path))
    assert "_XlaMustCompile" in ops_of(tmp_path)[1]
    restored = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(restored(tf.constant(QUERIES))[1], index(QUERIES)[1])


@pytest.mark.parametrize("variant", ["bfloat16", "spill", "xla"])
def test_keras_file_restores_everything(variant, tmp_path):
    tower = keras.Sequential([keras.Input(shape=(D,)), keras.layers.Dense(D)])
    index = build(8, query_model=tower, **VARIANTS[variant])
    before = index(QUERIES)
    index.save(tmp_path / "index.keras")
    restored = keras.models.load_model(tmp_path / "index.keras")
    assert type(restored) is PartitionedTopK
    assert restored.get_config() == index.get_config()
    after = restored(QUERIES)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
