"""The texels of a layout: which triangle each shows, and what fills the gaps between the islands.

Letters: F triangles, T texels a side, K covered texels, G texels of the gaps.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from facegcn.backends import baking_kernel
from facegcn.errors import UserError
from facegcn.rasterizer import rasterize_numpy
from facegcn.texture_layout import TextureLayout

SMALLEST, LARGEST = 16, 8192  # texels a side
_STRIP = 1024  # rows drawn at a time: a whole large image takes much memory


class Texels(NamedTuple):
    """The texels of a square texture, by their number row T + column.

    Attributes:
        size: T.
        index: (K,) int32 the covered ones: those whose centre lies in a triangle.
        triangles: (K,) int32 their triangles.
        shares: (K, 2) float32 weights of the triangle's first two corners at the texel's centre.
        gaps: (G,) int32 all others.
        nearest: (G,) int32 the covered texel that is nearest to each.
    """

    size: int
    index: np.ndarray
    triangles: np.ndarray
    shares: np.ndarray
    gaps: np.ndarray
    nearest: np.ndarray

    def fill_gaps(self, image: np.ndarray) -> None:
        """Gives each texel of the gaps the value of the nearest covered one, so that neither smoothing nor mipmaps
        bring in anything that is no surface. The image (T T,) or (T T, C) lies in memory row by row."""
        baking_kernel.fill(self.gaps, self.nearest, image.reshape(len(image), -1))

    @property
    def covered(self) -> np.ndarray:
        """(T, T) bool: the texel shows the surface."""
        found = np.zeros(self.size * self.size, bool)
        found[self.index] = True
        return found.reshape(self.size, self.size)


def texels_of(layout: TextureLayout, size: int) -> Texels:
    """The texels of a layout.

    Args:
        layout: the layout.
        size: T.

    Raises:
        UserError: no sensible size, or the layout covers no texel.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"the texture size must be from {SMALLEST} to {LARGEST} texels, got {size}: 2048 suits most")
    strips = [_strip(layout, size, first, min(_STRIP, size - first)) for first in range(0, size, _STRIP)]
    index, triangles, shares = (np.concatenate(parts) for parts in zip(*strips))
    if not len(index):
        raise UserError(f"the texture layout covers no texel of {size} x {size}: leave 'uv' out of the model file, and "
                        "a layout is made")
    return Texels(size, index, triangles, shares, *_gaps(index, size))


def _strip(layout, size, first, rows):
    """Index, triangles and shares of the covered texels of some rows."""
    places = layout.texels(size)
    clip = np.column_stack([places[:, 0] * (2.0 / size) - 1.0, 1.0 - (places[:, 1] - first) * (2.0 / rows),
                            np.zeros(len(places)), np.ones(len(places))])
    ids, barycentrics, _ = rasterize_numpy(clip, layout.triangles, rows, size)
    index = np.flatnonzero(ids >= 0).astype(np.int32)
    return index + np.int32(first * size), ids.ravel()[index], barycentrics.reshape(-1, 3)[index, :2]


def _gaps(index, size):
    """The texels that are not covered, and the nearest covered one of each."""
    open_ = np.ones(size * size, np.uint8)
    open_[index] = 0
    gaps = np.flatnonzero(open_).astype(np.int32)
    if not len(gaps):
        return gaps, gaps
    _, labels = cv2.distanceTransformWithLabels(open_.reshape(size, size), cv2.DIST_L2, 5,
                                                labelType=cv2.DIST_LABEL_PIXEL)
    labels = labels.ravel()
    of_label = np.zeros(labels.max() + 1, np.int32)
    of_label[labels[index]] = index
    return gaps, of_label[labels[gaps]]
