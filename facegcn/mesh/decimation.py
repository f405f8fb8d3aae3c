"""Mesh decimation by quadric edge collapse that keeps a subset of the vertices (CoMA, QSlim).

Every edge waits in a heap with the cost of collapsing it; the cheapest is taken, its cost is
looked at again (it may have grown meanwhile, then it goes back), and one of its two vertices is
merged into the other. The result depends on which of several equally cheap edges comes first, so
the heap is the binary heap of Python's ``heapq`` step by step, ordered by (cost, first vertex,
second vertex) under the vertices' current names, and sums are rounded as BLAS rounds them.

Sources: Garland and Heckbert 1997 (quadrics); Ranjan et al. 2018, CoMA (vertices are kept, not
moved). The work is local: a collapse touches only the faces around the vertex that goes.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from facegcn.errors import UserError


class DecimationError(UserError, ValueError):
    """A mesh cannot be decimated to the asked number of vertices: a wrong argument, and a template of the user's."""


def decimate(vertices: np.ndarray, triangles: np.ndarray, target: int):
    """Collapses edges until at most ``target`` vertices are left in triangles.

    Args:
        vertices: (N, 3) float, any unit.
        triangles: (F, 3) int, 0-based.
        target: wanted number of vertices. A collapse at a border may take several vertices away
            at once, so the result can be smaller.

    Returns:
        ``kept`` (M,) int64, ascending indices of the kept vertices, and ``new_triangles`` (G, 3)
        int32 over these, in the order of the triangles they come from.

    Raises:
        DecimationError: no triangle would be left.
    """
    vertices = np.ascontiguousarray(vertices, np.float64)
    faces = np.array(triangles, np.int64)
    if target < len(vertices):
        first, second = _edges(faces, len(vertices))
        quadrics = np.zeros((len(vertices), 4, 4))
        _add_quadrics(quadrics, faces, _planes(vertices, faces))
        # The released code drops these at its first collapse; their quadrics have counted.
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
        alive = np.ones(len(faces), bool)
        _collapse(vertices, faces, alive, _corner_lists(faces, len(vertices)), quadrics,
                  (np.empty(len(first)), first, second, np.arange(len(vertices))), int(target))
        faces = faces[alive]
    if not len(faces):
        raise DecimationError(f"a mesh of {len(vertices)} vertices and {len(triangles)} triangles "
                              f"has no triangle left before it reaches {target} vertices; "
                              "use fewer levels or a denser template")
    kept, corners = np.unique(faces, return_inverse=True)
    return kept, corners.reshape(-1, 3).astype(np.int32)


def _edges(faces, count):
    """Each edge once, as (smaller, larger) vertex, sorted by the larger, then by the smaller."""
    pairs = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    codes = np.unique(pairs[:, 1] * count + pairs[:, 0])
    return codes % count, codes // count


def _planes(vertices, faces):
    """Plane (a, b, c, d) of each face with a^2 + b^2 + c^2 = 1, (F, 4): the null vector of its
    homogeneous corners, which exists for degenerate faces too."""
    corners = np.concatenate([vertices[faces], np.ones((len(faces), 3, 1))], axis=2)
    return np.ascontiguousarray(np.linalg.svd(corners)[2][:, 3])


@intrinsic
def _fma(context, a, b, c):
    """a * b + c with one rounding."""
    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)
    return types.float64(types.float64, types.float64, types.float64), generate


@numba.njit(cache=True)
def _add_quadrics(quadrics, faces, planes):
    """Adds the quadric of each face's plane to those of its corners (N, 4, 4)."""
    for f in range(len(faces)):
        length = np.sqrt(_fma(planes[f, 2], planes[f, 2],
                              _fma(planes[f, 1], planes[f, 1], planes[f, 0] * planes[f, 0])))
        for k in range(3):
            for i in range(4):
                for j in range(4):
                    quadrics[faces[f, k], i, j] += (planes[f, i] / length) * (planes[f, j] / length)


@numba.njit(cache=True)
def _column(quadrics, a, b, j, x, y, z):
    """Entry j of (x, y, z, 1) times the sum of the quadrics a and b."""
    total = (quadrics[a, 1, j] + quadrics[b, 1, j]) * y
    total = _fma(x, quadrics[a, 0, j] + quadrics[b, 0, j], total)
    total = _fma(z, quadrics[a, 2, j] + quadrics[b, 2, j], total)
    return total + (quadrics[a, 3, j] + quadrics[b, 3, j])


@numba.njit(cache=True)
def _error(quadrics, a, b, vertices, kept):
    """Sum of squared distances of vertex ``kept`` to the planes in the quadrics of a and b."""
    x, y, z = vertices[kept, 0], vertices[kept, 1], vertices[kept, 2]
    total = _fma(_column(quadrics, a, b, 1, x, y, z), y, _column(quadrics, a, b, 0, x, y, z) * x)
    total = _fma(_column(quadrics, a, b, 2, x, y, z), z, total)
    return total + _column(quadrics, a, b, 3, x, y, z)


@numba.njit(cache=True)
def _find(parent, vertex):
    """Current name of a vertex: the one it was merged into, if any."""
    root = vertex
    while parent[root] != root:
        root = parent[root]
    while parent[vertex] != root:
        parent[vertex], vertex = root, parent[vertex]
    return root


@numba.njit(cache=True)
def _before(queue, e, f):
    """Whether edge e comes before edge f: by cost, then by current vertex names."""
    costs, first, second, parent = queue
    if costs[e] != costs[f]:
        return costs[e] < costs[f]
    a, b = _find(parent, first[e]), _find(parent, first[f])
    if a != b:
        return a < b
    return _find(parent, second[e]) < _find(parent, second[f])


@numba.njit(cache=True)
def _rise(heap, position, queue):
    """Moves the entry at ``position`` up to its place."""
    entry = heap[position]
    while position > 0:
        above = (position - 1) >> 1
        if not _before(queue, entry, heap[above]):
            break
        heap[position] = heap[above]
        position = above
    heap[position] = entry


@numba.njit(cache=True)
def _pop(heap, size, queue):
    """Takes the first entry out of a heap of ``size`` entries.

    As in ``heapq``, the hole sinks to a leaf along the smaller children, and the last entry rises
    from there. Renamed vertices may disturb the order among equal costs, so this matters.
    """
    result, last = heap[0], heap[size - 1]
    hole, child = 0, 1
    while child < size - 1:
        if child + 1 < size - 1 and not _before(queue, heap[child], heap[child + 1]):
            child += 1
        heap[hole] = heap[child]
        hole, child = child, 2 * child + 1
    heap[hole] = last
    _rise(heap, hole, queue)
    return result


def _corner_lists(faces, count):
    """Linked lists of the face corners at each vertex.

    A corner's number is 3 * face + position. Returns the first and last corner of each vertex
    (count,), the corner that follows each (3F,), -1 for none, and the corners per vertex.
    """
    vertex = faces.ravel()
    order = np.argsort(vertex, kind="stable")
    uses = np.bincount(vertex, minlength=count)
    head, tail = np.full(count, -1), np.full(count, -1)
    following = np.full(len(vertex), -1)
    head[vertex[order[::-1]]] = order[::-1]
    tail[vertex[order]] = order
    following[order[:-1]] = np.where(vertex[order[:-1]] == vertex[order[1:]], order[1:], -1)
    return head, tail, following, uses


@numba.njit(cache=True)
def _merge(destroyed, keep, faces, alive, lists):
    """Renames ``destroyed`` to ``keep`` in its faces and removes those that become degenerate.

    Returns the change of the number of vertices that faces use.
    """
    head, tail, following, uses = lists
    change = -int(uses[destroyed] > 0) - int(uses[keep] > 0)
    corner = head[destroyed]
    while corner >= 0:
        if alive[corner // 3]:
            faces[corner // 3, corner % 3] = keep
            uses[keep] += 1
        corner = following[corner]
    uses[destroyed] = 0
    change += int(uses[keep] > 0)
    corner = head[destroyed]
    while corner >= 0:
        f = corner // 3
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if alive[f] and (a == b or b == c or c == a):
            alive[f] = False
            for k in range(3):
                uses[faces[f, k]] -= 1
                change -= int(uses[faces[f, k]] == 0)
        corner = following[corner]
    if head[destroyed] >= 0:
        if head[keep] < 0:
            head[keep] = head[destroyed]
        else:
            following[tail[keep]] = head[destroyed]
        tail[keep] = tail[destroyed]
    return change


@numba.njit(cache=True)
def _collapse(vertices, faces, alive, lists, quadrics, queue, target):
    """Collapses edges, in place, until at most ``target`` vertices are in faces.

    Args:
        vertices, faces: (N, 3) float64, (F, 3) int64 without degenerate faces.
        alive: (F,) bool, all true; false for removed faces afterwards.
        lists: see ``_corner_lists``.
        quadrics: (N, 4, 4).
        queue: costs (E,) to be filled in, first and second vertex of each edge (E,), and the vertex
            each vertex was merged into (N,), at first itself.
        target: wanted number of vertices.
    """
    costs, first, second, parent = queue
    heap = np.empty(len(costs), np.int64)
    for e in range(len(costs)):
        costs[e] = min(_error(quadrics, first[e], second[e], vertices, first[e]),
                       _error(quadrics, first[e], second[e], vertices, second[e]))
        heap[e] = e
        _rise(heap, e, queue)
    size, left, started = len(costs), 0, False
    for count in lists[3]:
        left += int(count > 0)
    # Vertices in no face count until the first collapse, so there is always one.
    while size > 0 and (left > target or not started):
        e = _pop(heap, size, queue)
        size -= 1
        a, b = _find(parent, first[e]), _find(parent, second[e])
        if a == b:
            continue
        keep_a, keep_b = _error(quadrics, a, b, vertices, a), _error(quadrics, a, b, vertices, b)
        if min(keep_a, keep_b) > costs[e]:  # grown meanwhile: back into the heap
            costs[e] = min(keep_a, keep_b)
            heap[size] = e
            size += 1
            _rise(heap, size - 1, queue)
            continue
        keep, destroyed = (a, b) if keep_a < keep_b else (b, a)
        left += _merge(destroyed, keep, faces, alive, lists)
        parent[destroyed] = keep
        for i in range(4):
            for j in range(4):
                quadrics[keep, i, j] += quadrics[destroyed, i, j]
        started = True
