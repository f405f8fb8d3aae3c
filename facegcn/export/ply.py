"""Binary PLY (little-endian) with normals and vertex colours: decimetre, sRGB as 8 bits."""

from __future__ import annotations

import numpy as np

from facegcn.export.arrays import checked, checked_colors, checked_mesh, smooth_normals, unit_normals
from facegcn.files import write_bytes

_VERTEX = np.dtype([(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
                   + [(name, "u1") for name in ("red", "green", "blue")])
_FACE = np.dtype([("count", "u1"), ("vertex_indices", "<i4", (3,))])
_NAMES = {"<f4": "float", "|u1": "uchar"}


def write_ply(path: str, vertices: np.ndarray, triangles: np.ndarray, colors: np.ndarray,
              normals: np.ndarray | None = None) -> None:
    """Writes a binary PLY; a comment names unit and colour space.

    Args:
        path: the file.
        vertices: (N, 3), decimetre.
        triangles: (F, 3) int, 0-based.
        colors: (N, 3) sRGB in [0, 1].
        normals: (N, 3), any length; None: smooth ones.

    Raises:
        ValueError: shapes that do not fit, an index outside, or values that are not finite.
        OSError: the file cannot be written.
    """
    vertices, triangles = checked_mesh(vertices, triangles)
    normals = smooth_normals(vertices, triangles) if normals is None \
        else unit_normals(checked("normals", normals, vertices.shape))
    rows = np.empty(len(vertices), _VERTEX)
    for names, values in (("x y z", vertices), ("nx ny nz", normals),
                          ("red green blue", np.round(checked_colors(colors, len(vertices)) * 255))):
        for axis, name in enumerate(names.split()):
            rows[name] = values[:, axis]
    faces = np.empty(len(triangles), _FACE)
    faces["count"], faces["vertex_indices"] = 3, triangles
    properties = "".join(f"property {_NAMES[kind.str]} {name}\n" for name, (kind, _) in _VERTEX.fields.items())
    header = ("ply\nformat binary_little_endian 1.0\ncomment unit: decimetre (0.1 m); colours: sRGB\n"
              f"element vertex {len(rows)}\n{properties}element face {len(faces)}\n"
              "property list uchar int vertex_indices\nend_header\n")
    write_bytes(path, header.encode() + rows.tobytes() + faces.tobytes())
