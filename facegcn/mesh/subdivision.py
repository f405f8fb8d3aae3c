"""Subdivision of triangle meshes as one sparse matrix, so that every vertex array follows alike.

Letters: N vertices of the coarse mesh, M of the fine one (M = N + edges), F triangles. Fine
vertices 0..N-1 are the coarse ones, in their order; then comes one for each edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse


class Edges(NamedTuple):
    """The undirected edges of a triangle mesh.

    Attributes:
        ends: (E, 2) int64 vertices, smaller one first, sorted.
        of_triangle: (F, 3) int64, the edges corner 0-1, 1-2, 2-0 of each triangle.
        sides: (E,) int64, how many triangles share the edge; 1 on a border.
    """

    ends: np.ndarray
    of_triangle: np.ndarray
    sides: np.ndarray


class Subdivision(NamedTuple):
    """One step of subdivision.

    Attributes:
        matrix: SciPy CSR (M, N); fine = matrix @ coarse for positions, bases, colours, ...
        triangles: (4F, 3) int32, oriented as the coarse ones.
    """

    matrix: scipy.sparse.csr_matrix
    triangles: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values (N, ...) on the coarse vertices to (M, ...) on the fine ones."""
        fine = self.matrix @ values.reshape(values.shape[0], -1)
        return fine.reshape((self.matrix.shape[0],) + values.shape[1:])


def find_edges(triangles: np.ndarray) -> Edges:
    """The edges of triangles (F, 3)."""
    triangles = np.asarray(triangles, np.int64)
    corners = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    ends, index, sides = np.unique(corners, axis=0, return_inverse=True, return_counts=True)
    return Edges(ends, index.reshape(-1, 3), sides)


def loop_subdivision(vertex_count: int, triangles: np.ndarray) -> Subdivision:
    """One step of Loop's scheme (C. Loop 1987), borders as cubic splines (Hoppe et al. 1994).

    An inner vertex with n neighbours becomes (1 - n b) v + b * sum of neighbours, where
    n b = 5/8 - (3/8 + cos(2 pi / n) / 4)^2; the new vertex of an inner edge is 3/8 of its ends and
    1/8 of the opposite corners. On a border: 3/4 and 1/8 of the neighbours along it; edge middles
    1/2, 1/2. Vertices without a triangle stay.

    Args:
        vertex_count: N.
        triangles: (F, 3) vertex indices of a manifold mesh with or without borders.

    Raises:
        ValueError: an edge belongs to more than two triangles.
    """
    edges = find_edges(triangles)
    if edges.sides.max(initial=0) > 2:
        a, b = edges.ends[edges.sides.argmax()]
        raise ValueError(f"the edge between vertices {a} and {b} has more than two triangles; "
                         "Loop subdivision needs a manifold mesh")
    matrix = scipy.sparse.vstack([_vertex_rule(vertex_count, edges), _edge_rule(vertex_count, edges, triangles)],
                                 format="csr")
    return Subdivision(matrix, _split(vertex_count, edges, triangles))


def _middles(vertex_count, edges):
    """(E, N): half of each end."""
    count = len(edges.ends)
    return scipy.sparse.csr_matrix((np.full(2 * count, 0.5), edges.ends.ravel(), np.arange(0, 2 * count + 1, 2)),
                                   shape=(count, vertex_count))


def _edge_rule(vertex_count, edges, triangles):
    """(E, N): 3/8, 3/8, 1/8, 1/8 on inner edges, middles on borders."""
    inner = (edges.sides == 2).astype(float)
    opposite = scipy.sparse.csr_matrix(
        (np.full(3 * len(triangles), 0.125),
         (edges.of_triangle.ravel(), np.asarray(triangles)[:, [2, 0, 1]].ravel())),
        shape=(len(edges.ends), vertex_count))
    return (scipy.sparse.diags(1 - 0.25 * inner) @ _middles(vertex_count, edges)
            + scipy.sparse.diags(inner) @ opposite)


def _vertex_rule(vertex_count, edges):
    """(N, N): the new place of the old vertices."""
    border_edges = edges.ends[edges.sides == 1]
    on_border = np.zeros(vertex_count, bool)
    on_border[border_edges] = True
    neighbours, border = _adjacency(vertex_count, edges.ends), _adjacency(vertex_count, border_edges)
    valence = np.asarray(neighbours.sum(axis=1)).ravel()
    count = np.maximum(valence, 1)
    weight = (5 / 8 - (3 / 8 + np.cos(2 * np.pi / count) / 4) ** 2) / count
    weight[on_border] = 0
    border_weight = np.where(on_border, 0.25 / np.maximum(np.asarray(border.sum(axis=1)).ravel(), 1), 0)
    stay = 1 - weight * valence - 0.25 * on_border
    return (scipy.sparse.diags(stay) + scipy.sparse.diags(weight) @ neighbours
            + scipy.sparse.diags(border_weight) @ border)


def _adjacency(vertex_count, ends):
    """Symmetric 0/1 matrix (N, N) of edges (E, 2)."""
    half = scipy.sparse.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])),
                                   shape=(vertex_count, vertex_count))
    return (half + half.T).tocsr()


def _split(vertex_count, edges, triangles):
    """Each triangle into four: its corners with the new vertices of its edges, and the middle."""
    triangles = np.asarray(triangles, np.int64)
    a, b, c = triangles.T
    ab, bc, ca = (vertex_count + edges.of_triangle).T
    fine = np.stack([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]])  # (4, 3, F)
    return np.ascontiguousarray(fine.transpose(2, 0, 1).reshape(-1, 3), np.int32)
