"""The table of slow tests names tests and fixtures that are there; the commands leave out what they say."""

import ast

import pytest

from tests.conftest import ROOT, SLOW


@pytest.mark.parametrize("file", sorted(SLOW))
def test_slow_tests_exist(file):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert set(SLOW[file]) <= found
    assert len(set(SLOW[file])) == len(SLOW[file])


def test_commands_and_the_settings_of_pytest_speak_of_the_same_marks():
    """``make test`` leaves out what takes minutes, ``make test-fast`` what takes seconds as well."""
    makefile, settings = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    for target, chosen in (("test", '"not long"'), ("test-fast", '"not slow and not long"'), ("test-long", "long")):
        recipe = makefile.split(f"\n{target}: ")[1].split("\n\n")[0]
        assert f"-m {chosen}" in recipe
    assert all(f'"{mark}: ' in settings for mark in ("slow", "long"))
