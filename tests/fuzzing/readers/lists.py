"""Lists: landmarks of many photos, vertex numbers, pairs, deviations, facts of a checkout."""

import os

import numpy as np

from facegcn.assets import bfm_files
from facegcn.assets.bfm17 import read_landmarks
from facegcn.landmarks import read_landmark_list
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt

_VERTICES = 900
_READERS = {"list.txt": read_landmark_list, "landmarks.txt": lambda path: read_landmarks(path, _VERTICES),
            "std_exp.txt": bfm_files.read_deviations, "face05_symlist.txt": bfm_files.read_symmetry_list}


class Reader(attempts.Reader):
    """One of four kinds of lists."""

    def seeds(self):
        rng = np.random.default_rng(0)
        rows = [f"{number:06d}.jpg  " + "  ".join(map(str, rng.integers(0, 200, 10))) for number in range(4)]
        long = ["a/b.png," + ",".join(f"{value:.1f}" for value in rng.uniform(0, 300, 136))]
        names = " ".join(f"{word}_x {word}_y" for word in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth"))
        pairs = "".join(f"{a} {b}\n" for a, b in rng.integers(0, 50_000, (6, 2)))
        return [{"list.txt": "\n".join(["4", names, *rows]).encode()}, {"list.txt": "\n".join([*rows, *long]).encode()},
                {"landmarks.txt": ("# iBUG\n" + "\n".join(map(str, rng.integers(0, _VERTICES, 68)))).encode()},
                {"std_exp.txt": " ".join(f"{value:g}" for value in rng.uniform(1, 9e5, 79)).encode()},
                {"face05_symlist.txt": pairs.encode()}]

    def change(self, rng, name, data, others):
        return misspelt(rng, data, others)

    def read(self, folder):
        name, = os.listdir(folder)
        return name, _READERS[name](os.path.join(folder, name))

    def wrong(self, answer):
        name, found = answer
        if name == "list.txt":
            good = found and all(points.shape in ((5, 2), (68, 2)) and (np.abs(points) <= 1e6).all()
                                 and "/" not in photo and "\\" not in photo for photo, points in found.items())
        elif name == "landmarks.txt":
            good = found.shape == (68,) and found.dtype.kind == "i" and 0 <= found.min() <= found.max() < _VERTICES
        elif name == "std_exp.txt":
            good = found.ndim == 1 and len(found) >= 64 and np.isfinite(found).all() and found.min() > 0
        else:
            good = found.ndim == 2 and found.shape[1] == 2 and found.dtype.kind == "i" and found.min() >= 0 \
                and found.max() <= bfm_files.FULL_VERTICES
        return "" if good else f"{name} has what no such list has"
