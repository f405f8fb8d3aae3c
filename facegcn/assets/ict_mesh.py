"""The mesh of ICT-FaceKit on its way to a morphable model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SKIN, EYE, MOUTH = 0, 1, 2


@dataclass
class FaceMesh:
    """The kept region on its way to a model; decimetre.

    Attributes:
        vertices: (N, 3) mean shape.
        triangles: (F, 3).
        identity, expression: (N, 3, K) bases.
        kind: (N,) SKIN, EYE or MOUTH.
        source_index: (N,) index among ICT-FaceKit's vertices of the skin, -1 for others.
        landmarks: (68,).
        uv: (N, 2) or None.
        blendshapes: (N, 3, A) displacement by each named expression, full activation.
        blendshape_names: their A names.
        recess: (N,) decimetre by which each vertex goes back where there are teeth behind it.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    kind: np.ndarray
    source_index: np.ndarray
    landmarks: np.ndarray
    uv: np.ndarray | None
    blendshapes: np.ndarray
    blendshape_names: tuple[str, ...]
    recess: np.ndarray

    def mapped(self, matrix) -> FaceMesh:
        """Positions, bases and texture coordinates mapped by a sparse matrix (M, N); the rest as it is."""
        def to_new(values):
            return (matrix @ values.reshape(len(values), -1)).reshape((matrix.shape[0],) + values.shape[1:])

        return FaceMesh(to_new(self.vertices), self.triangles, to_new(self.identity), to_new(self.expression),
                        self.kind, self.source_index, self.landmarks, None if self.uv is None else to_new(self.uv),
                        to_new(self.blendshapes), self.blendshape_names, to_new(self.recess))


def orthogonal_basis(modes: np.ndarray) -> np.ndarray:
    """The principal components of ``modes @ N(0, 1)``, each scaled by its standard deviation.

    With M = U S V^T the columns U S are orthogonal, longest first, and span what M spans; c =
    V^T a turns old coefficients into new ones, and normal ones stay normal.

    Args:
        modes: (N, 3, K), each scaled by the standard deviation of its coefficient.

    Returns:
        (N, 3, K') float64; components below 1e-6 of the first are left out. The entry of largest
        size of each is positive.
    """
    flat = np.asarray(modes, np.float64).reshape(-1, modes.shape[2])
    left, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    left, sizes = left[:, sizes > 1e-6 * sizes[0]], sizes[sizes > 1e-6 * sizes[0]]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(len(sizes))])
    return (left * (sizes * signs)).reshape(modes.shape[0], 3, len(sizes))
