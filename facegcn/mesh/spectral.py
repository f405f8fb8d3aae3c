"""Smooth functions on a mesh: eigenvectors of its Laplacian, the Fourier basis of a surface."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg


def cotangent_laplacian(vertices: np.ndarray, triangles: np.ndarray) -> tuple:
    """Cotangent Laplacian and lumped areas (Pinkall and Polthier 1993).

    Args:
        vertices: (N, 3).
        triangles: (F, 3).

    Returns:
        stiffness: SciPy CSR (N, N), positive semi-definite, rows sum to 0; negative cotangents
            (obtuse corners) count as 0, which keeps every edge weight non-negative.
        areas: (N,) a third of the area of the triangles around each vertex.
    """
    vertices, triangles = np.asarray(vertices, float), np.asarray(triangles)
    count = len(vertices)
    stiffness = scipy.sparse.csr_matrix((count, count))
    areas = np.zeros(count)
    for corner in range(3):
        here, b, c = (triangles[:, (corner + k) % 3] for k in range(3))
        to_b, to_c = vertices[b] - vertices[here], vertices[c] - vertices[here]
        twice_area = np.maximum(np.linalg.norm(np.cross(to_b, to_c), axis=1), 1e-12)
        weight = np.maximum((to_b * to_c).sum(axis=1) / twice_area, 0) / 2
        edge = scipy.sparse.coo_matrix((weight, (b, c)), shape=(count, count))
        stiffness = stiffness - edge - edge.T
        areas += np.bincount(here, twice_area / 6, minlength=count)
    diagonal = scipy.sparse.diags(np.asarray(-stiffness.sum(axis=1)).ravel())
    return (stiffness + diagonal).tocsr(), areas


def smooth_functions(vertices: np.ndarray, triangles: np.ndarray, count: int) -> tuple:
    """The ``count`` smoothest functions on a connected mesh; the first is constant.

    Args:
        vertices: (N, 3).
        triangles: (F, 3); every vertex belongs to one.
        count: how many, below N.

    Returns:
        functions: (N, count), each with area-weighted mean square 1, mutually orthogonal in the
            area-weighted product; the sign makes the entry of largest size positive.
        eigenvalues: (count,), ascending, 1 / length^2.

    Raises:
        ValueError: count is not below the number of vertices.
    """
    if not 0 < count < len(vertices):
        raise ValueError(f"count must lie in 1..{len(vertices) - 1}, got {count}")
    stiffness, areas = cotangent_laplacian(vertices, triangles)
    mass = scipy.sparse.diags(areas / areas.sum())
    start = np.random.default_rng(0).normal(size=len(vertices))  # else ARPACK's start is random
    values, functions = scipy.sparse.linalg.eigsh(stiffness, count, mass, sigma=-0.01, which="LM", v0=start)
    order = np.argsort(values)
    values, functions = values[order], functions[:, order]
    signs = np.sign(functions[np.abs(functions).argmax(axis=0), np.arange(count)])
    return functions * signs, np.maximum(values, 0) / areas.sum()
