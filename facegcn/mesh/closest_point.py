"""Closest points on a triangle mesh, exact, by a tree of bounding boxes.

Sources: Ericson, Real-Time Collision Detection, section 5.1.5 (regions of a triangle).
"""

from __future__ import annotations

import numba
import numpy as np

_LEAF_SIZE = 4  # triangles in a leaf of the tree, at most twice as many
_STACK = 64  # a search holds at most one waiting node per level of the tree


def closest_points(points, vertices, triangles):
    """Closest point of the mesh's surface to each point.

    Args:
        points: (P, 3) float.
        vertices: (N, 3) float, same unit.
        triangles: (F, 3) int, 0-based, F above 0.

    Returns:
        Triangle index (P,) int64, and barycentric weights (P, 3) float64 of its corners, each in
        [0, 1], sum 1. Equally close triangles: any of them.
    """
    corners = np.ascontiguousarray(np.asarray(vertices, np.float64)[np.asarray(triangles)])
    order, starts, boxes = _tree(corners)
    points = np.ascontiguousarray(points, np.float64)
    ids, weights = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
    _search(points, corners, order, starts, boxes, ids, weights)
    return ids, weights


def _tree(corners):
    """Balanced binary tree of boxes over triangles (F, 3, 3).

    Returns the triangles' order (F,), where each of the T leaves starts in it (T + 1,), and boxes
    (2T - 1, 6), minima then maxima; the children of node i are 2i + 1 and 2i + 2, leaves come last.
    """
    count, centres = len(corners), corners.mean(axis=1)
    depth = max(int(np.log2(count / _LEAF_SIZE)), 0) if count > _LEAF_SIZE else 0
    order = np.arange(count)
    for level in range(depth):  # cut every segment in half along its longest side
        segment = (np.arange(count) << level) // count
        starts = np.searchsorted(segment, np.arange(1 << level))
        sides = (np.maximum.reduceat(centres[order], starts) -
                 np.minimum.reduceat(centres[order], starts))
        order = order[np.lexsort((centres[order, sides.argmax(axis=1)[segment]], segment))]
    leaves = (np.arange(count) << depth) // count
    starts = np.searchsorted(leaves, np.arange((1 << depth) + 1))
    # Maxima are negated, so that one minimum serves both.
    levels = [np.minimum.reduceat(np.concatenate([corners.min(axis=1), -corners.max(axis=1)],
                                                 axis=1)[order], starts[:-1])]
    while len(levels[-1]) > 1:
        levels.append(np.minimum(levels[-1][::2], levels[-1][1::2]))
    boxes = np.concatenate(levels[::-1])
    boxes[:, 3:] *= -1.0
    return order, starts, boxes


@numba.njit(cache=True)
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@numba.njit(cache=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(cache=True)
def _box_distance(p, boxes, node):
    """Squared distance of a point to a box."""
    x = max(boxes[node, 0] - p[0], p[0] - boxes[node, 3], 0.0)
    y = max(boxes[node, 1] - p[1], p[1] - boxes[node, 4], 0.0)
    z = max(boxes[node, 2] - p[2], p[2] - boxes[node, 5], 0.0)
    return x * x + y * y + z * z


@numba.njit(cache=True)
def _weights(p, a, b, c):
    """Barycentric weights of the point of the triangle a, b, c that is closest to ``p``."""
    ab, ac, ap, bp, cp = _minus(b, a), _minus(c, a), _minus(p, a), _minus(p, b), _minus(p, c)
    d1, d2 = _dot(ab, ap), _dot(ac, ap)
    if d1 <= 0.0 and d2 <= 0.0:
        return 1.0, 0.0, 0.0
    d3, d4 = _dot(ab, bp), _dot(ac, bp)
    if d3 >= 0.0 and d4 <= d3:
        return 0.0, 1.0, 0.0
    wc = d1 * d4 - d3 * d2
    if wc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        share = d1 / (d1 - d3)
        return 1.0 - share, share, 0.0
    d5, d6 = _dot(ab, cp), _dot(ac, cp)
    if d6 >= 0.0 and d5 <= d6:
        return 0.0, 0.0, 1.0
    wb = d5 * d2 - d1 * d6
    if wb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        share = d2 / (d2 - d6)
        return 1.0 - share, 0.0, share
    wa = d3 * d6 - d5 * d4
    if wa <= 0.0 and d4 >= d3 and d5 >= d6:
        share = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        return 0.0, 1.0 - share, share
    total = wa + wb + wc
    return wa / total, wb / total, wc / total


@numba.njit(cache=True)
def _corner(corners, t, k):
    return corners[t, k, 0], corners[t, k, 1], corners[t, k, 2]


@numba.njit(cache=True)
def _try_triangle(p, corners, t, best, weights):
    """Squared distance to triangle t if below ``best`` (then ``weights`` (3,) are set), else ``best``."""
    a, b, c = _corner(corners, t, 0), _corner(corners, t, 1), _corner(corners, t, 2)
    u, v, w = _weights(p, a, b, c)
    gap = _minus((u * a[0] + v * b[0] + w * c[0], u * a[1] + v * b[1] + w * c[1],
                  u * a[2] + v * b[2] + w * c[2]), p)
    distance = _dot(gap, gap)
    if distance >= best:
        return best
    weights[0], weights[1], weights[2] = u, v, w
    return distance


@numba.njit(cache=True)
def _search(points, corners, order, starts, boxes, ids, weights):
    """Fills ids and weights: depth first, the nearer child first, boxes beyond the best skipped."""
    first_leaf = len(boxes) // 2
    stack = np.empty(_STACK, np.int64)
    for i in range(len(points)):
        p = (points[i, 0], points[i, 1], points[i, 2])
        best, depth, stack[0] = np.inf, 1, 0
        while depth > 0:
            depth -= 1
            node = stack[depth]
            if _box_distance(p, boxes, node) >= best:
                continue
            if node < first_leaf:
                near, far = 2 * node + 1, 2 * node + 2
                if _box_distance(p, boxes, far) < _box_distance(p, boxes, near):
                    near, far = far, near
                stack[depth], stack[depth + 1] = far, near
                depth += 2
                continue
            for k in range(starts[node - first_leaf], starts[node - first_leaf + 1]):
                distance = _try_triangle(p, corners, order[k], best, weights[i])
                if distance < best:
                    best, ids[i] = distance, order[k]
