"""Builds the `tfrs-selfattn` distribution; tool settings live in pyproject.toml."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Runs the one file that states the version; the package itself needs TensorFlow.
VERSION = runpy.run_path(str(HERE / "tfrs_selfattn" / "_version.py"))["__version__"]

REQUIREMENTS = [
    # Each tf-keras pins the TensorFlow of its own minor version, so pip settles on a
    # matching pair; the two ranges only have to be the same.
    "tensorflow>=2.18,<2.22",
    "tf-keras>=2.18,<2.22",
    # 2.18 draws seeds in a way that Python 3.12 refuses.
    "tf-keras>=2.19; python_version >= '3.12'",
    # On macOS, 0.7.7 asks for tensorflow-macos, which ended at 2.16: see README.
    "tensorflow-recommenders>=0.7.7; sys_platform != 'darwin'",
    "numpy>=1.26",
    "polars>=1.30",
    "typer>=0.16",
    "rich>=13.8",
    "platformdirs>=4",
    # TensorFlow 2.21 no longer brings it, and before 2.21 the `tensorboard` command
    # imports pkg_resources, which setuptools 82 dropped.
    "tensorboard>=2.18",
    "setuptools<82",
]

# Each asks for a TensorFlow at least as new as itself; pip finds the pair.
SERVING_API = "tensorflow-serving-api>=2.18,<2.22"
LOCUST = "locust>=2.30"
# To write the notebooks from their sources, and to run them.
NOTEBOOKS = ["jupytext>=1.16", "nbclient>=0.10", "ipykernel>=6.29"]
EXTRAS = {
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "matplotlib>=3.8",
        # These two change their verdicts between minor versions.
        "mypy>=2.4,<2.5",
        "ruff>=0.17,<0.18",
        # The real protos, to read with them what the exports write by hand.
        SERVING_API,
        LOCUST,  # serving/load_test.py runs, too
        *NOTEBOOKS,
    ],
    "notebooks": ["jupyterlab>=4", "matplotlib>=3.8", *NOTEBOOKS],
    "serving": ["grpcio>=1.62", SERVING_API, LOCUST, "matplotlib>=3.8"],
    "plot": ["matplotlib>=3.8"],
    "beam": ["apache-beam>=2.70"],
    "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29"],
}

setup(
    name="tfrs-selfattn",
    version=VERSION,
    description="Masked multi-head self-attention for TensorFlow Recommenders",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfrs_selfattn", "tfrs_selfattn.*"]),
    package_data={"tfrs_selfattn": ["py.typed"]},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfrs-selfattn = tfrs_selfattn.cli.main:main"]},
)
