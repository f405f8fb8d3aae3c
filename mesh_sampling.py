"""Template mesh -> hierarchy of coarser meshes, with sampling matrices and graph Laplacians.

Follows CoMA (Ranjan et al. 2018), as the paper does. By itself it prints the levels::

    python mesh_sampling.py --config configs/demo.yaml
    python mesh_sampling.py --model data/demo/model.npz
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from facegcn.errors import BrokenFile, UserError, guarded, log
from facegcn.files import read_npz, write_npz
from facegcn.mesh.hierarchy_format import check_hierarchy

#: Names of the meshes' arrays and of the matrices in a saved hierarchy, each followed by its level.
_MESH_KEYS = ("vertices", "triangles")
_MATRIX_KEYS = {"adjacencies": "adjacency", "downsamples": "downsamp_trans",
                "upsamples": "upsamp_trans", "laplacians": "laplacians"}


class MeshHierarchy(NamedTuple):
    """A mesh and ever coarser versions of it; level 0 is the mesh itself, L levels lie below.

    Attributes:
        vertices: L+1 arrays (N_k, 3) float64.
        triangles: L+1 arrays (F_k, 3) int32, 0-based.
        adjacencies: L+1 CSR matrices (N_k, N_k) float32: faces at each edge (2 inside, 1 at a border).
        downsamples: L CSR matrices (N_k+1, N_k) float32, 0/1: the kept vertices.
        upsamples: L CSR matrices (N_k, N_k+1) float32: barycentric weights, rows sum to 1.
        laplacians: L+1 CSR matrices (N_k, N_k) float32, symmetric, normalised: I - D^-1/2 A D^-1/2.
    """

    vertices: list
    triangles: list
    adjacencies: list
    downsamples: list
    upsamples: list
    laplacians: list

    @property
    def sizes(self) -> list[int]:
        """Vertices of each level."""
        return [laplacian.shape[0] for laplacian in self.laplacians]


def generate_transform_matrices(vertices, triangles=None, factors=(4, 4, 4, 4)) -> MeshHierarchy:
    """Builds the hierarchy: level k+1 keeps ceil(N_k / factor) of the vertices of level k.

    Args:
        vertices: (N, 3) float; or any mesh object with ``.v`` and ``.f``.
        triangles: (F, 3) int, 0-based; None with a mesh object.
        factors: how many times fewer vertices each further level has, each above 1.

    Raises:
        ValueError: an array has the wrong shape, an index is out of range, a coordinate is not
            finite, a factor is not above 1, or the mesh is too small for so many levels.
    """
    from facegcn.mesh.decimation import decimate  # Numba: a second that --help need not wait for
    vertices, triangles = _checked_mesh(vertices, triangles)
    if any(factor <= 1 for factor in factors):
        raise ValueError(f"every sampling factor must be above 1, got {tuple(factors)}")
    hierarchy = MeshHierarchy([vertices], [triangles], [adjacency(triangles, len(vertices))], [], [], [])
    for factor in factors:
        fine = hierarchy.vertices[-1]
        kept, coarse_triangles = decimate(fine, hierarchy.triangles[-1],
                                          math.ceil(len(fine) * (1.0 / factor)))
        selection = sp.csr_matrix((np.ones(len(kept), np.float32), (np.arange(len(kept)), kept)),
                                  shape=(len(kept), len(fine)))
        hierarchy.vertices.append(fine[kept])
        hierarchy.triangles.append(coarse_triangles)
        hierarchy.adjacencies.append(adjacency(coarse_triangles, len(kept)))
        hierarchy.downsamples.append(selection)
        hierarchy.upsamples.append(upsampling(fine, fine[kept], coarse_triangles))
    hierarchy.laplacians.extend(graph_laplacian(a) for a in hierarchy.adjacencies)
    return hierarchy


def adjacency(triangles, vertex_count: int) -> sp.csr_matrix:
    """Symmetric (N, N) float32 matrix: how many triangles lie at each edge.

    Args:
        triangles: (F, 3) int, 0-based.
        vertex_count: N.
    """
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    ones = np.ones(2 * len(start), np.float32)
    corners = np.concatenate([start, end]), np.concatenate([end, start])
    return sp.csr_matrix((ones, corners), shape=(vertex_count, vertex_count))


def graph_laplacian(weights: sp.spmatrix) -> sp.csr_matrix:
    """Normalised graph Laplacian I - D^-1/2 A D^-1/2, CSR float32; a lone vertex has the row of I.

    Args:
        weights: symmetric adjacency A (N, N), not negative.
    """
    degrees = np.asarray(weights.sum(axis=0), np.float32).ravel()
    scale = sp.diags(1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0).astype(np.float32)))
    identity = sp.identity(weights.shape[0], np.float32, format="csr")
    return (identity - scale @ weights @ scale).tocsr().astype(np.float32)


def upsampling(fine, coarse, coarse_triangles) -> sp.csr_matrix:
    """Matrix (N_fine, N_coarse) float32 that carries values of the coarse mesh to fine vertices.

    Row i holds the barycentric weights of the point of the coarse mesh closest to fine vertex i.
    Inside a triangle the released code has the same weights; where the closest point lies on an
    edge it takes a least-squares fit instead, whose weights need not sum to 1.

    Args:
        fine: (N_fine, 3) float.
        coarse: (N_coarse, 3) float, same unit.
        coarse_triangles: (F, 3) int, 0-based.
    """
    from facegcn.mesh.closest_point import closest_points
    ids, weights = closest_points(fine, coarse, coarse_triangles)
    rows = np.repeat(np.arange(len(fine)), 3)
    matrix = sp.csr_matrix((weights.ravel().astype(np.float32), (rows, coarse_triangles[ids].ravel())),
                           shape=(len(fine), len(coarse)))
    matrix.eliminate_zeros()
    return matrix


# ---------------------------------------------------------------- files
def array_names(levels: int) -> list[str]:
    """Names of the arrays of a saved hierarchy with ``levels`` levels below the mesh.

    Level k of a matrix is stored as ``adjacencyk_row``, ``_col``, ``_data``, ``_shape`` (the same
    for ``downsamp_transk``, ``upsamp_transk``, ``laplaciansk``), meshes as ``verticesk``,
    ``trianglesk``.
    """
    meshes = [f"{name}{k}" for name in _MESH_KEYS for k in range(levels + 1)]
    matrices = [f"{key}{k}_{part}" for name, key in _MATRIX_KEYS.items()
                for k in range(_matrix_count(name, levels)) for part in ("row", "col", "data", "shape")]
    return meshes + matrices


def to_arrays(hierarchy: MeshHierarchy) -> dict[str, np.ndarray]:
    """A hierarchy as the arrays that ``array_names`` names."""
    arrays = {f"{name}{k}": array for name in _MESH_KEYS for k, array in enumerate(getattr(hierarchy, name))}
    for name, key in _MATRIX_KEYS.items():
        for k, matrix in enumerate(getattr(hierarchy, name)):
            matrix = matrix.tocoo()
            arrays.update({f"{key}{k}_row": matrix.row, f"{key}{k}_col": matrix.col,
                           f"{key}{k}_data": matrix.data, f"{key}{k}_shape": np.array(matrix.shape)})
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> MeshHierarchy:
    """The hierarchy of such arrays. Raises KeyError or ValueError where they are none."""
    levels = check_hierarchy(arrays)
    parts = {name: [arrays[f"{name}{k}"] for k in range(levels + 1)] for name in _MESH_KEYS}
    for name, key in _MATRIX_KEYS.items():
        parts[name] = [_matrix(arrays, f"{key}{k}") for k in range(_matrix_count(name, levels))]
    return MeshHierarchy(**parts)


def save_hierarchy(path: str, hierarchy: MeshHierarchy) -> None:
    """Writes a hierarchy as one ``.npz``, whole; see ``array_names``. Raises OSError."""
    write_npz(path, to_arrays(hierarchy))


def load_hierarchy(path: str) -> MeshHierarchy:
    """Reads what ``save_hierarchy`` wrote; never unpickles.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFile: it is no whole ``.npz``, or lacks an array; the message names it.
    """
    arrays = read_npz(path)
    try:
        return from_arrays(arrays)
    except KeyError as error:
        raise BrokenFile(path, f"lacks the array {error}") from error
    except ValueError as error:
        raise BrokenFile(path, f"is no mesh hierarchy: {error}") from error


def _matrix_count(name, levels):
    return levels if name in ("downsamples", "upsamples") else levels + 1


def _matrix(arrays, key):
    index = arrays[f"{key}_row"], arrays[f"{key}_col"]
    return sp.csr_matrix((arrays[f"{key}_data"], index), shape=tuple(arrays[f"{key}_shape"]))


def _checked_mesh(vertices, triangles):
    """Vertices as (N, 3) float64 and triangles as (F, 3) int32; raises ValueError if they are not."""
    if triangles is None:
        if not (hasattr(vertices, "v") and hasattr(vertices, "f")):
            raise ValueError("give vertices and triangles, or a mesh object with .v and .f")
        vertices, triangles = vertices.v, vertices.f
    vertices, triangles = np.asarray(vertices, np.float64), np.asarray(triangles)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices must have shape (N, 3), got {vertices.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"triangles must have shape (F, 3), F above 0, got {triangles.shape}")
    if not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(f"triangles have an index outside 0..{len(vertices) - 1}")
    if not np.isfinite(vertices).all():
        raise ValueError("vertices have coordinates that are not finite")
    return vertices, triangles.astype(np.int32)


# ---------------------------------------------------------------- command line
def main(arguments=None) -> int:
    """Prints the levels of a template; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build a template's mesh hierarchy and print its levels.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", help="YAML config of a world (default: the demo world)")
    source.add_argument("--model", metavar="FILE", help="morphable model, .npz")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    return guarded(lambda: _print_levels(options), options.debug)


def _print_levels(options) -> int:
    model = _load_model(options)
    start = time.perf_counter()
    try:
        hierarchy = generate_transform_matrices(model.mean_shape, model.triangles)
    except ValueError as error:  # a mesh too small, say
        raise UserError(str(error)) from error
    log.info("level  vertices  triangles    edges")
    for k, matrix in enumerate(hierarchy.adjacencies):
        log.info("%5d  %8d  %9d  %7d", k, matrix.shape[0], len(hierarchy.triangles[k]), matrix.nnz // 2)
    log.info("built in %.2f s", time.perf_counter() - start)
    return 0


def _load_model(options):
    from facegcn.backends.start import tensorflow
    tensorflow()  # the model classes import it, which nothing else here needs
    if options.model:
        from facegcn.morphable import MorphableModel
        return MorphableModel.load(options.model)
    from facegcn.assets.worlds import load_morphable
    from facegcn.config import load_config
    return load_morphable(load_config(options.config))


if __name__ == "__main__":
    sys.exit(main())
