"""The table of broken formulas stays true to the tree, and the runner tells what notices from what does not."""

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


@pytest.mark.parametrize("words, code, shown", [("camera: pixels", 0, "camera: pixels, factor\n"),
                                                ("no such formula", 2, "no mutation has such a name\n")])
def test_mutations_are_chosen_by_words_of_their_names(words, code, shown, capsys):
    assert runner.main(["--list", "--only", words]) == code and capsys.readouterr().out == shown


@pytest.mark.long
def test_every_mutation_is_caught():
    done = subprocess.run([sys.executable, "-m", "tests.mutations"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
