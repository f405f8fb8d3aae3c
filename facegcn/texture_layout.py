"""Where a face model's surface lies in a texture image: texture coordinates of triangles, with seams.

A vertex on a seam has several places in the texture, so triangles count texture vertices of their own. Letters: N
vertices of the model, M texture vertices, F triangles, T texels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TextureLayout:
    """Where the surface lies in the texture.

    Attributes:
        uv: (M, 2) float32 in [0, 1], u right, v up: (0, 1) is the image's top left corner.
        triangles: (F, 3) int32 texture vertices, in the order and with the winding of the model's triangles.
        vertices: (M,) int32 the model's vertex of each texture vertex, so that ``vertices[triangles]`` are the model's
            triangles; arrays of the model's vertices are carried over as ``array[vertices]``.
    """

    uv: np.ndarray
    triangles: np.ndarray
    vertices: np.ndarray

    def texels(self, size: int) -> np.ndarray:
        """(M, 2) float64 texel coordinates, column and row, of an image of this size: row 0 is the top, texel i covers
        [i, i + 1)."""
        return np.asarray(self.uv, np.float64) * (size, -size) + (0.0, size)


def signed_areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Areas (F,) of triangles of points (M, 2) in a plane, positive where they are counter-clockwise with y up."""
    a, b, c = (points[corner] for corner in triangles.T)
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2.0
