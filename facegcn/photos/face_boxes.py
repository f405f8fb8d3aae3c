"""Where faces may be in a picture: MediaPipe's detector for cameras at the back of a phone, on tiles of a pyramid.

The detector (V. Bazarevsky et al. 2019, "BlazeFace") sees 256 x 256 pixels and answers at 896 anchors: two at each cell
of a grid of 16 pixels, six at each of 32. It finds faces from 20 of its pixels up to all of them, of any roll, though
the points it gives of a face that stands on its head are an upright one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from facegcn.photos import litert
from facegcn.photos.warping import Pyramid, inverse, scale_of, similarity, transform_points

SIDE = 256  # pixels of the detector's picture
_GRIDS = ((16, 2), (32, 6))  # width of a cell, pixels; anchors in it
_LEAST_SCORE = 0.3  # turned faces have as little; what is no face is sorted out by the landmarks
_SAME = 0.3  # intersection over union from which two boxes are one face's
_STRIDE = 192  # pixels between tiles: a face that is cut by one lies whole in the next, or in the level above
_GREATEST_LOGIT = 80.0


class FaceBox(NamedTuple):
    """What may be a face.

    Attributes:
        centre: (2,) pixels.
        size: larger side of its box, pixels: brows to chin.
        eyes: (2, 2) pixels, the eyes as they follow each other in the picture, from the left where it is upright.
        score: the detector's, in [0, 1].
    """

    centre: np.ndarray
    size: float
    eyes: np.ndarray
    score: float

    @property
    def roll(self) -> float:
        """Of the line of the eyes, degrees, as ``landmarks.roll``."""
        across = self.eyes[1] - self.eyes[0]
        return float(np.degrees(np.arctan2(across[1], across[0])))

    def moved(self, transform: np.ndarray) -> FaceBox:
        """The box carried through a (2, 3) similarity."""
        return FaceBox(transform_points(self.centre[None], transform)[0], self.size * scale_of(transform),
                       transform_points(self.eyes, transform), self.score)


def anchors() -> np.ndarray:
    """(896, 2) float32 centres of the detector's anchors, pixels of its picture."""
    centres = []
    for cell, count in _GRIDS:
        rows, columns = np.indices((SIDE // cell, SIDE // cell))
        grid = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        centres.append(np.repeat((grid + 0.5) * cell, count, axis=0))
    return np.concatenate(centres).astype(np.float32)


_ANCHORS = anchors()


def boxes_in_tile(tile: np.ndarray) -> list[FaceBox]:
    """What may be faces in a picture (256, 256, 3) uint8, surest first, each once; pixels of it."""
    values, logits = litert.run("face_detection_back", np.float32(tile) / np.float32(127.5) - np.float32(1.0))
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits[:, 0], -_GREATEST_LOGIT, _GREATEST_LOGIT)))
    likely = np.flatnonzero(scores >= _LEAST_SCORE)
    # A row is the box's middle, its extent and six points; places count from the anchor.
    rows = values[likely].reshape(-1, 8, 2)
    found = [FaceBox(row[0] + anchor, float(row[1].max()), row[2:4] + anchor, float(score))
             for row, anchor, score in zip(rows, _ANCHORS[likely], scores[likely]) if row[1].min() > 0]
    return each_once(found)


def each_once(boxes: list[FaceBox]) -> list[FaceBox]:
    """The surest box of each that overlap, surest first (non-maximum suppression)."""
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box, other) < _SAME for other in kept):
            kept.append(box)
    return kept


def overlap(one: FaceBox, other: FaceBox) -> float:
    """Intersection over union of the squares of two boxes."""
    low = np.maximum(one.centre - one.size / 2.0, other.centre - other.size / 2.0)
    high = np.minimum(one.centre + one.size / 2.0, other.centre + other.size / 2.0)
    both = float(np.prod(np.maximum(0.0, high - low)))
    return both / (one.size ** 2 + other.size ** 2 - both)


def boxes_in_whole(picture: Pyramid, degrees: float = 0.0, share: float = 1.0) -> list[FaceBox]:
    """What may be faces in a whole picture.

    Args:
        picture: (H, W, 3) uint8.
        degrees: it is looked at turned by this, as ``warping.turn``.
        share: of the detector's picture that it fills.
    """
    extent = np.array(picture.shape[::-1])
    turned = np.abs(similarity(1.0, degrees, np.zeros(2), np.zeros(2))[:, :2]) @ extent
    transform = similarity(SIDE * share / turned.max(), degrees, extent / 2.0, SIDE / 2.0)
    back = inverse(transform)
    return [box.moved(back) for box in boxes_in_tile(picture.view(transform, SIDE))]


def level_shape(shape, width: float) -> tuple[int, int]:
    """(height, width) of a picture of ``shape`` (H, W) reduced so that tiles show ``width`` of its pixels."""
    return tuple(max(SIDE, round(side * SIDE / width)) if side > width else round(side * SIDE / width) or 1
                 for side in shape[:2])


def tile_places(shape) -> list[tuple[int, int]]:
    """(top, left) of the tiles that cover a reduced picture of ``shape`` (H, W)."""
    starts = [sorted({*range(0, max(1, side - SIDE), _STRIDE), max(0, side - SIDE)}) for side in shape[:2]]
    return [(top, left) for top in starts[0] for left in starts[1]]


def tile_count(shape, width: float) -> int:
    """How many tiles ``boxes_in_tiles`` looks at in a picture of ``shape`` (H, W)."""
    return len(tile_places(level_shape(shape, width)))


def boxes_in_tiles(picture: Pyramid, width: float) -> list[FaceBox]:
    """What may be faces in a picture that is cut into tiles, surest first.

    Args:
        picture: (H, W, 3) uint8.
        width: pixels of the picture that a tile shows; faces from a twelfth of it to a quarter are found for sure.
    """
    height, columns = level_shape(picture.shape, width)
    reduced = cv2.resize(picture.level(SIDE / width)[0], (columns, height), interpolation=cv2.INTER_AREA)
    scale = np.array([columns, height]) / picture.shape[::-1]
    found = []
    for top, left, tile in _tiles(reduced):
        found += [FaceBox((box.centre + (left, top)) / scale, box.size / scale.mean(), (box.eyes + (left, top)) / scale,
                          box.score) for box in boxes_in_tile(tile)]
    return each_once(found)


def _tiles(reduced: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """(top, left, (256, 256, 3)) of every tile, black where the picture ends."""
    for top, left in tile_places(reduced.shape):
        tile = reduced[top:top + SIDE, left:left + SIDE]
        below, right = SIDE - tile.shape[0], SIDE - tile.shape[1]
        yield top, left, cv2.copyMakeBorder(tile, 0, below, 0, right, cv2.BORDER_CONSTANT) if below or right else tile
