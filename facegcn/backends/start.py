"""TensorFlow's start: without the lines that nobody can act on, where there is no GPU."""

from __future__ import annotations

import contextlib
import gc
import glob
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

#: Device files of graphics processors that TensorFlow may use: NVIDIA, AMD, and Windows' through WSL.
_GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
#: Lines of TensorFlow's start on a machine without a GPU: none of them asks for anything.
_START_UP_NOTES = ("absl::InitializeLog", "oneDNN custom operations", "cpu_feature_guard", "rebuild TensorFlow",
                   "Could not find cuda drivers", "failed call to cuInit")


def tensorflow():
    """Imports TensorFlow and returns it; every program of this project calls it before it imports what needs it.

    TensorFlow writes some notes to the file descriptor before TF_CPP_MIN_LOG_LEVEL is heard, so standard error is
    held back during the import; whatever else was written comes out after. On a machine that has a GPU nothing is
    held back: there the lines about its drivers are what the user needs to see.

    Keras, which TensorFlow imports, would import scikit-learn for wrappers that nothing here uses; it does without
    where there is none, so it is told that there is none: that saves a sixth of the import's time. Not to look for
    garbage among its objects saves a fifth.
    """
    if "tensorflow" in sys.modules:
        return importlib.import_module("tensorflow")
    with _hidden("sklearn"), _uncollected():
        return _imported()


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Inside, an import of a package fails as if it were not installed, unless it has been imported before."""
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, no garbage is looked for, and later not among what was made inside: half a million objects that stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _imported():
    """TensorFlow, imported without its notes where there is no GPU."""
    if has_gpu():
        return importlib.import_module("tensorflow")
    # Even its "errors" are notes here, such as that oneDNN leaves integers to Eigen; what fails raises in Python.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            module = importlib.import_module("tensorflow")
            module.config.list_physical_devices()  # where it looks for drivers
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not any(note in line for note in _START_UP_NOTES):
                    sys.stderr.write(line)
    return module


def has_gpu() -> bool:
    """Whether the machine has a device that TensorFlow might compute on, drivers or not."""
    return any(glob.glob(pattern) for pattern in _GPU_DEVICES)
