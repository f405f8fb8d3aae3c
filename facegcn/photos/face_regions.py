"""Regions of a face in a crop, from its 468 dense landmarks.

The rows of a region's points are those of MediaPipe's published face mesh.
"""

from __future__ import annotations

import numpy as np

from facegcn.landmarks import DENSE_COUNT
from facegcn.photos.mask_shapes import hull, polygon

OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
EYES = ((33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466))
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
NOSTRILS = (64, 98, 97, 2, 326, 327, 294, 4)
_NOSE = (6, 122, 351, 198, 420, 48, 278, 64, 294, 2)
#: Where skin is bare on almost every face: cheeks, nose, the forehead's middle.
SAFE = ((50, 205, 101, 36), (280, 425, 330, 266), (4, 5, 195, 197), (9, 151, 108, 337))
_TOP, _CHIN, _NOSE_BASE, _NOSE_MIDDLE = 10, 152, 2, 195
_BROW_TOPS = (105, 334)
_UPPER = (389, 251, 284, 332, 297, 338, 10, 109, 67, 103, 54, 21, 162)  # of the oval, from temple to temple
#: Shares of ``FaceRegions.unit``, judged by eye: how far the forehead may go on above the oval, and margins around what
#: landmarks enclose, for they lie on edges.
_ABOVE, _EYE_MARGIN, _BROW_MARGIN, _LIP_MARGIN, _NOSE_MARGIN = 0.16, 0.035, 0.03, 0.025, 0.015
_LEAST_AREA = 64.0  # pixels of the oval, below which it is that of a speck


def check_dense(dense: np.ndarray) -> np.ndarray:
    """Landmarks (468, 3) as float64; raises ValueError for another shape or numbers that are not finite."""
    dense = np.asarray(dense, np.float64)
    if dense.shape != (DENSE_COUNT, 3) or not np.isfinite(dense).all():
        raise ValueError(f"expected finite landmarks ({DENSE_COUNT}, 3), got {dense.shape}")
    return dense


class FaceRegions:
    """Bool masks (H, W) of a face's parts.

    Attributes:
        unit: side of the square that is as large as the oval, pixels.
        up: (2,) unit vector from chin to forehead.
        oval: the face up to about the hair line.
        outline: the oval, and the forehead above it as far as it may reach.
        eyes, brows: pairs, left in the picture first, with a margin.
        lips: with all that they enclose.
        nostrils: the nose's lower side.
        below: below the nose: where beards grow.
        nose: from the eyes down.
        above_cheeks: the picture above the nose's lower third.
        above_brows: the picture above the brows.
    """

    def __init__(self, dense: np.ndarray, shape: tuple[int, int]):
        """Draws the regions.

        Args:
            dense: (468, 3) x, y and trust (``alignment.AlignedPhoto.dense``).
            shape: height and width of the crop.

        Raises:
            ValueError: dense is of another shape or not finite.
        """
        dense = check_dense(dense)
        self.points, self.trust, self.shape = dense[:, :2], dense[:, 2], tuple(shape)
        border = self.points[list(OVAL)]
        x, y = border.T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2.0
        self.unit = float(np.sqrt(max(area, _LEAST_AREA)))
        axis = self.points[_TOP] - self.points[_CHIN]
        self.up = axis / max(np.linalg.norm(axis), 1e-6)
        self.centre = border.mean(axis=0)
        self.oval = polygon(shape, border)
        self.outline = self.oval | self._forehead()
        self.eyes = [self._part(part, _EYE_MARGIN) for part in EYES]
        self.brows = [self._part(part, _BROW_MARGIN) for part in BROWS]
        self.lips, self.nostrils = self._part(LIPS, _LIP_MARGIN), self._part(NOSTRILS, _NOSE_MARGIN)
        right, down = self.coordinates()
        self.below = self.oval & (down > self._drop(_NOSE_BASE))
        self.above_cheeks = down < self._drop(_NOSE_MIDDLE)
        self.nose = self._part(_NOSE, 0.0)
        self.above_brows = down < max(map(self._drop, _BROW_TOPS))

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) float32 each: right and down from the oval's middle along the face's axes, in units."""
        rows, columns = np.indices(self.shape, dtype=np.float32)
        x, y = columns + np.float32(0.5 - self.centre[0]), rows + np.float32(0.5 - self.centre[1])
        up = np.float32(self.up / self.unit)
        return -up[1] * x + up[0] * y, -up[0] * x - up[1] * y

    def safe(self) -> list[np.ndarray]:
        """Masks of the patches where skin is bare on almost every face, of those that are in sight."""
        patches = []
        for part in SAFE:
            rows = [row for row in part if self.trust[row] > 0.0]
            if len(rows) >= 3:
                patches.append(self._part(rows, 0.02))
        return patches

    def around(self, region: np.ndarray, width: float) -> np.ndarray:
        """The oval's part beside a region, as near as ``width`` units, without eyes, brows and lips."""
        grown = hull(self.shape, np.argwhere(region)[:, ::-1] + 0.5, width * self.unit) if region.any() else region
        return grown & self.oval & ~self.features()

    def features(self) -> np.ndarray:
        """Eyes, brows, lips and nostrils together."""
        return np.any([*self.eyes, *self.brows, self.lips, self.nostrils], axis=0)

    def _drop(self, row):
        """Units that a point lies below the oval's middle."""
        return float((self.points[row] - self.centre) @ -self.up) / self.unit

    def _part(self, rows, margin):
        return hull(self.shape, self.points[list(rows)], margin * self.unit)

    def _forehead(self):
        line = self.points[list(_UPPER)]
        # The middle goes up farthest, the temples stay.
        rise = np.sin(np.linspace(0.0, np.pi, len(line)))[:, None] * _ABOVE * self.unit * self.up
        return polygon(self.shape, np.vstack([line, (line + rise)[::-1]]))
