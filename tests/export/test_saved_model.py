"""The files of an export: what they hold, and what they must not."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfrs_selfattn import InputError
from tfrs_selfattn._keras import register
from tfrs_selfattn.export import export_recommender
from tfrs_selfattn.layers import SequenceEncoder
from tfrs_selfattn.models import CandidateTower, QueryTower, SequenceRetrieval

FILES = {
    "saved_model.pb",
    "fingerprint.pb",
    "batching_params.pbtxt",
    "assets/vocabulary.txt",
    "assets.extra/model_card.md",
    "assets.extra/recommender.json",
    "assets.extra/tf_serving_warmup_requests",
    "assets.extra/titles.csv",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
}

# Run in a process that has loaded nothing but TensorFlow.
WALK = """
import sys
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

folder = sys.argv[1]
with open(f"{folder}/saved_model.pb", "rb") as file:
    saved = saved_model_pb2.SavedModel.FromString(file.read())
graph = saved.meta_graphs[0].graph_def
functions = {function.signature.name: function for function in graph.library.function}
nodes = [*graph.node, *(n for f in functions.values() for n in f.node_def)]
ops = {node.op for node in nodes} - set(functions)
unknown = {op for op in ops if op_def_registry.get(op) is None or ">" in op}
compiled = [f for f in functions.values() if f.attr["_XlaMustCompile"].b]
compiled += [n for n in nodes if n.attr["_XlaMustCompile"].b]
assert len(ops) > 30, ops
assert not unknown, unknown
assert not compiled, compiled
assert saved.meta_graphs[0].meta_info_def.tags == ["serve"]
answer = tf.saved_model.load(folder).signatures["serving_default"](
    history=tf.constant([["item 3", ""]])
)
print("answer", *answer["ids"].numpy()[0].tolist())
strangers = {"tfrs_selfattn", "tensorflow_recommenders"} & set(sys.modules)
assert not strangers, strangers
"""


def read_graph(folder):
    saved = saved_model_pb2.SavedModel.FromString(
        (folder / "saved_model.pb").read_bytes()
    )
    return saved.meta_graphs[0]


def test_an_export_holds_these_files(export):
    found = {
        str(path.relative_to(export.path))
        for path in export.path.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert export.path.name == str(export.version) == "1"
    assert [child.name for child in export.path.parent.iterdir()] == ["1"]


def test_only_stock_operations_in_a_process_that_imports_only_tensorflow(
    export, run_python, expected
):
    done = run_python("-c", WALK, str(export.path), cwd=export.path)
    assert done.returncode == 0, done.stdout
    ids, _ = expected(["item 3"])
    assert " ".join(["answer", *map(str, ids)]) in done.stdout


def test_the_graph_does_not_grow_with_the_catalogue(export, tiny, tmp_path):
    many = 15_000
    large = tiny.export(
        tmp_path,
        model=tiny.make_model(many),
        vocabulary=tiny.make_vocabulary(map(str, range(many)), np.arange(many)),
    )
    sizes = [(e.path / "saved_model.pb").stat().st_size for e in (export, large)]
    # Longer paths and numbers of more digits make some difference.
    assert abs(sizes[1] - sizes[0]) < many
    assert large.manifest["items"] == many


def test_what_is_read_as_a_whole_is_nowhere_gathered_from(export):
    """Else each search copies all candidates, from the first `embed_item` on."""
    functions = {
        f.signature.name: f for f in read_graph(export.path).graph_def.library.function
    }
    uses = {"ResourceGather": set(), "ReadVariableOp": set()}

    def follow(nodes, handles):
        """Notes which variable each node takes, through all calls of functions."""
        for node in nodes:
            inputs = [name.split(":")[0].lstrip("^") for name in node.input]
            if node.op in uses and inputs[0] in handles:
                uses[node.op].add(handles[inputs[0]])
            for attribute in ("f", "then_branch", "else_branch"):
                called = node.attr[attribute].func.name
                # A checkpoint is written by no server.
                if called in functions and "traced_save" not in called:
                    function = functions[called]
                    names = [a.name for a in function.signature.input_arg]
                    given = [handles.get(name) for name in inputs]
                    inner = dict(zip(names, given, strict=False))
                    follow(function.node_def, {k: v for k, v in inner.items() if v})

    nodes = read_graph(export.path).graph_def.node
    handles = {node.name: node.name for node in nodes if node.op == "VarHandleOp"}
    follow([node for node in nodes if "Call" in node.op], handles)
    assert any("candidates" in name for name in uses["ReadVariableOp"])
    assert uses["ResourceGather"]
    assert not uses["ResourceGather"] & uses["ReadVariableOp"]


def test_neither_optimizer_nor_loss_nor_metrics_nor_keras_are_saved(tiny, tmp_path):
    model = tiny.make_model()
    model.compile(optimizer=tf.keras.optimizers.Adam(), run_eagerly=True)
    rows = {"history": tf.constant([[1, 2]]), "targets": tf.constant([[2, 3]])}
    model.fit(tf.data.Dataset.from_tensors(rows), verbose=0)
    export = tiny.export(tmp_path, model=model)
    checkpoint = str(export.path / "variables" / "variables")
    names = [name for name, _ in tf.train.list_variables(checkpoint)]
    kinds = {name.split("/")[0] for name in names if not name.startswith("_")}
    assert kinds == {"catalogue", "names", "query_tower"}
    assert len(names) < len(model.query_tower.variables) + 12
    objects = read_graph(export.path).object_graph_def.nodes
    assert not [n for n in objects if "keras" in n.user_object.identifier]
    # And training goes on as before.
    model.fit(tf.data.Dataset.from_tensors(rows), verbose=0)


def test_a_model_that_was_never_called_is_exported(tiny, tmp_path):
    from tfrs_selfattn.models import presets

    model = presets.sasrec(num_items=tiny.N, embedding_dim=8, max_length=10)
    assert not model.query_tower.built
    path = tiny.export(tmp_path, model=model).path
    signatures = tf.saved_model.load(str(path)).signatures
    answer = signatures["embed_query"](history=tf.constant([["item 1"]]))
    wanted = model.query_tower(tf.constant([[2]])).numpy()
    np.testing.assert_allclose(answer["embedding"], wanted, rtol=1e-5, atol=1e-5)


@register
class Branching(tf.keras.layers.Layer):
    """A block that AutoGraph has to rewrite, as users may have."""

    def call(self, inputs, mask=None, segment_ids=None, training=None):
        if tf.reduce_sum(inputs) > 1e9:
            return inputs * 0.0
        return inputs + 1.0


@pytest.mark.usefixtures("in_this_process")
def test_towers_of_another_make(tiny, tmp_path):
    """Separate tables, normalized, and a Python `if` on a tensor in the encoder."""
    tables = [tf.keras.layers.Embedding(tiny.N + 1, 8) for _ in range(2)]
    model = SequenceRetrieval(
        QueryTower(tables[0], SequenceEncoder([Branching()]), normalize=True),
        CandidateTower(tables[1], normalize=True),
    )
    assert tiny.export(tmp_path, model=model, verify=True).verified > 0


@pytest.mark.usefixtures("in_this_process")
def test_sixteen_bit_layers_are_exported_with_32_bit_outputs(tiny, tmp_path):
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = tiny.make_model()
        export = tiny.export(tmp_path, model=model, verify=True)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    outputs = export.manifest["signatures"]["embed_query"]["outputs"]
    assert outputs["embedding"]["dtype"] == "float32"


def test_no_input_is_a_scalar_and_each_has_a_name_of_its_own(export):
    for signature in export.manifest["signatures"].values():
        for name, tensor in signature["inputs"].items():
            assert tensor["shape"][0] is None
            assert name in {"history", "exclude", "candidates", "examples", "item"}


class Biased(QueryTower):
    """A tower that has no zero vector for an empty history."""

    def call(self, history, training=None):
        return super().call(history, training=training) + 1.0


def test_an_empty_history_has_the_zero_vector_whatever_the_tower(tiny, tmp_path):
    tower = tiny.make_model().query_tower
    model = SequenceRetrieval(
        Biased.from_config(tower.get_config()),
        CandidateTower(tf.keras.layers.Embedding(tiny.N + 1, tiny.WIDTH)),
    )
    path = tiny.export(tmp_path, model=model).path
    signatures = tf.saved_model.load(str(path)).signatures
    history = tf.constant([["", "nothing"], ["item 1", ""]])
    vectors = signatures["embed_query"](history=history)["embedding"].numpy()
    assert not vectors[0].any()
    assert vectors[1].all()


def test_the_vocabulary_is_an_asset_in_the_models_order(export, tiny):
    text = (export.path / "assets" / "vocabulary.txt").read_bytes()
    assert text.decode() == "".join(f"{item}\n" for item in tiny.IDS)


def test_titles_are_those_of_items(export, tiny):
    with open(export.path / "assets.extra" / "titles.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["item_id", "title"],
            [tiny.IDS[0], 'Zero, "the" first'],
        ]


def test_the_server_is_told_not_to_pad(export):
    text = (export.path / "batching_params.pbtxt").read_text()
    assert "\npad_variable_length_inputs: false\n" in text


def test_the_manifest_says_what_was_exported(export, model, tiny):
    written = json.loads(
        (export.path / "assets.extra" / "recommender.json").read_text()
    )
    assert written == export.manifest
    matrix = model.candidate_tower.catalogue().numpy().astype("<f4").tobytes()
    assert written["index"] == {
        "kind": "exact",
        "settings": {},
        "recall": 1.0,
        "checksum": f"sha256:{hashlib.sha256(matrix).hexdigest()}",
    }
    known = {key: written[key] for key in ("format", "version", "items", "k", "titles")}
    assert known == {
        "format": 1,
        "version": 1,
        "items": tiny.N,
        "k": tiny.K,
        "titles": 1,
    }
    assert written["model"]["class"] == "SequenceRetrieval"
    assert written["model"]["max_length"] == tiny.MAX_LENGTH
    assert written["metrics"] == {"ndcg@10": 0.25}
    assert written["source"] == {"run": "tiny"}
    assert written["verified"] == export.verified > 5
    assert written["events"] == tiny.COUNTS.sum()
    assert written["packages"]["tensorflow"] == tf.__version__
    assert len(written["signatures"]) == 7


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "at least one item"),
        (("a", ""), "place 2, which is"),
        (("a", "b", "a"), "place 3, which occurs twice"),
        (("a", "b\n"), "line break"),
        (("a", "b\r"), "line break"),
        (("a", "b"), "2 ids for a model of 31 items"),
    ],
)
def test_vocabularies_that_do_not_fit(model, tiny, tmp_path, ids, message):
    vocabulary = tiny.make_vocabulary(ids, [1] * len(ids))
    with pytest.raises(InputError, match=message):
        export_recommender(model, tmp_path / "base", vocabulary=vocabulary)
    assert not (tmp_path / "base").exists()


def test_other_arguments_that_cannot_be_used(model, tiny, tmp_path):
    for options, message in (
        ({"k": 0}, "`k` must be a positive integer"),
        ({"version": 0}, "`version` must be a positive integer"),
        ({"metrics": {"x": float("nan")}}, "`metrics` must be what JSON can hold"),
        ({"source": tmp_path}, "`source` must be what JSON can hold"),
        (
            {"model": tf.keras.Sequential()},
            "Received: Sequential without `query_tower`",
        ),
        ({"sample_histories": [], "verify": True}, "at least one history"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny.export(tmp_path / "base", **{"model": model, **options})
    assert not (tmp_path / "base").exists()


def test_a_model_that_diverged_is_refused(tiny, tmp_path):
    model = tiny.make_model()
    table = model.candidate_tower.item_embedding.embeddings
    table.assign(tf.tensor_scatter_nd_update(table, [[3, 1]], [float("nan")]))
    with pytest.raises(InputError, match="NaN or infinity in 1 of 31"):
        tiny.export(tmp_path, model=model)
