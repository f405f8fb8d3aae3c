"""Wavefront OBJ: with vertex colours, or with a texture and its material file; never with both.

OBJ has no unit; it keeps this project's decimetre, and a comment says so. Vertex colours stay sRGB, the values a photo
has: MeshLab and Blender 3.3 or newer show them. A file with both shows the colours in one program, the texture in
another, and their product in a third.
"""

from __future__ import annotations

import functools
import os

import numpy as np

from facegcn.export.arrays import checked, checked_colors, checked_layout, checked_mesh
from facegcn.export.pictures import picture_type
from facegcn.files import check_name, write_bytes

_HEADER = "# unit: decimetre (0.1 m); x right, y up, z towards the camera; colours: sRGB\n"
_MATERIAL = "face"
#: Diffuse colour from the picture, no shine; illum 1 is diffuse light only.
_MTL = "newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture}\n"


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
    vertices, triangles = checked_mesh(vertices, triangles)
    rows = np.concatenate([vertices, checked_colors(colors, len(vertices))], axis=1)
    lines = _lines("v %.6f %.6f %.6f %.4f %.4f %.4f\n", rows)
    write_bytes(path, (_HEADER + lines).encode() + _face_lines(triangles.tobytes()))


def write_textured_obj(path: str, vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, texture: bytes,
                       uv_triangles: np.ndarray | None = None) -> None:
    """Writes NAME.obj, NAME.mtl and the texture NAME.png (or .jpg) beside each other; the OBJ comes last.

    Args:
        path: the OBJ file; the others take its name (Blender and trimesh read one with blanks, too).
        vertices: (N, 3), decimetre; each is written once, also where a seam of the texture passes.
        triangles: (F, 3) int, 0-based.
        uv: (M, 2) texture coordinates, v up, OBJ's own convention.
        texture: the bytes of a PNG or JPEG file.
        uv_triangles: (F, 3) int into ``uv``, corner by corner; None: ``uv`` is (N, 2), one for each vertex.

    Raises:
        ValueError: as ``write_obj``; a texture of another kind.
        UserError: a name that cannot be written into an OBJ.
        OSError: a file cannot be written.
    """
    vertices, triangles = checked_mesh(vertices, triangles)
    uv = checked("uv", uv, (len(vertices) if uv_triangles is None else -1, 2))
    corners = triangles if uv_triangles is None else checked_layout(triangles, uv_triangles, len(uv))
    stem = os.path.splitext(path)[0]
    name = check_name(os.path.basename(stem), "the OBJ's name")
    picture = name + (".png" if picture_type(texture) == "image/png" else ".jpg")
    write_bytes(os.path.join(os.path.dirname(path), picture), texture)
    write_bytes(f"{stem}.mtl", _MTL.format(name=_MATERIAL, picture=picture).encode())
    write_bytes(path, b"".join([
        f"{_HEADER}mtllib {name}.mtl\n".encode(), _vertex_lines(vertices.tobytes()),
        _layout_lines(uv.tobytes(), triangles.tobytes(), corners.tobytes())]))


def _lines(form, rows):
    """One line a row (n, k); one format call for all: a call each is many times slower."""
    return form * len(rows) % tuple(rows.ravel().tolist())


@functools.lru_cache(maxsize=4)  # a face has several textures
def _vertex_lines(vertices: bytes) -> bytes:
    """The ``v`` lines of an OBJ without colours, of float64 vertices."""
    return _lines("v %.6f %.6f %.6f\n", np.frombuffer(vertices).reshape(-1, 3)).encode()


@functools.lru_cache(maxsize=1)  # all faces of a run have the same layout
def _layout_lines(uv: bytes, triangles: bytes, corners: bytes) -> bytes:
    """What follows the vertices of an OBJ with a texture, of float64 coordinates and 0-based int64 triangles."""
    pairs = np.stack([np.frombuffer(index, np.int64).reshape(-1, 3) for index in (triangles, corners)], axis=2)
    return "".join([_lines("vt %.6f %.6f\n", np.frombuffer(uv).reshape(-1, 2)), f"usemtl {_MATERIAL}\n", "s 1\n",
                    _lines("f %d/%d %d/%d %d/%d\n", pairs.reshape(-1, 6) + 1)]).encode()


@functools.lru_cache(maxsize=1)  # nor other triangles
def _face_lines(triangles: bytes) -> bytes:
    """The ``f`` lines of an OBJ, of 0-based int64 triangles."""
    return _lines("f %d %d %d\n", np.frombuffer(triangles, np.int64).reshape(-1, 3) + 1).encode()
