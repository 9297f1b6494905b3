"""Public names resolved on first use (PEP 562).

Importing a package of ours must not drag in TensorFlow before the user has chosen a
Keras, nor TensorFlow Recommenders when only a layer is wanted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, exports: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes a package's module-level `__getattr__` and `__dir__`.

    Args:
        package: str. The package's `__name__`.
        exports: mapping from public name to the submodule, relative to `package`, that
            defines it. A name that equals its submodule gives the submodule itself.

    Returns:
        The pair (`__getattr__`, `__dir__`) to assign in the package.
    """

    def getattribute(name: str) -> Any:
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{exports[name]}")
        return module if exports[name] == name else getattr(module, name)

    def directory() -> list[str]:
        return sorted(exports)

    return getattribute, directory
