"""Indexes need TensorFlow Recommenders, hence legacy Keras: left out under Keras 3."""

from __future__ import annotations

from tfrs_selfattn._keras import KERAS_3

collect_ignore_glob = ["test_*.py"] if KERAS_3 else []
