"""Single-image 3D face reconstruction with high-fidelity texture: the parts, one concept a file.

The face model, camera, light, renderer, graph networks and training of
J. Lin, Y. Yuan, T. Shao, K. Zhou, "Towards High-Fidelity 3D Face Reconstruction from
In-the-Wild Images Using Graph Convolutional Networks", CVPR 2020.
Modules here never import the scripts at the top level.
"""

import os
import sys
import tempfile

_START_UP_NOTES = ("absl::InitializeLog", "oneDNN", "cpu_feature_guard", "rebuild TensorFlow", "CUDA", "cuda")


def _import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its start-up notes, which users cannot act on.

    TensorFlow writes some of them to the file descriptor before TF_CPP_MIN_LOG_LEVEL is heard,
    so standard error is held back during the import; whatever else was written comes out after.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not any(note in line for note in _START_UP_NOTES):
                    sys.stderr.write(line)


if "tensorflow" not in sys.modules:
    _import_tensorflow_quietly()
