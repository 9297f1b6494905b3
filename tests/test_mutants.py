"""The faults of `mutants/` can still be put in, and the table is theirs."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.__main__ import FAULTS, HEAD, TABLE, row
from tests.mutants.running import REPOSITORY


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_finds_its_place_and_its_test(fault):
    path = REPOSITORY / "tfrs_selfattn" / fault.file
    text = path.read_text(encoding="utf-8")
    faulty = fault.faulty(text)
    assert faulty != text
    ast.parse(faulty)
    file, _, test = fault.test.partition("::")
    tests = ast.parse((REPOSITORY / "tests" / file).read_text(encoding="utf-8"))
    names = [node.name for node in tests.body if isinstance(node, ast.FunctionDef)]
    assert test.partition("[")[0] in names


def test_no_two_faults_are_the_same():
    assert len({(f.file, f.old, f.new) for f in FAULTS}) == len(FAULTS)
    assert len({f.name for f in FAULTS}) == len(FAULTS)


def test_the_table_is_that_of_the_faults():
    known = TABLE.read_text(encoding="utf-8")
    assert known == HEAD + "".join(map(row, FAULTS)), "run `python -m tests.mutants`"
