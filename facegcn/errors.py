"""Mistakes that a user can mend, and the one guard around every program.

A ``UserError`` is shown as one message that names the cure, without a traceback, exit code 2. Everything else
that escapes is a mistake of ours and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from tqdm import tqdm

log = logging.getLogger("facegcn")

EXIT_USER_ERROR, EXIT_BUG, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 70, 130, 143
#: What the machine may answer to a sound program: full or read-only disks, forbidden or broken places.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG,
                   errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ESTALE, errno.EPIPE}
#: How TensorFlow's C++ repeats such an answer: the path, a semicolon, the system's words.
_SAID = re.compile(rf"(?:\{{\{{.*?\}}\}} )?(?P<path>[^\n]*); (?P<words>{'|'.join(map(os.strerror, _MACHINE_ERRORS))})")
_STOPS = (signal.SIGINT, signal.SIGTERM)
_HELD_RECORDS = 10_000  # log lines kept until a run folder asks for them


class UserError(Exception):
    """A mistake the user can mend: shown as one message, without a traceback, exit code 2."""


class ModelFileError(UserError):
    """A morphable model file is absent, unreadable, or has missing, mis-shaped or impossible arrays."""


class BinFileError(UserError):
    """A packed file, or the one beside it, is absent, damaged or does not fit."""


class MaskError(UserError):
    """A skin mask that cannot be used; the message is the reason and the cure."""


class Rejected(UserError):
    """An image that is not packed; the message is the reason and the cure."""


class TrainingStopped(UserError):
    """A loss term became infinite or not a number."""


class PhotoError(UserError):
    """A photo that cannot be used.

    Attributes:
        status: ``unreadable``, ``no face`` or ``bad points``; the message tells more.
    """

    def __init__(self, message: str, status: str):
        super().__init__(message)
        self.status = status


class BrokenFile(UserError):
    """A file that is there and cannot be what it should be.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class Terminated(KeyboardInterrupt):
    """SIGTERM: whoever saves on Ctrl-C saves now, too."""


def refusal(error: BaseException) -> str:
    """What the machine refused, such as "PATH: No space left on device"; "" for any other error.

    Args:
        error: an OSError, or one of TensorFlow's, which repeat in words what the system told them.
    """
    if isinstance(error, OSError):
        if error.errno not in _MACHINE_ERRORS:
            return ""
        # Not its own words: those of HDF5 fill a page.
        return f"{error.filename or 'a file could not be written'}: {os.strerror(error.errno)}"
    said = _SAID.match(str(error)) if type(error).__module__.startswith("tensorflow.") else None
    return f"{said['path']}: {said['words']}" if said else ""


# ---------------------------------------------------------------- the guard
def guarded(program: Callable[[], int], debug: bool = False, interrupted: Callable[[], str] | None = None) -> int:
    """Runs a program's body; returns its exit code, or that of what ended it.

    While it runs, log records go to the terminal: information to standard output, the rest to standard error.

    Args:
        program: returns the exit code.
        debug: also show the traceback of a user's mistake.
        interrupted: says, for Ctrl-C and SIGTERM, what of the work is kept and how to go on.

    Returns:
        the program's own code; 2 for a mistake that the user can mend, full disks and forbidden places among
        them; 130 after Ctrl-C; 143 after SIGTERM; 70 for a mistake of ours, whose traceback is logged.
    """
    with _logging(), _stops_raise():
        try:
            return program()
        except UserError as error:
            log.error("error: %s", error, exc_info=debug)
            return EXIT_USER_ERROR
        except KeyboardInterrupt as error:
            _end_at_once()
            log.warning("\nstopped%s", "; " + interrupted() if interrupted else "", exc_info=debug)
            return EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        except Exception as error:
            if refused := refusal(error):
                log.error("error: %s", refused, exc_info=debug)
                return EXIT_USER_ERROR
            log.exception("this is a mistake of the program, not yours; please report it with these lines:")
            return EXIT_BUG


class _Console(logging.Handler):
    """Writes above tqdm's bars; two streams, which tqdm.contrib.logging would join into one.

    When nobody reads them any more, or what they are led into is full, the work goes on.
    """

    def emit(self, record):
        with contextlib.suppress(OSError):
            tqdm.write(self.format(record), file=sys.stdout if record.levelno < logging.WARNING else sys.stderr)

    def close(self):
        """Leaves nothing in a stream that cannot be written: the interpreter would complain of it at its end."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        super().close()


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Terminal and memory listen to every logger; Python's warnings are records, too."""
    root, console = logging.getLogger(), _Console()
    if any(isinstance(handler, _Console) for handler in root.handlers):  # a program called by a program
        yield
        return
    # The memory holds what is said before there is a run folder, see ``runs.RunFolder.open_log``.
    memory = logging.handlers.MemoryHandler(_HELD_RECORDS, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    before = root.handlers[:], log.level
    root.handlers += [console, memory]
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            if handler not in before[0]:
                handler.close()
        root.handlers[:] = before[0]
        log.setLevel(before[1])


@contextlib.contextmanager
def _stops_raise() -> Iterator[None]:
    """SIGTERM ends the program as Ctrl-C does: with everything saved. Where Ctrl-C is ignored it stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise Terminated

    before = {number: signal.getsignal(number) for number in _STOPS}
    signal.signal(signal.SIGTERM, stop)
    if before[signal.SIGINT] is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_at_once() -> None:
    """From here on another Ctrl-C or SIGTERM ends the program without a word: all is said."""
    if threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
