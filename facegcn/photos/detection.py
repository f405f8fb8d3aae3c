"""Five points of the largest face in a photo, by MTCNN (K. Zhang et al. 2016).

MTCNN knows upright faces. It finds heads rolled by up to 45 degrees with points that are a tenth of a face off, misses
most beyond 60, and takes one in eight faces that stand on their heads for upright ones (16 portraits, each in 13
rotations). So every face gets a second look: its surroundings, turned upright by its own points, and by 90, 180 and
270 degrees more; the surest of the four counts. The whole photo is turned only when no face was confirmed. In those 208
pictures and 64 small ones every face was found and none turned wrongly; the points of rolled heads are off by 3 percent
of the way from eyes to mouth. A second look takes half as long as a first one, a photo without a face eight first ones.
"""

from __future__ import annotations

import functools
import threading
from typing import NamedTuple

import cv2
import numpy as np

from facegcn.landmarks import roll
from facegcn.photos.warping import inverse, scale_of, similarity, transform_points, turn, warp

MTCNN_KEYS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
#: Longer side, pixels, that photos are reduced to: for the first look, and for one more when it found nothing. MTCNN
#: seeks faces from 20 pixels on, so the second finds a face of 60 in a photo of 9,000; it takes about 8 s and 1 GB
#: (2 busy cores).
_PIXELS, _MORE_PIXELS = 1024, 3072
_LEAST_SIDE = 64  # pixels; smaller pictures get a black border: MTCNN's pyramid has no level for them
_CONFIDENCE = 0.9  # detections below it are not counted as faces
_SURE = 0.97  # confidence of a second look that confirms a face; upright portraits have 0.98 and more
_SURER = 0.001  # by which another direction must be surer, in the sum of two looks
_LOOK_WIDTHS, _LOOK_AROUND = (80, 120), 1.8  # of the second look: the face's widths, pixels; the picture's, in faces
_UPRIGHT = 45.0  # degrees of roll up to which a face counts as upright: beyond, another quarter turn is nearer
_EXACT_ROLL = 15.0  # degrees up to which the points of a first look that was as near are as good as the second's
#: Degrees by which a photo without an upright face is turned; each row only when the one before found nothing.
_DIRECTIONS = (90.0, 180.0, 270.0), (45.0, 135.0, 225.0, 315.0)
_DETECTING = threading.Lock()


class Detection(NamedTuple):
    """What the face detector saw: the largest face's (5, 2) points or None, and the face count."""

    points: np.ndarray | None
    count: int


class _Face(NamedTuple):
    """A face that MTCNN found.

    Attributes:
        points: (5, 2), pixels; MTCNN names whole pixels of the picture that it sees.
        centre: (2,) of its box.
        width: larger side of its box, pixels.
        seen: the same in pixels of the picture that MTCNN saw.
        confidence: MTCNN's, in [0, 1].
    """

    points: np.ndarray
    centre: np.ndarray
    width: float
    seen: float
    confidence: float

    def moved(self, transform: np.ndarray) -> _Face:
        """The face carried through a (2, 3) similarity."""
        return self._replace(points=transform_points(self.points, transform), width=self.width * scale_of(transform),
                             centre=transform_points(self.centre[None], transform)[0])


def detect_landmarks(image: np.ndarray) -> Detection:
    """Finds faces, whichever way up the photo is.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        the points of the largest face, in pixels of ``image``, and how many faces there are.
    """
    found = _faces(image, _PIXELS)
    if not found and max(image.shape[:2]) > _PIXELS:
        found = _faces(image, _MORE_PIXELS)
    face = _second_look(image, found)
    if face is not None:
        return Detection(face.points, len(found))
    for directions in _DIRECTIONS:
        turned = [_turned_look(image, degrees) for degrees in directions]
        if any(turned):
            face, count = max(filter(None, turned), key=lambda look: look[0].confidence)
            return Detection(face.points, count)
    return Detection(_largest(found).points, len(found)) if found else Detection(None, 0)


def _turned_look(image, degrees: float) -> tuple[_Face, int] | None:
    """The face found and confirmed in the turned photo, in pixels of the photo as it is; and the count."""
    extent = np.array(image.shape[1::-1])
    side = (np.abs(turn(degrees)) @ extent).max()
    scale = min(1.0, _PIXELS / side)
    size = max(1, round(side * scale))
    transform = similarity(scale, degrees, extent / 2.0, size / 2.0)
    picture = warp(image, transform, size)
    found = _faces(picture, size)
    face = _second_look(picture, found)
    # Only what stands upright in the turned photo: else another turn shows it better.
    if face is None or abs(roll(face.points)) > _UPRIGHT:
        return None
    return face.moved(inverse(transform)), len(found)


def _second_look(image, found: list[_Face]) -> _Face | None:
    """The largest face seen again, upright; None when there is none or no direction shows one for sure."""
    if not found:
        return None
    face = _largest(found)
    rolled = roll(face.points)
    looks = [_look(image, face, 90.0 * quarters - rolled, _LOOK_WIDTHS[0]) for quarters in range(4)]
    best = int(np.argmax([_confidence(look) for look in looks]))
    if best != 0:
        # One look's confidence is uncertain by a hundredth: two must say that the first sight was wrong.
        again = [_look(image, face, 90.0 * quarters - rolled, _LOOK_WIDTHS[1]) for quarters in (0, best)]
        sums = [_confidence(one) + _confidence(other) for one, other in zip((looks[0], looks[best]), again)]
        best = 0 if sums[1] < sums[0] + _SURER else best
    if _confidence(looks[best]) < _SURE:
        return None
    as_exact = best == 0 and abs(rolled) <= _EXACT_ROLL and face.seen >= _LOOK_WIDTHS[0]
    return face if as_exact else looks[best]


def _look(image, face: _Face, degrees: float, width: int) -> _Face | None:
    """The face as it is seen when its surroundings are turned, its width made ``width`` pixels; None when it is not
    seen, or not upright."""
    size = round(width * _LOOK_AROUND)
    transform = similarity(width / face.width, degrees, face.centre, size / 2.0)
    seen = [other for other in _faces(warp(image, transform, size), size)
            if np.abs(other.centre - size / 2.0).max() < other.width / 2.0 and abs(roll(other.points)) <= _UPRIGHT]
    return max(seen, key=_confidence).moved(inverse(transform)) if seen else None


def _confidence(face: _Face | None) -> float:
    return 0.0 if face is None else face.confidence


def _largest(faces: list[_Face]) -> _Face:
    return max(faces, key=lambda face: face.width)


def _faces(image, pixels: int) -> list[_Face]:
    """The faces of a picture that is looked at with at most ``pixels`` on its longer side."""
    height, width = image.shape[:2]
    scale = min(1.0, pixels / max(height, width))
    if scale < 1.0:
        image = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))),
                           interpolation=cv2.INTER_AREA)
    below, right = (max(0, _LEAST_SIDE - side) for side in image.shape[:2])
    if below or right:
        image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)
    with _DETECTING:  # one at a time: the detector keeps its state in itself
        found = _detector().detect_faces(image) or []
    faces = []
    for face in found:
        left, top, wide, high = face["box"]
        if face["confidence"] >= _CONFIDENCE and min(wide, high) > 0:
            # MTCNN names pixels, whose centres lie half a pixel from their corners.
            points = np.array([face["keypoints"][key] for key in MTCNN_KEYS], np.float32) + np.float32(0.5)
            faces.append(_Face(points / np.float32(scale), np.array([left + wide / 2.0, top + high / 2.0]) / scale,
                               max(wide, high) / scale, max(wide, high), float(face["confidence"])))
    return faces


@functools.cache
def _detector():
    """The one MTCNN of this process: loading takes longer than looking."""
    import tensorflow as tf
    from mtcnn import MTCNN
    from mtcnn.stages import StageONet, StagePNet, StageRNet

    class Candidates:
        """Stands before a network: without candidates MTCNN lets TensorFlow fail, and log it, to end its search."""

        def __call__(self, bboxes_batch, **_):
            if not len(bboxes_batch):
                raise tf.errors.InvalidArgumentError(None, None, "no candidates")
            return bboxes_batch

    return MTCNN(stages=[StagePNet, Candidates, StageRNet, Candidates, StageONet], device="CPU:0")
