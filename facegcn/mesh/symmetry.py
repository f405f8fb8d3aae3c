"""Left and right of a face mesh."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def mirror_pairs(vertices: np.ndarray, tolerance: float) -> np.ndarray:
    """Vertices that mirror each other across the plane x = 0.

    Args:
        vertices: (N, 3) mean shape.
        tolerance: largest distance of a vertex's mirror image to its partner, unit of ``vertices``.

    Returns:
        (P, 2) int32, the vertex at smaller x (left in the picture) first, sorted; each vertex is
        in one pair at most, those on the middle line in none.
    """
    distance, partner = cKDTree(vertices).query(vertices * (-1, 1, 1))
    here = np.arange(len(vertices))
    mutual = (partner[partner] == here) & (distance <= tolerance)
    left = here[mutual & (vertices[:, 0] < vertices[partner, 0])]
    return np.stack([left, partner[left]], axis=1).astype(np.int32)


def mirrored_diagonals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Splits every quad along its shorter diagonal, so that both sides of a face are cut alike.

    Args:
        vertices: (N, 3).
        triangles: (F, 3); two that follow each other as (a, b, c), (a, c, d) are taken for a quad.

    Returns:
        (F, 3) triangles of the same surface; on equal diagonals the one that ends nearer the
        middle line x = 0 wins.
    """
    result = triangles.copy()
    first = np.flatnonzero((triangles[:-1, 0] == triangles[1:, 0]) & (triangles[:-1, 2] == triangles[1:, 1]))
    run_start = np.maximum.accumulate(np.where(np.diff(first, prepend=-2) > 1, first, 0))
    first = first[(first - run_start) % 2 == 0]  # in a longer fan, each triangle belongs to one quad at most
    a, b, c = triangles[first].T
    d = triangles[first + 1, 2]
    length_ac, length_bd = (np.linalg.norm(vertices[p] - vertices[q], axis=1) for p, q in ((a, c), (b, d)))
    middle_ac, middle_bd = (np.minimum(np.abs(vertices[p, 0]), np.abs(vertices[q, 0])) for p, q in ((a, c), (b, d)))
    tie = np.abs(length_ac - length_bd) < 1e-3 * (length_ac + length_bd)
    flip = np.where(tie, middle_bd < middle_ac, length_bd < length_ac)
    first, a, b, c, d = (values[flip] for values in (first, a, b, c, d))
    result[first], result[first + 1] = np.stack([b, c, d], axis=1), np.stack([b, d, a], axis=1)
    return result
