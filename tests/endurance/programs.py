"""Starts the real commands many times without paying for their imports each time.

The parent imports what the commands import and starts nothing of it: no TensorFlow operation, no Numba thread. Each
start is a fork, which runs the command's ``main`` from its first line and can be killed as any process.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

from facegcn.backends.start import tensorflow

#: What ``main.py`` and ``create_bin.py`` import only when they need it.
_MODULES = ("main", "create_bin", "model", "utils", "mesh_sampling", "facegcn.api", "facegcn.assets.check",
            "facegcn.assets.worlds", "facegcn.assets.landmark_embedding", "facegcn.assets.regressor_errors",
            "facegcn.assets.starting_weights", "facegcn.photos.packing", "facegcn.photos.litert",
            "facegcn.reconstruction.reconstructor", "facegcn.reconstruction.person_files",
            "facegcn.reconstruction.report_page", "facegcn.reconstruction.video", "facegcn.training.regressor_stage",
            "facegcn.training.texture_stage", "facegcn.training.encoding")


def load() -> None:
    """Imports everything; to be called once, before the first start."""
    tensorflow()
    for name in _MODULES:
        importlib.import_module(name)


class Program:
    """A command in a process of its own.

    Attributes:
        output: file of what it shows.

    Args:
        script: ``main`` or ``create_bin``.
        arguments: its command line.
        output: file of what it shows, made anew.
        prepare: called in the process before the command, for example to make parts smaller.
    """

    def __init__(self, script: str, arguments: list[str], output: str, prepare: Callable[[], None] = lambda: None):
        self.output, self._code = output, None
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = os.fork()
        if not self._process:
            _run(script, arguments, output, prepare)

    def code(self) -> int | None:
        """Its exit code, -9 for one that was killed and so on; None while it runs."""
        if self._code is None:
            found, status = os.waitpid(self._process, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if found else None
        return self._code

    def signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.code() is None:
            os.kill(self._process, number)

    def wait(self, seconds: float) -> int:
        """Its exit code; it is killed, and TimeoutError raised, when it takes longer."""
        limit = time.monotonic() + seconds
        while self.code() is None:
            if time.monotonic() > limit:
                self.signal(signal.SIGKILL)
                os.waitpid(self._process, 0)
                self._code = -signal.SIGKILL
                raise TimeoutError(f"no end after {seconds:.0f} s; see {self.output}")
            time.sleep(0.01)
        return self._code

    def shown(self) -> str:
        """What it has shown so far."""
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return file.read()


def _run(script, arguments, output, prepare) -> None:
    """The child: becomes the command, and never returns."""
    code = 70
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(handle, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background of a script
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = [f"{script}.py", *arguments]
        prepare()
        code = sys.modules[script].main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # as at the end of the real command, whose interpreter would end here
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
