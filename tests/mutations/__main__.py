"""Breaks every formula of ``table.py`` once and runs the tests that have to notice.

    python -m tests.mutations [--only WORDS] [--jobs N] [--output FILE.md] [--list]

Works on a copy of the tree, so that the checkout stays as it is. TensorFlow is imported once: each mutation is tried in
a process of its own that is forked from that state (Linux and macOS). Prints a table, and exits with 1 where a mutation
survives, with 2 where tests fail before anything is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.mutations.table import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
_KEPT_OUT = (".git", ".venv", "data", "results", "runs", "node_modules")
_PATIENCE = 900.0  # seconds that a mutation may take: one that never ends is caught, too
_HOUSE = ("facegcn", "tests", "model", "main", "utils", "mesh_sampling", "create_bin")


class Outcome(NamedTuple):
    """What became of the tests: the exit code of pytest, the test that failed first, and how it failed."""

    code: int
    test: str
    reason: str
    seconds: float


class FirstFailure:
    """A pytest plugin that remembers which test failed first."""

    def __init__(self):
        self.test = self.reason = ""

    def pytest_runtest_logreport(self, report):
        """Called by pytest for each phase of each test."""
        if report.failed and not self.test:
            self.test = report.nodeid.removeprefix("tests/")
            crash = getattr(report.longrepr, "reprcrash", None)
            self.reason = (crash.message if crash else str(report.longrepr)).strip().split("\n")[0]

    def pytest_collectreport(self, report):
        """Called by pytest for each collected file."""
        if report.failed and not self.test:
            self.test, self.reason = report.nodeid.removeprefix("tests/"), "cannot be imported"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m tests.mutations", description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", metavar="WORDS", help="mutations whose name has these words")
    parser.add_argument("--jobs", type=int, default=1, help="mutations at a time (1)")
    parser.add_argument("--output", metavar="FILE.md", help="the table as a file, too")
    parser.add_argument("--list", action="store_true", help="names only")
    flags = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS
              if not flags.only or any(words in mutation.name for words in flags.only)]
    if flags.list or not chosen:
        print("\n".join(mutation.name for mutation in chosen) or "no mutation has such a name")
        return 0 if chosen else 2
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        trees = [copy_of_the_tree(Path(folder) / str(number)) for number in range(max(flags.jobs, 1))]
        if not whole(trees[0], chosen):
            return 2
        outcomes = try_all(chosen, trees)
    lines = table(chosen, outcomes)
    print("\n" + "\n".join(lines))
    if flags.output:
        Path(flags.output).write_text("\n".join(lines) + "\n")
    return int(any(outcome.code == 0 for outcome in outcomes.values()))


def import_libraries() -> None:
    """Imports what tests import, except the project's own modules, which each process reads from its own tree."""
    from facegcn.backends.start import tensorflow
    tensorflow()
    for name in ("cv2", "hypothesis", "keras", "numba", "pytest", "scipy.optimize", "scipy.sparse", "skimage",
                 "threadpoolctl"):
        __import__(name)


def copy_of_the_tree(folder: Path) -> Path:
    """A copy to break formulas in."""
    ignored = shutil.ignore_patterns(*_KEPT_OUT)
    # Only at the top: tests/data and other folders of these names belong to it.
    shutil.copytree(ROOT, folder, ignore=lambda path, names: ignored(path, names) if Path(path) == ROOT else set(),
                    symlinks=True)
    return folder


def whole(tree: Path, chosen: list[Mutation]) -> bool:
    """Whether all tests that are to notice something pass while nothing is broken."""
    files = sorted({file for mutation in chosen for file in mutation.tests})
    outcome = wait_for({begin(tree, files, "not slow"): None})[1]
    if outcome.code:
        print(f"nothing is broken yet, and {outcome.test} fails: {outcome.reason}", file=sys.stderr)
    return not outcome.code


def try_all(chosen: list[Mutation], trees: list[Path]) -> dict[str, Outcome]:
    """The outcome of each mutation by its name; as many at a time as there are trees."""
    outcomes, waiting, free, running = {}, list(chosen), list(trees), {}
    while waiting or running:
        while waiting and free:
            mutation, tree = waiting.pop(0), free.pop()
            original = apply(mutation, tree)
            running[begin(tree, mutation.tests, "not slow")] = (mutation, tree, original, False)
        (mutation, tree, original, slow), outcome = wait_for(running)
        if outcome.code in (0, 5) and not slow:  # none failed, or all are slow
            running[begin(tree, mutation.tests, "slow")] = (mutation, tree, original, True)
            continue
        restore(mutation, tree, original)
        free.append(tree)
        outcomes[mutation.name] = outcome._replace(code=0 if outcome.code == 5 else outcome.code)
        print(f"{len(outcomes):4} of {len(chosen)}  {mutation.name}: {outcome.test or 'SURVIVES'}", flush=True)
    return outcomes


def apply(mutation: Mutation, tree: Path) -> tuple[bytes, os.stat_result]:
    """Breaks a formula of a tree; returns what its file was.

    Raises:
        ValueError: the text to replace is not there exactly once.
    """
    path = tree / mutation.file
    original, state = path.read_bytes(), path.stat()
    text = original.decode()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} has {mutation.old!r} {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new))
    return original, state


def restore(mutation: Mutation, tree: Path, original: tuple[bytes, os.stat_result]) -> None:
    """Makes a file what it was, its time included: compiled kernels are kept by it."""
    path = tree / mutation.file
    path.write_bytes(original[0])
    os.utime(path, ns=(original[1].st_atime_ns, original[1].st_mtime_ns))


# ---------------------------------------------------------------- processes
def begin(tree: Path, files, marked: str) -> tuple[int, Path, float]:
    """Starts pytest on test files of a tree; (process, file of its report, when)."""
    report = tree / f"report-{time.monotonic_ns()}.json"
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process, report, time.monotonic()
    try:
        os.setpgid(0, 0)  # what tests start ends with them
        code = run_tests(tree, files, marked, report)
    except BaseException as error:  # of a mutation: it must not go on as the program that tries them
        report.write_text(json.dumps({"test": "collection", "reason": repr(error)}))
        code = 3
    finally:
        os._exit(code)


def run_tests(tree: Path, files, marked: str, report: Path) -> int:
    """In the process of a mutation: the tests, as if Python had been started in that tree."""
    for name in [name for name in sys.modules if name.split(".")[0] in _HOUSE]:
        del sys.modules[name]
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ".").resolve() not in (ROOT, tree))]
    sys.dont_write_bytecode = True
    os.environ["CI"] = "1"  # hypothesis tries the same examples for all
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    import pytest
    first = FirstFailure()
    code = pytest.main(["-x", "-q", "-m", marked, "-p", "no:cacheprovider", "--rootdir", str(tree),
                        *(f"tests/{file}" for file in files)], plugins=[first])
    report.write_text(json.dumps({"test": first.test, "reason": first.reason}))
    return int(code)


def wait_for(running: dict):
    """Waits for one of the processes; what it belongs to, taken out of ``running``, and its outcome."""
    while True:
        for begun in list(running):
            process, report, since = begun
            seconds = time.monotonic() - since
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and seconds < _PATIENCE:
                continue
            if not ended:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                outcome = Outcome(3, "any of them", f"not ended after {_PATIENCE:.0f} s", seconds)
            elif not report.exists():
                outcome = Outcome(3, "any of them", "the process ended at once", seconds)
            else:
                outcome = Outcome(os.waitstatus_to_exitcode(status), seconds=seconds, **json.loads(report.read_text()))
                report.unlink()
            return running.pop(begun), outcome
        time.sleep(0.05)


# ---------------------------------------------------------------- the table
def table(chosen: list[Mutation], outcomes: dict[str, Outcome]) -> list[str]:
    """Lines of a Markdown table, and the count."""
    lines = ["| formula | kind | caught by | seconds |", "|---|---|---|---|"]
    for mutation in chosen:
        outcome = outcomes[mutation.name]
        caught = f"`{outcome.test}`" if outcome.code else "**nothing**"
        formula = f"`{Path(mutation.file).stem}`: {mutation.formula}"
        lines.append(f"| {formula} | {mutation.kind} | {caught} | {outcome.seconds:.1f} |")
    survivors = sum(outcome.code == 0 for outcome in outcomes.values())
    return [*lines, "", f"{len(outcomes) - survivors} of {len(outcomes)} mutations are caught."]


if __name__ == "__main__":
    sys.exit(main())
