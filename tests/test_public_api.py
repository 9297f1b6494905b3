"""The public names: listed in a golden file, documented, and documented truly.

Public is what the `__all__` of the package and of its subpackages lists, with the
methods and properties that those classes define themselves, or have from a base that
holds what users call.
"""

from __future__ import annotations

import ast
import doctest
import functools
import inspect
import re
import types

import numpy as np
import pytest
import tensorflow as tf

import tfrs_selfattn

BASES = {"tfrs_selfattn.index._base"}
GETTERS = (property, functools.cached_property)


def names_of(module):
    """The module's `__all__`; without one, the functions and classes it defines."""
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
    ]


def resolved(owner, name):
    """A public object, or the error in its place, so that the others are checked."""
    try:
        return getattr(owner, name)
    except ModuleNotFoundError as error:
        return error


def members_of(cls):
    """What a class, and a base that is no more than a part of it, define by name."""
    members = {}
    for base in reversed(cls.__mro__):
        if base is cls or base.__module__ in BASES:
            members |= vars(base)
    return members


def public(owner, path):
    """Yields (dotted name, object) of all that `owner` offers."""
    for name in sorted(names_of(owner)):
        value = resolved(owner, name)
        yield f"{path}.{name}", value
        if isinstance(value, types.ModuleType):
            yield from public(value, f"{path}.{name}")
        elif inspect.isclass(value):
            for own, member in sorted(members_of(value).items()):
                if own[0] != "_" and isinstance(member, GETTERS):
                    yield f"{path}.{name}.{own}", member
                elif own[0] != "_" and callable(getattr(value, own)):
                    called = getattr(value, own)
                    # A `tf.function` stands for what it was made of.
                    called = getattr(called, "python_function", called)
                    yield f"{path}.{name}.{own}", called


PUBLIC = dict(public(tfrs_selfattn, "tfrs_selfattn"))
CALLABLES = {
    name: value
    for name, value in PUBLIC.items()
    if (inspect.isclass(value) and not issubclass(value, Exception))
    or (inspect.isroutine(value) and not isinstance(value, GETTERS))
}
# What these do, Keras says.
KERAS_PROTOCOL = {"build", "call", "from_config", "get_config"}


class AsWritten(str):
    """An annotation that a signature prints without quotes."""

    __repr__ = str.__str__


def signature_of(value):
    def as_written(annotation):
        annotation = getattr(annotation, "__forward_arg__", annotation)  # NamedTuple
        if annotation is None or isinstance(annotation, str):
            return AsWritten(annotation)
        return annotation

    signature = inspect.signature(value)
    return signature.replace(
        parameters=[
            parameter.replace(annotation=as_written(parameter.annotation))
            for parameter in signature.parameters.values()
        ],
        return_annotation=(
            signature.empty
            if inspect.isclass(value)
            else as_written(signature.return_annotation)
        ),
    )


def described(name):
    value = PUBLIC[name]
    if name in CALLABLES:
        return f"{name}{signature_of(value)}"
    if isinstance(value, GETTERS):
        return f"{name}: property"
    if inspect.isclass(value) or isinstance(value, types.ModuleType):
        return name
    return f"{name}: {type(value).__name__}"


def test_the_public_api_is_the_one_on_file(assert_golden):
    assert not [value for value in PUBLIC.values() if isinstance(value, Exception)]
    text = "".join(f"{described(name)}\n" for name in PUBLIC)
    assert " at 0x" not in text, "a default prints an address; it has no stable form"
    assert_golden("api.txt", text)


def overrides(name):
    """Whether a base class names this member too, and so says what it is for."""
    owner, _, member = name.rpartition(".")
    if member in KERAS_PROTOCOL or not inspect.isclass(PUBLIC.get(owner)):
        return member in KERAS_PROTOCOL
    own = members_of(PUBLIC[owner])[member]
    bases = PUBLIC[owner].__mro__[1:]
    return any(vars(base).get(member, own) is not own for base in bases)


def has_docstring(name):
    doc = (PUBLIC[name].__doc__ or "").strip()
    generated = doc.startswith(name.rpartition(".")[2] + "(")  # by `dataclass`
    return bool(doc) and not generated


def test_everything_public_has_a_docstring():
    names = {name for name in CALLABLES if not overrides(name)}
    names |= {name for name, value in PUBLIC.items() if inspect.ismodule(value)}
    assert not sorted(name for name in names if not has_docstring(name))


def section(value, title):
    """{argument: text} of a section of a docstring, None where there is no section."""
    doc = inspect.cleandoc(value.__doc__ or "")
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", doc + "\n", re.MULTILINE)
    if found is None:
        return None
    arguments = {}
    for entry in re.split(r"^    (?=\S)", found[1], flags=re.MULTILINE)[1:]:
        names, _, text = entry.partition(":")
        arguments |= dict.fromkeys(re.findall(r"\*{0,2}\w+", names), text)
    return arguments


def parameters_of(value):
    """{name: parameter}, the name with its stars."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {
        stars.get(parameter.kind, "") + name: parameter
        for name, parameter in inspect.signature(value).parameters.items()
        if name != "self"
    }


def assert_none(wrong):
    if wrong:
        lines = [f"{name}: {', '.join(what)}" for name, what in wrong.items()]
        pytest.fail("\n".join(lines), pytrace=False)


def test_arguments_are_all_documented_and_no_others():
    wrong = {}
    for name, value in CALLABLES.items():
        documented = section(value, "Args")
        if inspect.isclass(value) and documented is None:
            documented = section(value, "Attributes") or {}
        # For a function without such a section a sentence is enough.
        if documented is not None and (
            names := documented.keys() ^ parameters_of(value)
        ):
            wrong[name] = names
    assert_none(wrong)


def test_call_arguments_are_all_documented_and_no_others():
    calls = {
        value: value.call
        for value in CALLABLES.values()
        if getattr(value, "call", object).__module__.startswith("tfrs_selfattn.")
    }
    wrong = {
        value.__name__: names
        for value, call in calls.items()
        if (
            names := parameters_of(call).keys()
            ^ (section(value, "Call arguments") or {})
        )
    }
    assert calls
    assert_none(wrong)


LAYERS = [
    name
    for name, value in CALLABLES.items()
    if re.fullmatch(r"tfrs_selfattn\.layers\.(encoders\.)?\w+", name)
    and (inspect.isclass(value) or "SequenceEncoder" in str(signature_of(value)))
]


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_says_what_it_computes_and_what_it_does_otherwise(name):
    doc = inspect.cleandoc(PUBLIC[name].__doc__)
    missing = [
        part
        for part in ("Args:", "Returns:", "Example:", "Differs from:", "References:")
        if not re.search(rf"^{part}", doc, re.MULTILINE)
    ]
    # gSASRec's encoder is SASRec's, equation and all.
    equation = "$" in doc or name.endswith(".gsasrec")
    assert not missing + ([] if equation else ["an equation"])


def test_documented_defaults_are_the_real_ones():
    wrong, checked = {}, 0
    for name, value in CALLABLES.items():
        parameters = parameters_of(value)
        for argument, text in (section(value, "Args") or {}).items():
            stated = re.search(r"[Dd]efaults\s+to\s+`([^`]+)`", text)
            if stated and argument in parameters:
                checked += 1
                default = parameters[argument].default
                if repr(ast.literal_eval(stated[1])) != repr(default):
                    wrong[f"{name} {argument}"] = stated[1], repr(default)
    assert checked
    assert_none(wrong)


EXAMPLES = [name for name in PUBLIC if ">>>" in (PUBLIC[name].__doc__ or "")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_in_the_docstring_runs(name):
    # It may use public names of ours without importing them.
    names = {
        public.rpartition(".")[2]: value
        for public, value in PUBLIC.items()
        if public.count(".") == 2
    }
    names |= {"keras": tf.keras, "np": np, "tf": tf, "tfrs_selfattn": tfrs_selfattn}
    doc = PUBLIC[name].__doc__
    example = doctest.DocTestParser().get_doctest(doc, names, name, None, 0)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    report = []
    doctest.DocTestRunner(optionflags=options).run(example, out=report.append)
    if report:
        pytest.fail("".join(report), pytrace=False)
