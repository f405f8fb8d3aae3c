"""The Basel Face Model of 2017, HDF5."""

import os

import h5py
import numpy as np

from facegcn.assets.bfm17 import _arrays
from tests.fuzzing import attempts

_COUNT, _MODES = 6, 2


class Reader(attempts.Reader):
    """Six vertices, two modes of each kind; one file packed in chunks."""

    def seeds(self):
        os.makedirs(self.folder, exist_ok=True)
        made = []
        for options in ({}, {"compression": "gzip", "fletcher32": True}):
            rng, path = np.random.default_rng(0), os.path.join(self.folder, "a.h5")
            with h5py.File(path, "w") as file:
                for part in ("shape", "expression", "color"):
                    file.create_dataset(f"{part}/model/mean", data=rng.normal(size=3 * _COUNT), **options)
                    file.create_dataset(f"{part}/model/pcaBasis", data=rng.normal(size=(3 * _COUNT, _MODES)), **options)
                    file.create_dataset(f"{part}/model/pcaVariance", data=rng.random(_MODES), **options)
                file["shape/representer/cells"] = np.int32([[0, 1], [1, 2], [2, 5]])
            with open(path, "rb") as file:
                made.append({"a.h5": file.read()})
        return made

    def read(self, folder):
        return _arrays(os.path.join(folder, "a.h5"))

    def wrong(self, answer):
        mean, identity, cells, offset, expression, tone, albedo = answer
        count = len(mean)
        if any(array.shape != (count, 3) for array in (mean, offset, tone)) or any(
                array.ndim != 3 or array.shape[:2] != (count, 3) for array in (identity, expression, albedo)):
            return "arrays of different numbers of vertices"
        if cells.ndim != 2 or cells.shape[1] != 3 or not 0 <= cells.min() <= cells.max() < count:
            return "triangles of vertices that are not there"
        return ""
