from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import Vocabulary

# Ids that naive readers split, strip or re-type.
AWKWARD = ("007", "7", " 7 ", "a,b", 'say "x"', "naïve", "line\u2028sep", "\x0bv", "0")


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(AWKWARD, np.arange(len(AWKWARD), 0, -1))


def test_encode_and_decode_are_inverse(vocabulary):
    indices = vocabulary.encode(AWKWARD)
    assert indices.dtype == np.int32
    assert indices.tolist() == list(range(1, len(AWKWARD) + 1))
    assert vocabulary.decode(indices) == list(AWKWARD)


def test_unknown_ids_and_padding_are_index_0_and_empty(vocabulary):
    assert vocabulary.encode(["unknown", "", None, "007"]).tolist() == [0, 0, 0, 1]
    assert vocabulary.encode(pl.Series(["7", None])).tolist() == [2, 0]
    assert vocabulary.decode([0, 2]) == ["", "7"]
    assert vocabulary.encode([]).shape == (0,)


def test_saves_and_loads_every_id_as_it_is(vocabulary, tmp_path):
    path = tmp_path / "vocabulary.txt"
    vocabulary.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.txt"]
    assert Vocabulary.load(path).ids == AWKWARD
    assert Vocabulary.load(path).counts.tolist() == [0] * len(AWKWARD)
    counts = Vocabulary.load(path, counts=vocabulary.counts).counts
    assert counts.tolist() == vocabulary.counts.tolist()


def test_a_failed_save_leaves_the_old_file(vocabulary, tmp_path, monkeypatch):
    path = tmp_path / "vocabulary.txt"
    path.write_text("old\n")
    with pytest.raises(UnicodeEncodeError):
        Vocabulary(("a", "\ud800"), np.ones(2, np.int64)).save(path)
    assert path.read_text() == "old\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2 is empty"),
        (b"a\nb\na\n", "line 3 repeats line 1"),
        (b"a\n\xff\n", "must be UTF-8"),
    ],
)
def test_load_refuses_what_no_run_wrote(write, content, message):
    with pytest.raises(InputError, match=message):
        Vocabulary.load(write("vocabulary.txt", content))


def test_load_names_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.txt \(No such file"):
        Vocabulary.load(tmp_path / "absent.txt")


def test_counts_must_fit_the_ids():
    with pytest.raises(ValueError, match="Received: 1 counts for 2 ids"):
        Vocabulary(("a", "b"), np.ones(1, np.int64))
