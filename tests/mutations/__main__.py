"""Breaks every formula of ``table.py``, one at a time, and runs the tests that have to notice.

    python -m tests.mutations [--only WORDS] [--jobs N] [--output FILE.md] [--list]

Works on a copy of the tree, so that the checkout stays as it is. TensorFlow is imported once: each mutation is tried in
a process of its own that is forked from that state (Linux and macOS). Prints a table, and exits with 1 where a mutation
survives, with 2 where tests fail while nothing is broken, or could not say anything.
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
_FAST, _SLOW = "not slow and not long", "slow and not long"
_PASSED, _FAILED, _INTERRUPTED, _INTERNAL, _NONE_CHOSEN = 0, 1, 2, 3, 5  # pytest.ExitCode
_ENDLESS = 124  # none of pytest's


class Outcome(NamedTuple):
    """What became of the tests.

    Attributes:
        code: pytest's exit code, or ``_ENDLESS``.
        test: the one that failed first.
        reason: how it failed, or what else happened.
        seconds: how long it took.
        slow: whether slow tests were run.
    """

    code: int
    test: str
    reason: str
    seconds: float
    slow: bool = False

    @property
    def verdict(self) -> str:
        """``caught``, ``survives``, or ``error`` where the tests said neither."""
        if self.code in (_PASSED, _NONE_CHOSEN):
            return "survives"
        # pytest is interrupted by a file that cannot be imported, and then names it, but by other things, too
        caught = self.code in (_FAILED, _ENDLESS) or self.code == _INTERRUPTED and bool(self.test)
        return "caught" if caught else "error"


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
        outcomes = believed(chosen, try_all(chosen, trees), trees[0])
    lines = table(chosen, outcomes)
    print("\n" + "\n".join(lines))
    if flags.output:
        Path(flags.output).write_text("\n".join(lines) + "\n")
    verdicts = {outcome.verdict for outcome in outcomes.values()}
    return 2 if "error" in verdicts else int("survives" in verdicts)


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
    """Whether all fast tests that are to notice something pass while nothing is broken."""
    files = sorted({file for mutation in chosen for file in mutation.tests})
    outcome = wait_for({begin(tree, files, _FAST): None})[1]
    if outcome.verdict != "survives":
        print(f"nothing is broken yet, and {outcome.test or 'pytest'} fails: {outcome.reason}", file=sys.stderr)
    return outcome.verdict == "survives"


def try_all(chosen: list[Mutation], trees: list[Path]) -> dict[str, Outcome]:
    """The outcome of each mutation by its name; as many at a time as there are trees."""
    outcomes, waiting, free, running = {}, list(chosen), list(trees), {}
    try:
        while waiting or running:
            while waiting and free:
                mutation, tree = waiting.pop(0), free.pop()
                original = apply(mutation, tree)
                running[begin(tree, mutation.tests, _FAST)] = (mutation, tree, original, False)
            (mutation, tree, original, slow), outcome = wait_for(running)
            if outcome.verdict == "survives" and not slow:
                running[begin(tree, mutation.tests, _SLOW)] = (mutation, tree, original, True)
                continue
            restore(mutation, tree, original)
            free.append(tree)
            outcomes[mutation.name] = outcome._replace(slow=slow)
            print(f"{len(outcomes):4} of {len(chosen)}  {mutation.name}: {told(outcome)}", flush=True)
    finally:  # after Ctrl-C no test goes on in a tree that is about to be removed
        for process, *_ in running:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
    return outcomes


def believed(chosen: list[Mutation], outcomes: dict[str, Outcome], tree: Path) -> dict[str, Outcome]:
    """The outcomes, with an error for what a slow test caught that fails on a tree where nothing is broken, too.

    ``whole`` leaves slow tests out: they take minutes, and few of them are needed.
    """
    found, sound = dict(outcomes), {}
    for mutation in chosen:
        outcome = outcomes[mutation.name]
        if not outcome.slow or outcome.verdict != "caught":
            continue
        tests = mutation.tests if outcome.code == _ENDLESS else (outcome.test,)
        if tests not in sound:
            sound[tests] = wait_for({begin(tree, tests, _SLOW): None})[1]
        if sound[tests].verdict != "survives":
            reason = f"nothing is broken, and {sound[tests].test or 'pytest'} fails, too: {sound[tests].reason}"
            found[mutation.name] = outcome._replace(code=_INTERNAL, reason=reason)
    return found


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
        report.write_text(json.dumps({"test": "", "reason": repr(error)}))
        code = _INTERNAL
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
    report.write_text(json.dumps({"test": first.test, "reason": first.reason or f"pytest ended with {int(code)}"}))
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
                outcome = Outcome(_ENDLESS, "any of them", f"not ended after {_PATIENCE:.0f} s", seconds)
            elif not report.exists():
                reason = f"the process ended with {os.waitstatus_to_exitcode(status)} before its tests did"
                outcome = Outcome(_INTERNAL, "", reason, seconds)
            else:
                outcome = Outcome(os.waitstatus_to_exitcode(status), seconds=seconds, **json.loads(report.read_text()))
                report.unlink()
            return running.pop(begun), outcome
        time.sleep(0.05)


# ---------------------------------------------------------------- the table
def told(outcome: Outcome) -> str:
    """What a table says of an outcome."""
    if outcome.verdict == "error":
        return "**error**: " + outcome.reason.replace("|", "\\|")
    return f"`{outcome.test}`" if outcome.verdict == "caught" else "**nothing**"


def table(chosen: list[Mutation], outcomes: dict[str, Outcome]) -> list[str]:
    """Lines of a Markdown table, and the count."""
    lines = ["| formula | kind | caught by | seconds |", "|---|---|---|---|"]
    for mutation in chosen:
        outcome = outcomes[mutation.name]
        formula = f"`{Path(mutation.file).stem}`: {mutation.formula}"
        lines.append(f"| {formula} | {mutation.kind} | {told(outcome)} | {outcome.seconds:.1f} |")
    verdicts = [outcome.verdict for outcome in outcomes.values()]
    errors = f"; of {verdicts.count('error')} nothing can be said" if "error" in verdicts else ""
    return [*lines, "", f"{verdicts.count('caught')} of {len(outcomes)} mutations are caught{errors}."]


if __name__ == "__main__":
    sys.exit(main())
