"""Further ``.npz`` files: an extract of ICT-FaceKit, measured skin, a kept mesh hierarchy."""

import os

import numpy as np

from facegcn.assets.ict_albedo import _read_measured
from facegcn.assets.ict_source import read_extract
from mesh_sampling import generate_transform_matrices, load_hierarchy, to_arrays
from tests.faces import half_ellipsoid
from tests.fuzzing import archives, attempts

_COUNT = 9


class Reader(archives.ArchiveCases, attempts.Reader):
    """One file of three kinds."""

    def seeds(self):
        rng, model = np.random.default_rng(0), half_ellipsoid(5, 7, (1, 1, 1))
        extract = {"mean": rng.normal(size=(_COUNT, 3)), "triangles": rng.integers(0, _COUNT, (5, 3)),
                   "identity_basis": rng.normal(size=(_COUNT, 3, 2)), "uv": rng.random((_COUNT, 2)),
                   "expression_basis": rng.normal(size=(_COUNT, 3, 1)), "expression_names": np.array(["jawOpen"]),
                   "landmarks68": np.arange(68) % _COUNT, "n_narrow": np.int64(5), "part": np.arange(_COUNT) // 8}
        skin = {"mean": rng.random((_COUNT, 3)), "basis": rng.normal(size=(_COUNT, 3, 2))}
        levels = to_arrays(generate_transform_matrices(model.mean_shape, model.triangles, (2,)))
        return [{name: archives.packed_arrays(arrays)} for name, arrays in (
            ("extract.npz", extract), ("skin.npz", skin), ("sampling.npz", levels))]

    def read(self, folder):
        name, = os.listdir(folder)
        path = os.path.join(folder, name)
        if name == "extract.npz":
            return read_extract(path)
        if name == "skin.npz":
            return _read_measured(path, np.arange(_COUNT))
        return to_arrays(load_hierarchy(path))

    def wrong(self, answer):
        if isinstance(answer, np.ndarray):
            return "" if np.isfinite(answer).all() and answer.shape[:2] == (_COUNT, 3) else "colours that are none"
        if isinstance(answer, dict):
            return "" if all(np.isfinite(array).all() for array in answer.values()) else "matrices that are none"
        count = len(answer.mean)
        for name in ("mean", "identity", "expression"):
            array = getattr(answer, name)
            if array.dtype != np.float32 or array.shape[:2] != (count, 3) or not np.isfinite(array).all():
                return f"{name} is {array.dtype} {array.shape}, or not finite"
        for name in ("triangles", "landmarks"):
            array = getattr(answer, name)
            if array.dtype != np.int32 or not 0 <= array.min() <= array.max() < count:
                return f"{name} names vertices that are not there"
        if answer.triangles.shape[1:] != (3,) or answer.expression.shape[2:] != (len(answer.expression_names),):
            return "arrays of other shapes"
        return "" if answer.eye.shape == (count,) and 0 < answer.narrow <= count else "no narrow face"
