"""What every format needs: checked arrays, linear light, smooth normals, vertices split at a texture's seams."""

from __future__ import annotations

import numpy as np


def checked_mesh(vertices, triangles) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a mesh as float64 and int64.

    Args:
        vertices: (N, 3).
        triangles: (F, 3) int, 0-based.

    Raises:
        ValueError: shapes that do not fit, an index outside, or values that are not finite.
    """
    vertices, triangles = np.asarray(vertices, np.float64), np.asarray(triangles, np.int64)
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or triangles.ndim != 2 or triangles.shape[1:] != (3,):
        raise ValueError(f"vertices {vertices.shape} and triangles {triangles.shape} do not fit; "
                         "expected (N, 3), (F, 3)")
    if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"triangles name vertices outside 0..{len(vertices) - 1}")
    check_finite("vertices", vertices)
    return vertices, triangles


def checked(name: str, values, shape: tuple[int, ...]) -> np.ndarray:
    """Finite values of this shape as float64; -1 stands for any length.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != len(shape) or any(has != wants for has, wants in zip(values.shape, shape) if wants != -1):
        raise ValueError(f"{name} {values.shape} do not fit; expected {shape}".replace("-1", "any"))
    check_finite(name, values)
    return values


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises ValueError where a value is not finite."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name} have values that are not finite")


def checked_colors(colors, count: int) -> np.ndarray:
    """(N, 3) sRGB as float64, clipped to [0, 1]; raises ValueError as ``checked``."""
    return np.clip(checked("colors", colors, (count, 3)), 0.0, 1.0)


def linear_from_srgb(colors: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] of sRGB values in [0, 1] (IEC 61966-2-1)."""
    colors = np.asarray(colors, np.float64)
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def smooth_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(N, 3) unit normals: the sum of the triangles' normals, each as long as its area; +z where there is none.

    Args:
        vertices: (N, 3), any unit. One that is there twice, on both sides of a texture's seam, has two normals.
        triangles: (F, 3) int, counter-clockwise seen from outside.
    """
    first, second, third = (vertices[triangles[:, corner]] for corner in range(3))
    faces = np.cross(second - first, third - first)
    corners, count = triangles.ravel(), len(vertices)
    sums = np.stack([np.bincount(corners, np.repeat(faces[:, axis], 3), count) for axis in range(3)], axis=1)
    return unit_normals(sums)


def unit_normals(normals: np.ndarray) -> np.ndarray:
    """(N, 3) of length 1; +z where the length is zero."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])


def checked_layout(triangles, uv_triangles, count: int) -> np.ndarray:
    """Corners (F, 3) int64 into ``count`` texture coordinates, those of ``triangles`` (F, 3).

    Raises:
        ValueError: the shapes differ, or an index is outside.
    """
    corners = np.asarray(uv_triangles, np.int64)
    if corners.shape != np.shape(triangles):
        raise ValueError(f"triangles {np.shape(triangles)} and uv_triangles {corners.shape} do not fit; "
                         "expected (F, 3) both")
    if corners.size and not 0 <= corners.min() <= corners.max() < count:
        raise ValueError(f"uv_triangles name texture coordinates outside 0..{count - 1}")
    return corners


def layout_vertices(triangles: np.ndarray, uv_triangles: np.ndarray, count: int) -> np.ndarray:
    """Which vertex each texture coordinate belongs to, where vertices are split at the seams of a texture.

    Args:
        triangles: (F, 3) int, corners as vertices.
        uv_triangles: (F, 3) int, the same corners as texture coordinates.
        count: number M of texture coordinates.

    Returns:
        (M,) int64; an array of the vertices (N, ...) is expanded by ``array[layout_vertices(...)]``.

    Raises:
        ValueError: as ``checked_layout``; a texture coordinate has no vertex or two.
    """
    corners, triangles = checked_layout(triangles, uv_triangles, count), np.asarray(triangles, np.int64)
    found = np.full(count, -1, np.int64)
    found[corners] = triangles
    if (found < 0).any() or (found[corners] != triangles).any():
        raise ValueError("a texture coordinate must belong to exactly one vertex")
    return found
