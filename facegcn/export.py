"""Meshes with vertex colours for other programs: Wavefront OBJ and binary glTF.

Vertices come in as decimetre, the unit of this project. OBJ, which has no unit, keeps it; glTF's is the metre.
Colours come in as sRGB, the values a photo has. OBJ keeps them (MeshLab and Blender 3.3 or newer
show them). glTF defines vertex colours as linear light, so they are converted: Blender, three.js
and the like then show the photo's colours.
"""

from __future__ import annotations

import functools
import importlib

import numpy as np

from facegcn.files import write_bytes

_METRES = 0.1  # a decimetre
_OBJ_HEADER = "# unit: decimetre (0.1 m); x right, y up, z towards the camera; colours: sRGB\n"
_MATERIAL = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}, "doubleSided": True}


def write_obj(path: str, vertices: np.ndarray, triangles: np.ndarray, colors: np.ndarray) -> None:
    """Writes an OBJ of ``v x y z r g b`` and ``f a b c`` lines (1-based); a comment names the unit.

    Args:
        path: the file.
        vertices: (N, 3), decimetre.
        triangles: (F, 3) int, 0-based.
        colors: (N, 3) sRGB in [0, 1].

    Raises:
        ValueError: shapes that do not fit, an index outside, or values that are not finite.
        OSError: the file cannot be written.
    """
    vertices, triangles, colors = _checked(vertices, triangles, colors)
    rows = np.concatenate([vertices, colors], axis=1)
    # One format call for all rows: a call each is many times slower.
    lines = "v %.6f %.6f %.6f %.4f %.4f %.4f\n" * len(rows) % tuple(rows.ravel().tolist())
    write_bytes(path, (_OBJ_HEADER + lines).encode() + _face_lines(triangles.tobytes()))


@functools.lru_cache(maxsize=1)  # all faces of a run have the same triangles
def _face_lines(triangles: bytes) -> bytes:
    """The ``f`` lines of an OBJ, of 0-based int64 triangles."""
    corners = np.frombuffer(triangles, np.int64) + 1
    return ("f %d %d %d\n" * (len(corners) // 3) % tuple(corners.tolist())).encode()


def write_glb(path: str, vertices: np.ndarray, triangles: np.ndarray, colors: np.ndarray) -> None:
    """Writes a binary glTF in metres, with smooth normals and vertex colours (linear light, 32-bit floats).

    Args:
        path, vertices, triangles, colors: as for ``write_obj``.

    Raises:
        ValueError, OSError: as ``write_obj``.
    """
    trimesh, gltf = get_ready()
    vertices, triangles, colors = _checked(vertices, triangles, colors)
    mesh = trimesh.Trimesh(vertices * _METRES, triangles, process=False)
    # trimesh writes its own colours as 8 bits, too coarse for linear light; an attribute stays float.
    mesh.vertex_attributes["_COLOR_0"] = linear_from_srgb(colors).astype(np.float32)

    def finish(tree):
        for primitive in (p for m in tree["meshes"] for p in m["primitives"]):
            primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop("_COLOR_0")
            primitive["material"] = 0
        tree["materials"] = [_MATERIAL]
        tree["asset"]["extras"] = {"unit": "metre"}

    write_bytes(path, gltf.export_glb(trimesh.Scene(mesh), include_normals=True, tree_postprocessor=finish))


def get_ready() -> tuple:
    """Imports what ``write_glb`` uses, the modules trimesh and trimesh.exchange.gltf: half a second, the first time."""
    return importlib.import_module("trimesh"), importlib.import_module("trimesh.exchange.gltf")


def linear_from_srgb(colors: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] of sRGB values in [0, 1] (IEC 61966-2-1)."""
    colors = np.asarray(colors, np.float64)
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def _checked(vertices, triangles, colors):
    """The arrays as float64, int64 and float64 in [0, 1]."""
    vertices, triangles = np.asarray(vertices, np.float64), np.asarray(triangles, np.int64)
    colors = np.asarray(colors, np.float64)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or colors.shape != vertices.shape \
            or triangles.ndim != 2 or triangles.shape[1:] != (3,):
        raise ValueError(f"vertices {vertices.shape}, triangles {triangles.shape} and colors {colors.shape} "
                         "do not fit; expected (N, 3), (F, 3), (N, 3)")
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"triangles name vertices outside 0..{len(vertices) - 1}")
    if not (np.isfinite(vertices).all() and np.isfinite(colors).all()):
        raise ValueError("vertices or colors have values that are not finite")
    return vertices, triangles, np.clip(colors, 0.0, 1.0)
