"""Requests for Hypothesis: right but for their contents, and not right at all."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from tests.export.tiny import IDS, WIDTH
from tfrs_selfattn.client import Tensor, tensors

# Inputs by signature: a type, and what the sizes mean: rows, columns of a history,
# columns of another list, the width of a vector.
ROWS, PAST, OTHERS, VECTOR = "B", "T", "E", "D"
HISTORY = {"history": ("string", (ROWS, PAST))}
INPUTS = {
    "serving_default": HISTORY,
    "recommend_excluding": {**HISTORY, "exclude": ("string", (ROWS, OTHERS))},
    "recommend_among": {**HISTORY, "candidates": ("string", (ROWS, OTHERS))},
    "tf_example": {"examples": ("string", (ROWS,))},
    "embed_query": HISTORY,
    "embed_item": {"item": ("string", (ROWS,))},
    "explain": {**HISTORY, "item": ("string", (ROWS,))},
    "search": {
        "embedding": ("float32", (ROWS, VECTOR)),
        "exclude": ("string", (ROWS, OTHERS)),
    },
}
TIMES = {
    "timestamps": ("int64", (ROWS, PAST)),
    "request_time": ("int64", (ROWS,)),
}
OF_AN_INDEX = ("search", "embed_item")
SIGNATURES = {
    "films": [name for name in INPUTS if name != "search"],
    "timed": [name for name in INPUTS if name != "search"],
    "index": list(OF_AN_INDEX),
}

ID = st.one_of(
    st.sampled_from([item.encode() for item in IDS]),
    st.sampled_from([b"", b"nothing", b"\xff\xfe", b"\x00"]),
    st.binary(max_size=40),
)
MOMENT = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 10**9, 2**62, 2**63 - 1, -(2**63)]),
)
NUMBER = st.one_of(
    st.floats(width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 3e38, -3e38, 1e-45]),
)
ELEMENTS = {"string": ID, "int64": MOMENT, "float32": NUMBER}
# Good ones, ones with features of the wrong type, and any of them cut short.
EXAMPLE = st.builds(
    lambda ids, times, cut: tensors.example(ids, times)[: cut or None],
    st.dictionaries(
        st.sampled_from(["history", "exclude", "x", "timestamps"]),
        st.lists(ID, max_size=4),
    ),
    st.dictionaries(
        st.sampled_from(["timestamps", "request_time", "history"]),
        st.lists(MOMENT, max_size=4),
    ),
    st.sampled_from([0, 0, -1, -3, 5]),
)


def inputs_of(model, signature):
    """The inputs of a signature: types and what their sizes mean."""
    takes_times = model == "timed" and signature not in ("tf_example", "embed_item")
    return {**INPUTS[signature], **(TIMES if takes_times else {})}


@st.composite
def some_tensor(draw, dtype, shape, element=None):
    """A tensor; its values repeat a few drawn ones, as many would take long to draw."""
    size = math.prod(shape)
    element = ELEMENTS[dtype] if element is None else element
    few = draw(st.lists(element, min_size=min(size, 1), max_size=min(size, 8)))
    return Tensor(dtype, shape, [few[place % len(few)] for place in range(size)])


@st.composite
def right_inputs(draw, model, signature, width=None):
    """Names, types and shapes that a signature takes, with any contents."""
    sizes = {
        ROWS: draw(st.integers(1 if width else 0, 4)),
        PAST: width or draw(st.sampled_from([0, 1, 2, 3, 7, 64])),
        OTHERS: width or draw(st.sampled_from([0, 1, 2, 5])),
        VECTOR: WIDTH,
    }
    return {
        name: draw(
            some_tensor(
                dtype,
                tuple(sizes[axis] for axis in axes),
                st.one_of(EXAMPLE, EXAMPLE, ID) if name == "examples" else None,
            )
        )
        for name, (dtype, axes) in inputs_of(model, signature).items()
    }


@st.composite
def spoiled(draw, inputs):
    """The inputs, one of which is gone, renamed, or of another type or shape."""
    inputs = dict(inputs)
    name = draw(st.sampled_from(sorted(inputs)))
    tensor = inputs[name]
    fault = draw(st.sampled_from(["gone", "renamed", "more", "type", "shape", "rank"]))
    if fault in ("gone", "renamed"):
        del inputs[name]
    if fault in ("renamed", "more"):
        inputs[draw(st.sampled_from(["x", "exclude", "item", "timestamps"]))] = tensor
    if fault == "type":
        other = draw(st.sampled_from(sorted({"string", "int64", "float32", "int32"})))
        values = [0] * len(tensor.values)
        if other in ELEMENTS:
            return inputs | {name: draw(some_tensor(other, tensor.shape))}
        return inputs | {name: Tensor(other, tensor.shape, values)}
    if fault == "shape":
        shape = tuple(draw(st.integers(0, 5)) for _ in tensor.shape)
        inputs[name] = draw(some_tensor(tensor.dtype, shape))
    if fault == "rank":
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
        inputs[name] = draw(some_tensor(tensor.dtype, shape))
    return inputs


@st.composite
def right_requests(draw, width=None, models=("films", "timed", "index")):
    """A model, a signature and inputs that it takes, with any contents."""
    model = draw(st.sampled_from(models))
    signature = draw(st.sampled_from(SIGNATURES[model]))
    return model, signature, draw(right_inputs(model, signature, width))


@st.composite
def wrong_requests(draw):
    """The same with one thing wrong, mostly."""
    model, signature, inputs = draw(right_requests())
    if draw(st.booleans()):
        signature = draw(st.sampled_from([*INPUTS, "nothing", ""]))
    return model, signature, draw(spoiled(inputs))


LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.just({"b64": "/w=="}),
    st.just({"b64": "?"}),
)
NESTED = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4), max_leaves=9)


@st.composite
def bodies(draw):
    """A model and the body of a request by REST: columns, rows, or anything at all."""
    model, signature, inputs = draw(st.one_of(right_requests(), wrong_requests()))
    kind = draw(st.sampled_from(["columns", "columns", "rows", "rows", "odd", "bytes"]))
    if kind == "bytes":
        return model, draw(st.one_of(st.binary(max_size=60), NESTED))
    columns = {name: tensors.to_json(tensor) for name, tensor in inputs.items()}
    if kind == "odd" and columns:
        columns[draw(st.sampled_from(sorted(columns)))] = draw(NESTED)
    body = {"signature_name": signature, "inputs": columns}
    lists = {name: v for name, v in columns.items() if isinstance(v, list)}
    if kind == "rows" and lists:
        body["instances"] = [
            {name: value[row] for name, value in lists.items()}
            for row in range(min(map(len, lists.values())))
        ]
        del body["inputs"]
    if draw(st.integers(0, 19)) == 0:
        body["signature_name"] = draw(LEAF)
    return model, body
