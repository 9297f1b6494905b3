"""What holds for every public layer: configuration, reload, dtypes, graphs, steps."""

from __future__ import annotations

import enum
import inspect
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.conformance.catalogue import (
    ARGUMENTS,
    BIASES,
    DTYPES,
    INPUTS,
    LENGTH,
    MASK,
    POOLING,
    SPECS,
    USERS,
    WIDTH,
)
from tests.weights import randomize, rewind, seed_states
from tfrs_selfattn import layers
from tfrs_selfattn._keras import KERAS_3, keras

every_layer = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


class Reload(enum.Enum):
    """The ways in which a layer outlives its process."""

    NONE = "none"
    CONFIG = "config"
    CHECKPOINT = "checkpoint"
    KERAS = "keras"
    SAVED_MODEL = "saved_model"


def functional_model(spec, layer, length=LENGTH):
    inputs = [keras.Input([length, WIDTH], name="inputs")]
    arguments = {
        name: keras.Input([length], dtype=DTYPES[name], name=name)
        for name in spec.arguments()
    }
    inputs.extend(arguments.values())
    return keras.Model(inputs, layer(inputs[0], **arguments))


def model_inputs(spec):
    return [tf.constant(INPUTS), *map(tf.constant, spec.arguments().values())]


def reloaded(model, how, path):
    """The model as a function after one round trip."""
    if how is Reload.NONE:
        return model
    if how is Reload.CONFIG:
        copy = keras.Model.from_config(model.get_config())
        copy.set_weights(model.get_weights())
        return copy
    if how is Reload.CHECKPOINT:
        copy = keras.Model.from_config(model.get_config())
        written = tf.train.Checkpoint(model).write(str(path / "checkpoint"))
        status = tf.train.Checkpoint(copy).read(written)
        status.assert_existing_objects_matched()
        return copy
    if how is Reload.KERAS:
        model.save(path / "model.keras")
        return keras.models.load_model(path / "model.keras")
    if KERAS_3:
        model.export(path / "exported", verbose=False)
        exported = tf.saved_model.load(path / "exported")
        return lambda inputs: exported.serve(inputs)
    model.save(path / "saved", save_format="tf")
    return keras.models.load_model(path / "saved")


def own_arguments(cls):
    """The names a constructor spells out, those of our base class included."""
    names = {"seed"}
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.add(parameter.name)
    return names


def test_every_public_layer_is_in_the_catalogue():
    public = [getattr(layers, name) for name in layers.__all__]
    listed = {spec.cls for spec in SPECS}
    assert listed == {each for each in public if inspect.isclass(each)}


def test_the_catalogue_leaves_no_argument_at_its_default():
    for cls in {spec.cls for spec in SPECS}:
        entries = [spec.kwargs() for spec in SPECS if spec.cls is cls]
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.default is inspect.Parameter.empty:
                continue
            assert any(
                entry.get(name, parameter.default) != parameter.default
                for entry in entries
            ), f"{cls.__name__}({name}=…) is never set in the catalogue"


@every_layer
def test_config_names_every_constructor_argument(spec):
    assert own_arguments(spec.cls) <= set(spec.make().get_config())


@every_layer
def test_config_is_json_and_survives_a_round_trip(spec):
    layer = spec.make()
    config = layer.get_config()
    again = spec.cls.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    for name, value in spec.kwargs().items():
        if isinstance(value, int | float):
            assert config[name] == value


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        pytest.param(spec, how, id=f"{spec.name}-{how.value}")
        for spec in SPECS
        for how in Reload
        # The slowest: the encoders hold all the blocks.
        if how is not Reload.SAVED_MODEL or not spec.name.startswith("block")
    ],
)
def test_reload_changes_no_output(spec, how, tmp_path):
    model = functional_model(spec, spec.make(name="layer"))
    randomize(model)
    expected = model(model_inputs(spec)).numpy()
    again = reloaded(model, how, tmp_path)
    np.testing.assert_allclose(
        again(model_inputs(spec)).numpy(), expected, rtol=1e-6, atol=1e-6
    )


@every_layer
def test_reload_keeps_the_state_of_dropout(spec, tmp_path):
    model = functional_model(spec, spec.make(name="layer"))
    model(model_inputs(spec), training=True)  # the counters move on
    again = reloaded(model, Reload.KERAS, tmp_path)
    np.testing.assert_array_equal(
        again(model_inputs(spec), training=True),
        model(model_inputs(spec), training=True),
    )


@every_layer
def test_an_export_has_stock_operations_and_no_compiled_ones(spec, tmp_path):
    layer = randomize(spec.build())
    module = tf.Module()
    module.layer = layer
    arguments = [
        tf.TensorSpec([None, None], DTYPES[name], name=name)
        for name in spec.arguments()
    ]

    def serve(inputs, *given):
        named = dict(zip(spec.arguments(), given, strict=True))
        return layer(inputs, **named)

    module.serve = tf.function(
        serve,
        input_signature=[tf.TensorSpec([None, None, WIDTH], tf.float32), *arguments],
    )
    expected = spec.call(layer, INPUTS, **ARGUMENTS)
    tf.saved_model.save(module, str(tmp_path))
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    functions = graph.library.function
    assert functions
    for function in functions:
        assert not function.attr["_XlaMustCompile"].b
    used = {node.op for node in graph.node}
    used |= {node.op for function in functions for node in function.node_def}
    used -= {function.signature.name for function in functions}
    # `PyFunc` and its kin are Python; an operation that is not TensorFlow's own has no
    # wrapper in `tf.raw_ops`.
    assert not {name for name in used if name.startswith(("PyFunc", "EagerPyFunc"))}
    assert not {name for name in used if not hasattr(tf.raw_ops, name)}
    again = tf.saved_model.load(str(tmp_path))
    found = again.serve(*model_inputs(spec))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_layer
def test_weights_have_names_of_their_own(spec):
    model = functional_model(spec, spec.make(name="layer"))
    names = [getattr(weight, "path", weight.name) for weight in model.weights]
    assert len(set(names)) == len(names)


@every_layer
def test_weights_alone_can_be_saved(spec, tmp_path):
    model = functional_model(spec, randomize(spec.build(name="layer")))
    other = functional_model(spec, spec.make(name="layer"))
    suffixes = [".weights.h5"] if KERAS_3 else [".weights.h5", ".h5", ".tf"]
    for suffix in suffixes:
        model.save_weights(tmp_path / f"model{suffix}")
        other.load_weights(tmp_path / f"model{suffix}")
        for ours, theirs in zip(model.weights, other.weights, strict=True):
            np.testing.assert_array_equal(np.array(ours), np.array(theirs))


@every_layer
@pytest.mark.parametrize(
    ("policy", "compute_dtype", "tolerance"),
    [
        ("float32", "float32", 0.0),
        ("mixed_float16", "float16", 1e-2),
        ("mixed_bfloat16", "bfloat16", 1e-1),
        ("float16", "float16", 1e-2),
        ("bfloat16", "bfloat16", 1e-1),
    ],
)
def test_dtype_policy(spec, policy, compute_dtype, tolerance):
    exact = randomize(spec.build())
    layer = spec.build(dtype=policy)
    layer.set_weights(exact.get_weights())
    outputs = spec.call(layer, INPUTS, **ARGUMENTS)
    # Logits are float32 in every precision, and so is what is added to them.
    assert outputs.dtype == ("float32" if spec.cls in BIASES else compute_dtype)
    outputs = tf.cast(outputs, tf.float32).numpy()
    expected = spec.call(exact, INPUTS, **ARGUMENTS).numpy()
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(
        outputs, expected, atol=tolerance * np.abs(expected).max(), rtol=0
    )
    for sublayer in layer._flatten_layers():
        norm = isinstance(sublayer, keras.layers.LayerNormalization)
        mixed = "mixed_" if norm and policy == compute_dtype != "float32" else ""
        assert sublayer.dtype_policy.name == mixed + policy, sublayer.name
        assert sublayer.compute_dtype == compute_dtype
    norms = [
        id(weight)
        for sublayer in layer._flatten_layers()
        if isinstance(sublayer, keras.layers.LayerNormalization)
        for weight in sublayer.weights
    ]
    for weight in layer.weights:
        wanted = "float32" if id(weight) in norms else layer.variable_dtype
        wanted = "int64" if "seed_state" in weight.name else wanted
        assert tf.as_dtype(weight.dtype).name == wanted


@every_layer
@pytest.mark.parametrize(
    ("how", "training"),
    [("static", False), ("dynamic", True), ("xla", True)],
)
def test_graph_equals_eager(spec, how, training):
    layer = randomize(spec.build())
    rewind(layer)
    expected = spec.call(layer, INPUTS, **ARGUMENTS, training=training)
    shape = [None, None] if how == "dynamic" else [USERS, LENGTH]
    names = list(spec.arguments())
    function = tf.function(
        lambda x, *given: spec.call(
            layer, x, **dict(zip(names, given, strict=True)), training=training
        ),
        input_signature=[
            tf.TensorSpec([*shape, WIDTH], tf.float32),
            *(tf.TensorSpec(shape, DTYPES[name]) for name in names),
        ],
        jit_compile=how == "xla",
    )
    rewind(layer)
    found = function(*model_inputs(spec))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_layer
@pytest.mark.parametrize("length", [LENGTH, None], ids=["static", "dynamic"])
def test_functional_shapes(spec, length):
    model = functional_model(spec, spec.make(), length)
    assert tuple(model.outputs[0].shape) == spec.output_shape(None, length)
    assert tuple(model(model_inputs(spec)).shape) == spec.output_shape()


@every_layer
def test_implicit_mask_equals_explicit_mask_and_is_passed_on(spec):
    ids = np.where(MASK, np.arange(1, 1 + MASK.size).reshape(MASK.shape), 0)
    embedding = keras.layers.Embedding(MASK.size + 1, WIDTH, mask_zero=True)
    layer = spec.build()
    items = embedding(tf.constant(ids))
    others = {k: v for k, v in ARGUMENTS.items() if k != "mask"}
    implicit = spec.call(layer, items, **others)
    states = tf.identity(tf.convert_to_tensor(items))
    explicit = spec.call(layer, states, **ARGUMENTS)
    np.testing.assert_array_equal(implicit, explicit)
    if not spec.timed:
        stack = keras.Sequential([embedding, layer])
        np.testing.assert_array_equal(stack(tf.constant(ids)), explicit)
    mask = layer.compute_mask(states, tf.constant(MASK))
    if spec.cls in POOLING + BIASES:
        assert mask is None
        assert getattr(implicit, "_keras_mask", None) is None
    else:
        np.testing.assert_array_equal(mask, MASK)
        np.testing.assert_array_equal(implicit._keras_mask, MASK)


@pytest.mark.parametrize(
    ("spec", "jit"),
    [
        *(pytest.param(spec, False, id=spec.name) for spec in SPECS),
        *(
            pytest.param(spec, True, id=f"{spec.name}-xla")
            for spec in SPECS
            # The rest is in these.
            if spec.name in ("attention", "blockwise_attention", "encoder", "interests")
        ),
    ],
)
def test_gradients_are_finite_and_reach_every_weight(spec, jit):
    layer = randomize(spec.build())
    outputs = spec.call(layer, INPUTS, **ARGUMENTS)
    direction = np.random.default_rng(5).normal(size=outputs.shape).astype("float32")

    @tf.function(jit_compile=jit)
    def gradients(inputs, *given):
        arguments = dict(zip(spec.arguments(), given, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = spec.call(layer, inputs, **arguments, training=True)
            loss = tf.reduce_sum(outputs * direction)
        return tape.gradient(loss, [inputs, *layer.trainable_weights])

    found = gradients(tf.constant(INPUTS), *model_inputs(spec)[1:])
    if spec.cls in BIASES:  # of the inputs they see the length only
        assert found.pop(0) is None
    else:
        assert np.abs(found.pop(0)).max() > 1e-6
    for weight, gradient in zip(layer.trainable_weights, found, strict=True):
        name = getattr(weight, "path", weight.name)
        assert gradient is not None, name
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all(), name
        if not_ignored(spec, name):
            assert np.abs(gradient).max() > 1e-6, name


@every_layer
@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
)
def test_gradients_in_half_precision_are_finite(spec, policy):
    """With an empty history and padding, whose layer norms see zeros."""
    layer = randomize(spec.build(dtype=policy))
    inputs = tf.constant(INPUTS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = spec.call(layer, inputs, **ARGUMENTS, training=True)
        loss = tf.reduce_mean(tf.cast(outputs, tf.float32) ** 2)
    found = tape.gradient(loss, [inputs, *layer.trainable_weights])
    for gradient in found:
        if gradient is not None:  # a bias does not depend on the inputs
            gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
            assert np.isfinite(gradient).all()


def not_ignored(spec, name):
    """A bias of the keys moves all logits of a query alike, but for rotation."""
    return "key_bias" not in name or spec.kwargs().get("rotary", False)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in SPECS if spec.build().trainable_weights],
    ids=lambda spec: spec.name,
)
def test_a_training_step_moves_every_weight(spec):
    model = functional_model(spec, spec.make())
    randomize(model)
    before = [np.array(weight) for weight in model.trainable_weights]
    counters = [np.array(state) for state in seed_states(model)]
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    data = dict(zip(["inputs", *spec.arguments()], model_inputs(spec), strict=True))
    target = tf.ones([USERS, *spec.output_shape()[1:]])
    loss = model.train_on_batch(data, target)
    assert np.isfinite(loss)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        if not_ignored(spec, weight.name):
            assert np.abs(np.array(weight) - old).max() > 1e-7, weight.name
    for old, state in zip(counters, seed_states(model), strict=True):
        assert np.array(state)[1] > old[1]
