"""``Exp_Pca.bin``, in small."""

import os

import numpy as np

from facegcn.assets import bfm_files
from tests.fuzzing import attempts

_VERTICES, _ROWS = 50, np.array([49, 0, 2])


class Reader(attempts.Reader):
    """A file of as few vertices as ``bfm_files`` is told that there are."""

    def __init__(self, folder):
        super().__init__(folder)
        bfm_files.EXPRESSION_VERTICES = _VERTICES

    def seeds(self):
        rng = np.random.default_rng(0)
        return [{"Exp_Pca.bin": np.int32(count).tobytes()
                 + rng.normal(size=(1 + count, 3 * _VERTICES)).astype("<f4").tobytes()} for count in (64, 79)]

    def read(self, folder):
        path = os.path.join(folder, "Exp_Pca.bin")
        with open(path, "rb") as file:
            return bfm_files.read_expressions(path, _ROWS), file.read()

    def wrong(self, answer):
        found, content = answer
        if found.shape != (3, 3, 64) or not np.isfinite(found).all():
            return f"components of shape {found.shape}, or not finite"
        stored = np.frombuffer(content, "<f4", offset=4).reshape(-1, _VERTICES, 3)
        return "" if np.array_equal(found, np.moveaxis(stored[1:65, _ROWS], 0, -1)) else "other numbers than the file's"
