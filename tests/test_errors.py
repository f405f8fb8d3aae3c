"""The one guard around every program: exit codes, what the terminal shows, who hears it."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings

import pytest

from facegcn import errors
from facegcn.errors import BrokenFile, Terminated, UserError, guarded, log
from tests.conftest import ROOT


def raising(error):
    def program():
        raise error
    return program


def test_a_program_that_ends_well_gives_its_own_code(capsys):
    def program():
        log.info("made %d faces", 3)
        return 1

    assert guarded(program) == 1
    found = capsys.readouterr()
    assert found.out == "made 3 faces\n" and found.err == ""


def test_a_user_s_mistake_is_one_message(capsys):
    assert guarded(raising(UserError("--lr 7: at most 1"))) == 2
    found = capsys.readouterr()
    assert found.err == "error: --lr 7: at most 1\n" and found.out == ""
    assert guarded(raising(BrokenFile("a.npz", "cut short"))) == 2
    assert capsys.readouterr().err == "error: a.npz: cut short\n"


def test_debug_shows_the_traceback_and_its_cause(capsys):
    def program():
        try:
            int("x")
        except ValueError as error:
            raise UserError("no number") from error

    assert guarded(program, debug=True) == 2
    found = capsys.readouterr().err
    assert "error: no number" in found and "Traceback" in found and "invalid literal" in found


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG])
def test_what_the_machine_refuses_is_the_user_s_to_mend(code, capsys):
    assert guarded(raising(OSError(code, os.strerror(code), "/full/faces.bin"))) == 2
    found = capsys.readouterr().err
    assert "/full/faces.bin" in found and os.strerror(code) in found and "Traceback" not in found


class Library(Exception):
    """Stands for TensorFlow's errors."""

    __module__ = "tensorflow.python.framework.errors_impl"


@pytest.mark.parametrize(("error", "words"), [
    (Library("{{function_node __wrapped__Save_device_/job:localhost}} /full/my run/ckpt-1.data; No space left on "
             "device\n\tFailed to flush"), "/full/my run/ckpt-1.data: No space left on device"),
    (Library("/kept/events.out; Read-only file system"), "/kept/events.out: Read-only file system"),
    (OSError(errno.ENOSPC, "Can't write data (file write failed: time = Mon\nerrno = 28)", "w.h5"),
     "w.h5: No space left on device"),
    (OSError(errno.EPIPE, "Broken pipe"), "a file could not be written: Broken pipe"),
    (Library("Incompatible shapes: [3]; [4]"), ""), (ValueError("x; No space left on device"), ""),
    (FileNotFoundError(errno.ENOENT, "No such file", "x"), "")])
def test_refusals_of_the_machine_are_told_from_mistakes(error, words, capsys):
    assert errors.refusal(error) == words
    assert guarded(raising(error)) == (2 if words else 70)
    assert not words or capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only some systems have a device that is always full")
def test_a_terminal_that_takes_nothing_does_not_end_the_work():
    code = ("from facegcn.errors import guarded, log\n"
            "raise SystemExit(guarded(lambda: [log.info('x' * 100) for _ in range(500)] and 3))")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file", "x"), KeyError("rgba"),
                                   AssertionError("never")])
def test_mistakes_of_ours_keep_their_traceback(error, capsys):
    assert guarded(raising(error)) == 70
    found = capsys.readouterr().err
    assert "mistake of the program" in found and "Traceback" in found and type(error).__name__ in found


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_interruption_says_what_is_kept(error, code, capsys):
    assert guarded(raising(error), interrupted=lambda: "checkpoint ckpt-3 is kept") == code
    assert "stopped; checkpoint ckpt-3 is kept" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["main.py", "create_bin.py"])
def test_ctrl_c_while_a_script_imports_shows_no_traceback(script, tmp_path):
    """Its first import of ours is one that presses Ctrl-C."""
    (tmp_path / "facegcn.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    shutil.copy(ROOT / script, tmp_path)
    done = subprocess.run([sys.executable, str(tmp_path / script)], capture_output=True, text=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_is_heard_inside_and_ignored_where_it_was():
    def program():
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert guarded(program) == 130 and signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert guarded(program) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_stop_while_the_first_is_told_ends_without_a_word():
    """As who presses Ctrl-C twice would have it, in place of a traceback."""
    code = ("import os, signal, sys\n"
            "from facegcn.errors import guarded\n"
            "stop = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background of a script
            "guarded(stop, interrupted=stop)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_sigterm_ends_as_ctrl_c_does_and_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)

    def program():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    assert guarded(program) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_loggers_and_warnings_are_heard(capsys):
    def program():
        warnings.warn("NaN in sight", stacklevel=1)
        logging.getLogger("absl").warning("slow")
        logging.getLogger("elsewhere").info("not shown")
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert guarded(program) == 0
    found = capsys.readouterr()
    assert "NaN in sight" in found.err and "slow" in found.err and "not shown" not in found.err + found.out


def test_handlers_are_gone_afterwards_and_programs_may_call_programs(capsys):
    before = logging.getLogger().handlers[:]
    assert guarded(lambda: guarded(lambda: log.info("once") or 0)) == 0
    assert capsys.readouterr().out == "once\n"
    assert logging.getLogger().handlers == before


def test_what_is_said_before_there_is_a_log_file_is_held():
    held = []

    def program():
        log.info("early")
        memory = next(h for h in logging.getLogger().handlers if isinstance(h, logging.handlers.MemoryHandler))
        held.extend(record.getMessage() for record in memory.buffer)
        return 0

    guarded(program)
    assert held == ["early"]


def test_every_error_of_ours_is_a_user_s():
    own = [value for value in vars(errors).values()
           if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__]
    assert len(own) > 5 and all(issubclass(error, UserError) for error in own)
