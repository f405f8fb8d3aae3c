"""Faces as ``report.html`` holds them: in small integers, zlib and base64; what several share, once.

The folder ``report`` has the page that unpacks them and a README of the format. Letters: N vertices, F triangles,
M vertices of the textures' layout, A expressions.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import numpy as np

from facegcn.errors import BrokenFile
from facegcn.files import digest, npz_headers, read_npz

#: Arrays of a photo's ``.npz`` that its view is made of, with the lengths of their axes: "N", "F", or a number.
NEEDED = {"vertices": ("N", 3), "vertices_posed": ("N", 3), "triangles": ("F", 3), "coarse_texture": ("N", 3),
          "fine_texture": ("N", 3), "fine_color": ("N", 3), "visible": ("N",), "coeff_gamma": (27,),
          "camera_position": (3,), "camera_fov_y": ()}
_LAYOUT = ("texture_vertices", "texture_uv", "texture_triangles")
_WEIGHTS = "blendshape_weights"
_FURTHER = (*_LAYOUT, _WEIGHTS)  # arrays that some have
_FINEST_STEP = 2e-4  # decimetre: 0.02 mm
_STEPS = 65535  # between the ends of 16 bits
_LEAST_MOVE = 5e-4  # decimetre: an expression's corners that move by less stay out
_LEVEL = 6  # of zlib: 9 takes three times as long for half a percent


def read_face(path: str) -> dict[str, np.ndarray]:
    """Arrays of a photo's ``.npz`` that the report shows, checked.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFile: it is no whole ``.npz``, lacks an array of ``NEEDED``, or one has another shape, is not finite or
            names a vertex that is not there.
    """
    headers = npz_headers(path)
    return checked_face(read_npz(path, [*NEEDED, *(name for name in _FURTHER if name in headers)]), path)


def checked_face(arrays: Mapping[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """Those of a photo's arrays that the report shows.

    Args:
        arrays: of its ``.npz``, all or some.
        path: of that.

    Raises:
        BrokenFile: as ``read_face``.
    """
    found = {name: np.asarray(arrays[name]) for name in (*NEEDED, *_FURTHER) if name in arrays}
    lengths = {"N": len(found["vertices"]) if found["vertices"].ndim else 0,
               "F": len(found["triangles"]) if found["triangles"].ndim else 0}
    for name, wanted in NEEDED.items():
        shape = tuple(lengths.get(length, length) for length in wanted)
        if found[name].shape != shape:
            raise BrokenFile(path, f"the array {name} has shape {found[name].shape}, expected {shape}")
    for name, array in found.items():
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise BrokenFile(path, f"the array {name} has values that are no finite numbers")
    if not lengths["N"] or not lengths["F"] or not _names(found["triangles"], lengths["N"]):
        raise BrokenFile(path, "its triangles name vertices that are not there")
    return found


def _names(index, count: int) -> bool:
    """Whether integers name some of so many things, and nothing else."""
    return index.dtype.kind in "iu" and index.size > 0 and 0 <= index.min() <= index.max() < count


class FacePacker:
    """Packs the faces of one report; remembers what the page has already.

    Args:
        blendshapes: (N, 3, A) decimetre that each expression moves each vertex by, before pose; None = there are none.
        names: of the expressions.
    """

    def __init__(self, blendshapes: np.ndarray | None = None, names=()):
        self._blendshapes, self._names = blendshapes, [str(name) for name in names]
        self._ids = {}

    def pack(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, dict], dict]:
        """A face, and what it needs that no face before it did.

        Args:
            arrays: of ``read_face``.

        Returns:
            blocks by id, which the page must hold beside those of the faces before; the face.
        """
        new: dict[str, dict] = {}
        rest = arrays["vertices"].astype(np.float64)
        low = rest.min(axis=0)
        step = max(_FINEST_STEP, float((rest.max(axis=0) - low).max()) / _STEPS)
        steps = np.rint((rest - low) / step) - 32768
        pose = _pose(rest, arrays["vertices_posed"].astype(np.float64))
        face = {
            "count": len(rest), "low": _rounded(low), "step": step, "pose": _rounded(pose.ravel()),
            "gamma": _rounded(arrays["coeff_gamma"]), "depth": round(float(arrays["vertices_posed"][:, 2].mean()), 4),
            "camera": {"position": _rounded(arrays["camera_position"]), "fov": float(arrays["camera_fov_y"])},
            "triangles": self._shared(new, digest(arrays["triangles"]), lambda: _triangles(arrays["triangles"])),
            "data": _packed(steps.T.astype("<i2"), *(_levels(arrays[name] * 0.5 + 0.5) for name in (
                "coarse_texture", "fine_texture", "fine_color")), _levels(arrays["visible"]))}
        if _has_layout(arrays):
            layout = [arrays[name] for name in _LAYOUT]
            face["layout"] = self._shared(new, digest(*layout), lambda: _texture_layout(*layout))
        if self._blendshapes is not None and self._blendshapes.shape == (len(rest), 3, len(self._names)):
            face["shapes"] = self._shared(new, "expressions", lambda: _shapes(self._blendshapes, self._names))
            weights = arrays.get(_WEIGHTS)
            if weights is not None and weights.shape == (len(self._names),):
                face["weights"] = _rounded(weights)
        return new, face

    def _shared(self, new, key, make) -> str:
        """The id of the block of this key; it is made, and among the new ones, when no face had it before."""
        if key not in self._ids:
            self._ids[key] = f"block-{len(self._ids)}"
            new[self._ids[key]] = make()
        return self._ids[key]


def _has_layout(arrays) -> bool:
    """Whether there is a texture layout, of shapes that fit."""
    if not set(_LAYOUT) <= set(arrays):
        return False
    vertices, uv, triangles = (arrays[name] for name in _LAYOUT)
    return (vertices.ndim == 1 and _names(vertices, len(arrays["vertices"])) and uv.shape == (len(vertices), 2)
            and triangles.ndim == 2 and triangles.shape[1] == 3 and _names(triangles, len(vertices)))


def _pose(rest: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """(3, 4) rotation and translation from one to the other: least squares (Kabsch 1976)."""
    middle, there = rest.mean(axis=0), posed.mean(axis=0)
    left, _, right = np.linalg.svd((posed - there).T @ (rest - middle))
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    return np.column_stack([turn, there - turn @ middle])


# ---------------------------------------------------------------- blocks
def _triangles(triangles):
    return {"data": _packed(triangles.astype("<u4"))}


def _texture_layout(vertices, uv, triangles):
    return {"count": len(vertices), "triangles": len(triangles),
            "data": _packed(vertices.astype("<u4"), triangles.astype("<u4"),
                            np.rint(np.clip(uv, 0.0, 1.0) * _STEPS).astype("<u2"))}


def _shapes(blendshapes, names):
    """Each expression's corners that move, and by how much."""
    step = max(float(np.abs(blendshapes).max(initial=0.0)) / 32767, 1e-9)
    moved = [np.flatnonzero(np.abs(blendshapes[:, :, i]).max(axis=1) >= _LEAST_MOVE) for i in range(len(names))]
    moves = [np.rint(blendshapes[corners, :, i] / step) for i, corners in enumerate(moved)]
    return {"names": names, "counts": [len(corners) for corners in moved], "step": step,
            "data": _packed(np.concatenate(moved).astype("<u4"), np.concatenate(moves).astype("<i2"))}


# ---------------------------------------------------------------- numbers
def _packed(*arrays: np.ndarray) -> str:
    """Their bytes one after the other, zlib, base64."""
    return base64.b64encode(zlib.compress(b"".join(array.tobytes() for array in arrays), _LEVEL)).decode("ascii")


def _levels(values) -> np.ndarray:
    """[0, 1] -> 0..255."""
    return np.rint(np.clip(values, 0.0, 1.0) * 255.0).astype(np.uint8)


def _rounded(values) -> list[float]:
    return [round(float(value), 6) for value in values]
