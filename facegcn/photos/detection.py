"""All faces of a photo with their points, whichever way up it is, by MediaPipe's detector and landmark network.

The detector fires at faces of any roll, and takes many that stand on their heads for upright ones. What decides is the
landmark network's presence (``dense_landmarks``): a face that is not seen surely is looked at in four directions, and
the surest counts. The whole photo is looked at first; a closer look, turned ones and tiles of a pyramid follow while
no face is sure. Once one is, tiles are looked at only for faces down to two fifths of its size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from facegcn.photos.dense_landmarks import AROUND, FACE, SURE, DenseLandmarks, Look, Region, landmarks_of, look, settled
from facegcn.photos.face_boxes import SIDE, FaceBox, boxes_in_tiles, boxes_in_whole, tile_count
from facegcn.photos.warping import Pyramid

_CLOSER = 0.5  # share of the detector's picture that a photo fills which may show a part of a face only
_DIRECTIONS = (90.0, 180.0, 270.0, 45.0, 135.0, 225.0, 315.0)  # degrees by which the whole photo is turned
_SMALLEST_TOLD = 5.0  # widths of the largest face that a tile shows when no smaller faces are sought
_MOST_TILES = 400  # of a level of the pyramid: 2 s and 80 MB (one busy core)
_MOST_BOXES = 64  # that are looked at in one level, the surest first
_SAME = 0.4  # of the larger face's size: centres so near are one face's


class Face(NamedTuple):
    """A face in a photo.

    Attributes:
        points: (5, 2) float32 alignment points, pixels of the photo.
        dense: all points.
        box: left, top, width and height of the points, pixels.
        confidence: in [0, 1]; 1 where nothing but an upright face looks so.
    """

    points: np.ndarray
    dense: DenseLandmarks
    box: tuple[float, float, float, float]
    confidence: float


def find_faces(image: np.ndarray) -> list[Face]:
    """All faces of a photo, the largest first.

    A face of 20 pixels in 256 of the photo's longer side is found at the first look (20 ms). Without one, smaller faces
    are: 130 pixels in 8,000 x 6,000 after 0.7 s, 60 after 2.4 s; no face takes 3.5 s and 80 MB there (one busy core).

    Args:
        image: (H, W, 3) uint8 RGB.

    Raises:
        UserError: see ``litert.run``.
    """
    picture = Pyramid(image)
    known: list[Look] = []
    _judge(picture, boxes_in_whole(picture), known)
    if not _is_sure(known):
        _judge(picture, boxes_in_whole(picture, share=_CLOSER), known)
    for degrees in _DIRECTIONS:
        if not _is_sure(known):
            _judge(picture, boxes_in_whole(picture, degrees), known)
    for width in _tile_widths(picture.shape):
        if _is_sure(known) and width <= _SMALLEST_TOLD * max(seen.size for seen in known if seen.presence >= SURE):
            break
        _judge(picture, boxes_in_tiles(picture, width), known)
    return [_face(picture, seen) for seen in sorted(known, key=lambda seen: -seen.size)]


def _face(picture, seen: Look) -> Face:
    dense = landmarks_of(picture, seen)
    low, high = dense.points.min(axis=0), dense.points.max(axis=0)
    return Face(dense.five_points(), dense, (*map(float, low), *map(float, high - low)),
                float(np.clip(seen.presence / SURE, 0.0, 1.0)))


def _is_sure(known: list[Look]) -> bool:
    return any(seen.presence >= SURE for seen in known)


def _tile_widths(shape) -> list[float]:
    """Pixels of a photo that the tiles of each level show: halves, while there are not too many of them."""
    widths, width = [], max(shape[:2]) / 2.0
    while width >= SIDE and tile_count(shape, width) <= _MOST_TILES:
        widths.append(width)
        width /= 2.0
    return widths


def _judge(picture, boxes: list[FaceBox], known: list[Look]) -> None:
    """Adds those boxes that show faces which are not known yet; of two looks at one face the surer stays."""
    for box in boxes[:_MOST_BOXES]:
        if any(seen.presence >= SURE and _same(box, seen.region()) for seen in known):
            continue
        seen = _surest_look(picture, box)
        same = [other for other in known if _same(seen.region(), other.region())]
        if seen.presence >= max([FACE, *(other.presence for other in same)]):
            known[:] = [other for other in known if all(other is not one for one in same)] + [seen]


def _same(one: FaceBox | Region, other: FaceBox | Region) -> bool:
    """Whether two boxes, or the regions around them, are one face's."""
    return bool(np.linalg.norm(one.centre - other.centre) < _SAME * max(one.size, other.size))


def _surest_look(picture, box: FaceBox) -> Look:
    """The look at a face, in the direction in which it is the surest."""
    def first(quarters):
        return look(picture, Region(box.centre, AROUND * box.size, box.roll + 90.0 * quarters))

    seen = first(0)
    if seen.presence >= FACE:
        seen = settled(picture, seen)
        if seen.presence >= SURE:
            return seen
    others = sorted((first(quarters) for quarters in (1, 2, 3)), key=lambda one: -one.presence)
    return max([seen, *(settled(picture, one) for one in others[:2])], key=lambda one: one.presence)
