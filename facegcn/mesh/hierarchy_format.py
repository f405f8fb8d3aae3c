"""What the arrays of a kept mesh hierarchy must look like; ``mesh_sampling.array_names`` lists them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

#: Matrices of a level by name: which level below it gives the rows, and which the columns.
_MATRICES = {"adjacency": (0, 0), "laplacians": (0, 0), "downsamp_trans": (1, 0), "upsamp_trans": (0, 1)}


def check_hierarchy(arrays: Mapping[str, np.ndarray]) -> int:
    """Checks that meshes are meshes and that every matrix is one between them; returns the levels below the mesh.

    Raises:
        KeyError: an array is missing.
        ValueError: an array is of another type or shape, is not finite, or names a vertex that is not there.
    """
    levels = sum(name.startswith("vertices") for name in arrays) - 1
    if levels < 0:
        raise ValueError("it holds no mesh")
    counts = []
    for k in range(levels + 1):
        vertices, triangles = arrays[f"vertices{k}"], arrays[f"triangles{k}"]
        _check(vertices.ndim == 2 and vertices.shape[1:] == (3,) and _is_finite(vertices), f"vertices{k}")
        _check(triangles.ndim == 2 and triangles.shape[1:] == (3,) and _names(triangles, len(vertices)),
               f"triangles{k}")
        counts.append(len(vertices))
    for key, below in _MATRICES.items():
        for k in range(levels + 1 - max(below)):
            _check_matrix(arrays, f"{key}{k}", tuple(counts[k + step] for step in below))
    return levels


def _check_matrix(arrays, key, shape):
    row, col, data, given = (arrays[f"{key}_{part}"] for part in ("row", "col", "data", "shape"))
    _check(given.shape == (2,) and given.dtype.kind in "iu" and tuple(given.tolist()) == shape, f"{key}_shape")
    for part, index, count in (("row", row, shape[0]), ("col", col, shape[1])):
        _check(index.shape == (len(data) if data.ndim else 0,) and _names(index, count), f"{key}_{part}")
    _check(data.ndim == 1 and _is_finite(data), f"{key}_data")


def _names(index, count) -> bool:
    """Whether integers name some of so many things."""
    return index.dtype.kind in "iu" and (not index.size or 0 <= index.min() <= index.max() < count)


def _is_finite(array) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


def _check(good, name):
    if not good:
        raise ValueError(f"the array '{name}' is damaged, or of another mesh")
