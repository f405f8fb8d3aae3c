"""Normals of the surface through a face's landmarks, from the points alone.

Seen from a place inside of the head every landmark lies in a direction of its own, so the convex hull of the directions
is a mesh of the points, whichever points they are.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError

_INSIDE = 0.5  # depth of that place behind the points' middle, in the face's larger extent
_ACROSS_THE_BACK = 1.0  # length of an edge between directions from which a triangle closes the head's open back


def outward_normals(points: np.ndarray) -> np.ndarray:
    """(P, 3) unit normals of a face's surface at its points; 0 where there is no surface.

    Args:
        points: (P, 3) x right, y down, z away from the camera, of any face whose points lie in front of its middle.
    """
    points = np.asarray(points, np.float64)
    normals = np.zeros_like(points)
    from_inside = points - _place_inside(points)
    lengths = np.linalg.norm(from_inside, axis=1, keepdims=True)
    try:
        triangles = ConvexHull(from_inside / np.maximum(lengths, 1e-12)).simplices
    except (QhullError, ValueError):  # points on a line, or not finite
        return normals
    directions = from_inside[triangles] / lengths[triangles]
    edges = np.linalg.norm(directions - np.roll(directions, 1, axis=1), axis=2).max(axis=1)
    triangles = triangles[edges < _ACROSS_THE_BACK]
    a, b, c = (from_inside[triangles[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    across *= np.sign(np.einsum("td,td->t", across, a + b + c))[:, None]
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _place_inside(points: np.ndarray) -> np.ndarray:
    """A place behind the middle of the points, along their least extent, on the side where the outline lies."""
    middle = points.mean(axis=0)
    extents, axes = np.linalg.eigh(np.cov((points - middle).T))
    backwards = axes[:, 0]
    # The outline, which lies farthest from the middle across the face, bends backwards.
    across = (points - middle) @ axes[:, 1:]
    weights = (across ** 2).sum(axis=1)
    lean = np.average((points - middle) @ backwards, weights=weights) if weights.any() else 0.0
    return middle + np.copysign(1.0, lean) * backwards * _INSIDE * 2.0 * np.sqrt(max(0.0, extents[-1]))
