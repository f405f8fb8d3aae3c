"""The table of slow tests names tests that are there."""

import ast

import pytest

from tests.conftest import ROOT, SLOW


@pytest.mark.parametrize("file", sorted(SLOW))
def test_slow_tests_exist(file):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert set(SLOW[file]) <= found
    assert len(set(SLOW[file])) == len(SLOW[file])
