"""Reads damaged and forged files of every kind, each kind in a process of its own, and prints what became of them.

    python -m tests.fuzzing --reader all --count 2000
    python -m tests.fuzzing --reader photos --count 100000 --seed 7
    python -m tests.fuzzing --replay fuzzing-failures/photos-7-1234

A crash, more than 5 seconds, more than 1 GB, an error that is not for the user, a wrong answer, or anything that a
file must not bring about is a failure: its files are kept and can be read again.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tests.fuzzing import readers
from tests.fuzzing.worker import MOST_BYTES, MOST_SECONDS, Status

NAMES = sorted(module.name for module in pkgutil.iter_modules(readers.__path__))
_PATIENCE = 2 * MOST_SECONDS  # that an alarm is given before the process is killed: it may be inside a library
_LOOK = 0.5  # seconds between looks
_MOST_RESTARTS = 200
_HEAD = f"{'reader':12}{'inputs':>9}{'refused':>9}{'accepted':>9}{'failed':>8}{'worst s':>9}{'MB':>7}{'per s':>8}"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 when nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", default="all", help=f"all, or some of {', '.join(NAMES)}, parted by commas")
    parser.add_argument("--count", type=int, default=2000, help="inputs of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs for the same seed (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="kinds at a time (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of each kind at most (default: as long as "
                        "it takes)")
    parser.add_argument("--failures", default="fuzzing-failures", metavar="DIR", help="where they are kept (default "
                                                                                     "%(default)s)")
    parser.add_argument("--replay", nargs="+", metavar="DIR", help="read kept failures again, in this process")
    options = parser.parse_args(arguments)
    if options.replay:
        return max(replay(folder) for folder in options.replay)
    chosen = NAMES if options.reader == "all" else options.reader.split(",")
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"there is no reader {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    print(_HEAD, flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        failed = sum(pool.map(lambda name: _run(name, options), chosen))
    if failed:
        print(f"{failed} failures are kept in {options.failures}")
    return 1 if failed else 0


def _run(name: str, options) -> int:
    """All inputs of one kind; returns how many failed."""
    memory = "/dev/shm"  # files that are read once need no disk
    scratch = tempfile.mkdtemp(prefix="fuzzing-", dir=memory if os.path.isdir(memory) else None)
    try:
        status = Status(os.path.join(scratch, "status"))
        begin = time.monotonic()
        for _ in range(_MOST_RESTARTS):
            ended = _watched(name, options, scratch, status, begin + 60 * options.minutes)
            if ended == 0 or status.number >= options.count:
                break
        rate = status.done / (time.monotonic() - begin)
        print(f"{name:12}{status.done:9,}{status.refused:9,}{status.accepted:9,}{status.failed:8,}{status.worst:9.2f}"
              f"{status.memory / 1e6:7.0f}{rate:8.0f}" + (f"   ended early: {ended}" if ended else ""), flush=True)
        return status.failed + (ended != 0 and not status.failed)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _watched(name: str, options, scratch: str, status: Status, until: float) -> int:
    """Runs a worker until it ends; a crash or hang is written down. Returns its exit code."""
    words = [sys.executable, "-m", "tests.fuzzing.worker", "--reader", name, "--count", str(options.count), "--seed",
             str(options.seed), "--scratch", scratch, "--failures", os.path.abspath(options.failures), "--until",
             str(until)]
    surroundings = {**os.environ, "TMPDIR": scratch, "TQDM_DISABLE": "1"}
    with open(os.path.join(scratch, "log"), "w+b") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=surroundings)
        why = ""
        while process.poll() is None:
            time.sleep(_LOOK)
            status.load()
            if status.begun and time.monotonic() - status.begun > _PATIENCE:
                why = f"took more than {_PATIENCE:.0f} s, and no alarm could stop it"
            elif (used := _resident(process.pid)) > 3 * MOST_BYTES:
                why = f"took {used / 1e9:.1f} GB, and was not done"
            if why:
                process.send_signal(signal.SIGKILL)
                break
        code = process.wait()
        status.load()
        log.seek(0)
        words = log.read().decode(errors="replace")[-4000:]
    if status.begun:
        why = why or f"the process ended with code {code}:\n{words}"
        kept = os.path.join(options.failures, f"{name}-{options.seed}-{status.number}")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(os.path.join(scratch, "input"), os.path.join(kept, "input"))
        with open(os.path.join(kept, "why.txt"), "w", encoding="utf-8") as file:
            file.write(why + "\n")
        status.begun, status.done, status.failed = 0, status.done + 1, status.failed + 1
        status.tell()
    elif code not in (0, 3):  # before or between inputs: a mistake of the reader's module
        print(words, file=sys.stderr)
        status.number = options.count
    return code


def _resident(process: int) -> int:
    """Bytes of memory that a process has now."""
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def replay(folder: str) -> int:
    """Reads a kept failure again and prints what comes of it; returns 1 where it fails again."""
    from facegcn.backends.start import tensorflow
    from tests.fuzzing.attempts import Case, Judge

    tensorflow()
    name = os.path.basename(os.path.normpath(folder)).split("-")[0]
    files, inner = {}, os.path.join(folder, "input")
    for place, _, found in os.walk(inner):
        for file in found:
            with open(os.path.join(place, file), "rb") as opened:
                files[os.path.relpath(os.path.join(place, file), inner)] = opened.read()
    with open(os.path.join(folder, "why.txt"), encoding="utf-8") as file:
        sealed = file.readline().strip() == "sealed=True"
    with tempfile.TemporaryDirectory() as scratch:
        reader = importlib.import_module(f"tests.fuzzing.readers.{name}").Reader(os.path.join(scratch, "own"))
        outcome = Judge(reader, os.path.join(scratch, "input")).attempt(Case(files, sealed))
    print(f"{folder}: {outcome.kind} after {outcome.seconds:.2f} s: {outcome.text[:1000]}")
    return int(outcome.kind == "failed")


if __name__ == "__main__":
    sys.exit(main())
