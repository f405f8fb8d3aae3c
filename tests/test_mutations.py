"""The table of broken formulas stays true to the tree, and the runner tells what notices from what does not."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.mutations import __main__ as runner
from tests.mutations.table import MUTATIONS, Mutation

FILES = sorted({mutation.file for mutation in MUTATIONS})


def test_names_are_distinct_and_every_kind_occurs():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.kind for mutation in MUTATIONS} == {"sign", "factor", "axis", "term"}


@pytest.mark.parametrize("file", FILES)
def test_what_is_broken_is_there_once_and_stays_python(file):
    text = (ROOT / file).read_text()
    for mutation in MUTATIONS:
        if mutation.file == file:
            assert text.count(mutation.old) == 1, f"{mutation.name}: {mutation.old!r}"
            assert mutation.old != mutation.new
            compile(text.replace(mutation.old, mutation.new), file, "exec")
            assert all((ROOT / "tests" / test).is_file() for test in mutation.tests)


def test_a_file_is_broken_and_made_whole_again(tmp_path):
    (tmp_path / "a.py").write_text("x = 1 + 2\n")
    before = (tmp_path / "a.py").stat().st_mtime_ns
    mutation = Mutation("a.py", "sum", "sign", "1 + 2", "1 - 2", ())
    original = runner.apply(mutation, tmp_path)
    assert (tmp_path / "a.py").read_text() == "x = 1 - 2\n"
    runner.restore(mutation, tmp_path, original)
    assert (tmp_path / "a.py").read_text() == "x = 1 + 2\n" and (tmp_path / "a.py").stat().st_mtime_ns == before
    for old in ("3", "="):
        (tmp_path / "a.py").write_text("x = y = 1\n")
        with pytest.raises(ValueError, match="times"):
            runner.apply(mutation._replace(old=old), tmp_path)


def test_the_table_names_survivors():
    caught, lost = (Mutation("facegcn/a.py", name, "sign", "+", "-", ()) for name in ("caught", "lost"))
    outcomes = {caught.name: runner.Outcome(1, "test_a.py::test_b", "assert 1 == 2", 1.25),
                lost.name: runner.Outcome(0, "", "", 2.0)}
    lines = runner.table([caught, lost], outcomes)
    assert lines[2] == "| `a`: caught | sign | `test_a.py::test_b` | 1.2 |"
    assert lines[3] == "| `a`: lost | sign | **nothing** | 2.0 |" and lines[-1] == "1 of 2 mutations are caught."


@pytest.mark.parametrize("code, test, verdict", [
    (0, "", "survives"), (5, "", "survives"), (1, "test_a.py::test_b", "caught"), (2, "test_a.py", "caught"),
    (runner._ENDLESS, "any of them", "caught"), (2, "", "error"), (3, "", "error"), (4, "", "error"),
    (-11, "", "error")])
def test_only_what_tests_say_is_a_verdict(code, test, verdict):
    assert runner.Outcome(code, test, "", 1.0).verdict == verdict


def test_what_nobody_can_tell_is_in_the_table():
    mutation = Mutation("facegcn/a.py", "b", "sign", "+", "-", ())
    lines = runner.table([mutation], {mutation.name: runner.Outcome(4, "", "pytest ended with 4", 0.5)})
    assert lines[2] == "| `a`: b | sign | **error**: pytest ended with 4 | 0.5 |"
    assert lines[-1] == "0 of 1 mutations are caught; of 1 nothing can be said."


@pytest.mark.parametrize("codes, exit_code", [((1, 1), 0), ((1, 0), 1), ((1, 3), 2), ((0, 4), 2)])
def test_the_command_ends_with_the_worst_of_its_verdicts(codes, exit_code, monkeypatch, capsys):
    for name in ("import_libraries", "copy_of_the_tree"):
        monkeypatch.setattr(runner, name, lambda *_: None)
    monkeypatch.setattr(runner, "whole", lambda *_: True)
    monkeypatch.setattr(runner, "try_all", lambda chosen, _: {
        mutation.name: runner.Outcome(code, "test", "", 0.0) for mutation, code in zip(chosen, codes, strict=True)})
    assert runner.main(["--only", "replicas: "]) == exit_code


TRIES = """
import sys
from pathlib import Path
import pytest
from tests.mutations import __main__ as runner
from tests.mutations.table import Mutation

chosen = [Mutation("a.py", name, "term", "x = 1", new, (test,)) for name, new, test in (
    ("fast", "x = 2", "test_fast.py"), ("slow", "x = 2", "test_slow.py"), ("not its doing", "x = 2", "test_broken.py"),
    ("same", "x = 1.0", "test_slow.py"), ("no Python", "x = (", "test_fast.py"),
    ("gone", "__import__('os')._exit(1)", "test_fast.py"))]
tree = Path(sys.argv[1])
assert runner.whole(tree, chosen)
print("\\n".join(runner.table(chosen, runner.believed(chosen, runner.try_all(chosen, [tree]), tree))))
"""


def test_slow_tests_that_fail_anyway_and_processes_that_end_catch_nothing(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    long\n")
    for name, mark, claim in (("fast", "", "a.x == 1"), ("slow", "@pytest.mark.slow", "a.x == 1"),
                              ("broken", "@pytest.mark.slow", "not a.x")):
        text = f"import a, pytest\n{mark}\ndef test_x():\n    assert {claim}\n"
        (tmp_path / "tests" / f"test_{name}.py").write_text(text)
    done = subprocess.run([sys.executable, "-c", TRIES, str(tmp_path)], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| `a`")]
    assert [row.split(" | ")[2] for row in rows] == [
        "`test_fast.py::test_x`", "`test_slow.py::test_x`",
        "**error**: nothing is broken, and test_broken.py::test_x fails, too: assert not 1", "**nothing**",
        "`test_fast.py`", "**error**: the process ended with 1 before its tests did"]


@pytest.mark.parametrize("words, code, shown", [("camera: pixels", 0, "camera: pixels, factor\n"),
                                                ("no such formula", 2, "no mutation has such a name\n")])
def test_mutations_are_chosen_by_words_of_their_names(words, code, shown, capsys):
    assert runner.main(["--list", "--only", words]) == code and capsys.readouterr().out == shown


@pytest.mark.long
def test_every_mutation_is_caught():
    done = subprocess.run([sys.executable, "-m", "tests.mutations"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
