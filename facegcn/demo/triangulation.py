"""Planar triangulation helpers of the procedural face's mesh: kept edges and flips."""

from __future__ import annotations

import numpy as np


def recover_edges(triangles, plane, edges):
    """Flips the edges that cross wanted ones until all of these are edges of the mesh.

    S. Sloan, "A fast algorithm for generating constrained Delaunay triangulations", Computers &
    Structures 47 (1993).

    Args:
        triangles: (F, 3) counter-clockwise in the plane; changed in place.
        plane: (n, 2) positions.
        edges: (E, 2) wanted edges.
    """
    owner = {}  # directed edge -> (triangle, the corner opposite)

    def place(number, a, b, c):
        triangles[number] = a, b, c
        owner[a, b], owner[b, c], owner[c, a] = (number, c), (number, a), (number, b)

    def turn(a, b, c):
        (ax, ay), (bx, by), (cx, cy) = plane[a], plane[b], plane[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    present = {tuple(edge) for corner in range(3)
               for edge in np.sort(triangles[:, [corner, corner - 2]], axis=1).tolist()}
    missing = [edge for edge in edges.tolist() if tuple(sorted(edge)) not in present]
    for number, corners in enumerate(triangles.tolist() if missing else ()):
        place(number, *corners)
    for a, b in missing:
        reach = np.abs(plane - plane[a]).max(axis=1) < 6 * np.abs(plane[b] - plane[a]).max()
        near = triangles[reach[triangles].all(axis=1)]
        near = np.concatenate([near[:, [0, 1]], near[:, [1, 2]], near[:, [2, 0]]]).tolist()
        crossing = [(p, q) for p, q in near if (q, p) in owner and turn(a, b, p) > 0 > turn(a, b, q)
                    and turn(p, q, a) * turn(p, q, b) < 0]
        while crossing:
            p, q = crossing.pop(0)
            (one, c), (two, d) = owner[p, q], owner[q, p]
            if turn(c, p, d) <= 0 or turn(d, q, c) <= 0:
                crossing.append((p, q))
                continue
            del owner[p, q], owner[q, p]
            place(one, c, p, d)
            place(two, d, q, c)
            if {c, d}.isdisjoint((a, b)) and turn(a, b, c) * turn(a, b, d) < 0:
                crossing.append((c, d) if turn(a, b, c) > 0 else (d, c))


def flip_edges(triangles, plane, points):
    """Flips inner edges until opposite angles on the surface add up to at most 180 degrees.

    Args:
        triangles: (F, 3) counter-clockwise in the plane; changed in place and returned.
        plane: (n, 2) positions that must stay free of overlaps.
        points: (n, 3) positions whose angles count.
    """
    for _ in range(12):
        pairs = _inner_edges(triangles, len(plane))
        a, b, one, c, two, d = pairs.T
        bad = _angle(points, c, a, b) + _angle(points, d, a, b) > np.pi + 1e-6
        bad &= (turns(plane, c, a, d) > 0) & (turns(plane, d, b, c) > 0)
        if not bad.any():
            break
        touched = set()
        for a, b, one, c, two, d in pairs[bad].tolist():
            if one not in touched and two not in touched:
                triangles[one], triangles[two] = (c, a, d), (d, b, c)
                touched |= {one, two}
    return triangles


def _inner_edges(triangles, count):
    """(E, 6): edge a-b, its triangle and the corner opposite, the same of the triangle with b-a."""
    a = triangles[:, [0, 1, 2]].ravel()
    b = triangles[:, [1, 2, 0]].ravel()
    opposite = triangles[:, [2, 0, 1]].ravel()
    order = np.argsort(np.minimum(a, b).astype(np.int64) * count + np.maximum(a, b), kind="stable")
    first, second = order[:-1], order[1:]
    same = (a[first] == b[second]) & (b[first] == a[second])
    first, second = first[same], second[same]
    return np.stack([a[first], b[first], first // 3, opposite[first], second // 3, opposite[second]], axis=1)


def _angle(points, apex, a, b):
    """Angles at ``apex`` towards a and b."""
    u, v = points[a] - points[apex], points[b] - points[apex]
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1))


def turns(plane, a, b, c):
    """Twice the signed area of (a, b, c) in the plane, above 0 when counter-clockwise."""
    u, v = plane[b] - plane[a], plane[c] - plane[a]
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
