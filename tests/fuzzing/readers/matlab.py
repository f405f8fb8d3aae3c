"""MATLAB's files, version 5 to 7.3."""

import io
import os

import numpy as np
import scipy.io

from facegcn.assets.matfile import ArraySpec, AtLeast, read_arrays
from tests.fuzzing import attempts
from tests.standins import save_mat73

_SPECS = {"values": ArraySpec((6, AtLeast(2))), "mean": ArraySpec((6,)), "index": ArraySpec((5,), "index", 9),
          "labels": ArraySpec((6,), "labels", 3, required=False)}


class Reader(attempts.Reader):
    """Numbers, indices and labels; plain, compressed and as HDF5."""

    def seeds(self):
        rng = np.random.default_rng(0)
        arrays = {"values": rng.normal(size=(6, 3)), "mean": rng.normal(size=(6, 1)).astype(np.float32),
                  "index": np.array([[1, 2, 9, 3, 3]], np.uint16), "labels": np.array([[0.0, 1, 2, 3, 0, 0]]),
                  "title": np.array(["text"])}
        plain, packed = io.BytesIO(), io.BytesIO()
        scipy.io.savemat(plain, arrays)
        scipy.io.savemat(packed, arrays, do_compression=True)
        del arrays["title"]
        path = os.path.join(self.folder, "a.mat")
        os.makedirs(self.folder, exist_ok=True)
        save_mat73(path, arrays)
        with open(path, "rb") as file:
            newest = file.read()
        undated = [b"MATLAB 5.0 MAT-file".ljust(116) + held.getvalue()[116:] for held in (plain, packed)]
        return [{"a.mat": content} for content in (*undated, newest)]

    def read(self, folder):
        return read_arrays(os.path.join(folder, "a.mat"), _SPECS)

    def wrong(self, answer):
        for name, array in answer.items():
            spec = _SPECS[name]
            if not spec.fits(array.shape) or array.dtype.kind not in ("f" if spec.kind == "values" else "i") \
                    or not np.isfinite(array).all():
                return f"{name} is {array.dtype} {array.shape}"
            if spec.kind != "values" and not 0 <= array.min() <= array.max() <= spec.limit - (spec.kind == "index"):
                return f"{name} is out of range"
        return "" if {"values", "mean", "index"} <= set(answer) else "arrays are missing"
