"""Many inputs in one process, which ``__main__`` watches: a crash ends it, and the input is still in its folder.

It says in a small shared file where it is. Time is bounded by an alarm, memory by what the system says after each
input and by a limit of the process; and an audit hook sees what a file must never bring about: a class looked up by a
pickle, code compiled from it, a program started, a connection, a file written outside its folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback

from facegcn.backends.start import tensorflow
from tests.fuzzing.attempts import Case, Judge

MOST_SECONDS = 5.0
MOST_BYTES = 1 << 30  # above what the process has before the first input
_LIMIT_BYTES = 3 << 30  # beyond it allocation fails: the machine is not ours alone
STATUS = struct.Struct("<QQQQQdQQd")  # see Status
_FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork",
              "socket.connect", "os.startfile", "ctypes.dlopen", "shutil.rmtree", "os.rename", "os.remove",
              "os.symlink", "os.link", "os.chmod")


class Status:
    """Numbers that the process shares with who watches it; all are 0 at first.

    Attributes:
        number: of the input that is read now, counted from 1.
        done, refused, accepted, failed: inputs.
        worst: seconds of the slowest one; ``slowest`` is its number.
        memory: bytes above those before the first input, at most.
        begun: when the input began, seconds of the monotonic clock; 0 between inputs.
    """

    _FIELDS = ("number", "done", "refused", "accepted", "failed", "worst", "slowest", "memory", "begun")

    def __init__(self, path: str):
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(bytes(STATUS.size))
        with open(path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), STATUS.size)
        self.load()

    def load(self) -> None:
        """Takes over what the file says."""
        for name, value in zip(self._FIELDS, STATUS.unpack(self._shared[:])):
            setattr(self, name, value)

    def tell(self) -> None:
        """Writes into the file."""
        self._shared[:] = STATUS.pack(*(getattr(self, name) for name in self._FIELDS))


class TooSlow(BaseException):
    """Not an Exception: readers turn those into messages."""


class Forbidden(BaseException):
    """What no file may bring about."""


class Watch:
    """The audit hook; ``armed`` while an input is read.

    Args:
        folder: in which files may be written.
    """

    def __init__(self, folder: str):
        self.armed, self._folder = False, os.path.realpath(folder) + os.sep
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if not self.armed:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, (str, bytes)) and (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                                                   or isinstance(mode, str) and set(mode) & set("wax+")):
                path = os.path.realpath(os.fsdecode(path))
                if not path.startswith(self._folder) and path != os.devnull:
                    self._refuse(event, path)
        elif event == "exec":
            code = arguments[0]
            if getattr(code, "co_filename", "").startswith("<") and "importlib" not in code.co_filename:
                self._refuse(event, code.co_filename)
        elif event in _FORBIDDEN:
            path = arguments[0] if arguments else ""
            if not (event.startswith(("os.re", "os.ch", "shutil")) and isinstance(path, str)
                    and os.path.realpath(path).startswith(self._folder)):
                self._refuse(event, arguments)

    def _refuse(self, event, what):
        self.armed = False
        raise Forbidden(f"{event} {what!r}")


def peak_bytes() -> int:
    """Most memory that the process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_slow(*_):
    raise TooSlow


def run(options) -> int:
    """Reads inputs ``first`` to ``count``, one after the other; returns the exit code."""
    scratch = options.scratch
    status, place = Status(os.path.join(scratch, "status")), os.path.join(scratch, "input")
    tensorflow()
    reader = importlib.import_module(f"tests.fuzzing.readers.{options.reader}").Reader(os.path.join(scratch, "own"))
    judge = Judge(reader, place)
    watch = Watch(scratch)
    before = peak_bytes()
    with open("/proc/self/statm") as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + _LIMIT_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_slow)
    while status.number < options.count and time.monotonic() < options.until:
        status.number, status.begun = status.number + 1, time.monotonic()
        status.tell()
        case = judge.case(options.seed, status.number)
        failure, kind, seconds = _guarded(judge, case, watch)
        memory = peak_bytes() - before
        if memory > MOST_BYTES and not failure:
            failure, kind = f"took {memory / 1e6:.0f} MB", "failed"
        if seconds > MOST_SECONDS and not failure:
            failure, kind = f"took {seconds:.1f} s", "failed"
        if seconds > status.worst:
            status.worst, status.slowest = seconds, status.number
        status.memory, status.begun = max(status.memory, memory), 0
        status.done += 1
        setattr(status, kind, getattr(status, kind) + 1)
        status.tell()
        if failure:
            keep(options.failures, options.reader, options.seed, status.number, case, failure)
        if memory > MOST_BYTES:
            return 3  # peaks are of the process's whole life: the next begins anew
    return 0


def _guarded(judge: Judge, case: Case, watch: Watch):
    """(what failed or "", kind of outcome, seconds)."""
    begin = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    watch.armed = True
    try:
        outcome = judge.attempt(case)
        return (outcome.text if outcome.kind == "failed" else ""), outcome.kind, outcome.seconds
    except (TooSlow, Forbidden) as error:
        where = "".join(traceback.format_exception(error, limit=-9))[-3000:]
        return where, "failed", time.perf_counter() - begin
    finally:
        watch.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)


def keep(folder: str, reader: str, seed: int, number: int, case: Case, failure: str) -> None:
    """Stores a failure: its files, and why, in ``folder/READER-SEED-NUMBER``."""
    kept = os.path.join(folder, f"{reader}-{seed}-{number}")
    shutil.rmtree(kept, ignore_errors=True)
    for name, content in case.files.items():
        path = os.path.join(kept, "input", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    with open(os.path.join(kept, "why.txt"), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"sealed={case.sealed}\n{failure}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind in (("reader", str), ("count", int), ("seed", int), ("scratch", str), ("failures", str),
                       ("until", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    faulthandler.enable()
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
