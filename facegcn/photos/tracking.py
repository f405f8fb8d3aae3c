"""One face followed through the frames of a film.

The landmark network looks where the face was in the frame before, which needs no detector. The whole frame is searched
only where there is no such face, or where it has leapt, as it does at a cut; and not in every frame, since a frame
without a face is searched the longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from facegcn.photos.dense_landmarks import FACE, DenseLandmarks, Look, Region, landmarks_of, look
from facegcn.photos.detection import find_faces
from facegcn.photos.warping import Pyramid

SEARCH_EVERY = 0.25  # seconds of the film from one search to the next while there is no face, at most
_SHARE = 0.5  # of the time since it was lost: soon after, it is searched more often
_LOOK_AGAIN = 0.08  # of the face's size: a face that moved so far from the region is looked at again, in its own
_LEAP = 0.5  # of the face's size, and of its logarithm: no head moves so far from frame to frame
_LOOKS = 3


class Followed(NamedTuple):
    """The face in one frame.

    Attributes:
        dense: its points.
        region: where the network saw it.
        anew: it was searched for: it may be another face than that of the frame before.
    """

    dense: DenseLandmarks
    region: Region
    anew: bool


class FaceTracker:
    """Follows one face.

    Args:
        accept: whether, in a picture (h, w, 3), the points of a face that a search found are those of the face that is
            meant; of several that are, the one nearest to where it was last seen is followed, else the largest.
    """

    def __init__(self, accept: Callable[[np.ndarray, DenseLandmarks], bool]):
        self._accept = accept
        self._region: Region | None = None
        self._last: Region | None = None
        self._lost: float | None = None  # since when
        self._searched = -np.inf

    def __call__(self, image: np.ndarray, time: float) -> Followed | None:
        """The face in the next frame.

        Args:
            image: (h, w, 3) uint8 RGB.
            time: seconds at which it is shown.

        Returns:
            None where it is not seen.

        Raises:
            UserError: see ``litert.run``.
        """
        if self._region is not None:
            found = self._followed(Pyramid(image))
            if found is not None:
                return self._kept(found)
            self.lose()
        if self._lost is None:
            self._lost = time
        if time - self._searched < min(SEARCH_EVERY, _SHARE * (time - self._lost)):
            return None
        self._searched = time
        return self._kept(self._found(image))

    def lose(self) -> None:
        """Forgets the face: it turned out to be another one."""
        self._region, self._lost = None, None

    def _kept(self, found):
        if found is not None:
            self._region = self._last = found.region
        return found

    def _followed(self, picture) -> Followed | None:
        """The face near where it was, or None."""
        region = self._region
        for _ in range(_LOOKS):
            seen = look(picture, region)
            if seen.presence < FACE:
                return None
            near = region
            region = seen.region()
            if np.linalg.norm(region.centre - near.centre) < _LOOK_AGAIN * near.size:
                break
        if _apart(region, self._region) > _LEAP:
            return None
        return Followed(landmarks_of(picture, seen), region, False)

    def _found(self, image) -> Followed | None:
        """The face that is meant among all of a frame, or None."""
        faces = find_faces(image)
        regions = [_around(face.dense) for face in faces]
        order = range(len(faces))
        if self._last is not None:
            order = sorted(order, key=lambda k: _apart(regions[k], self._last))
        for k in order:
            if faces[k].confidence >= 1.0 and self._accept(image, faces[k].dense):
                return Followed(faces[k].dense, regions[k], True)
        return None


def _around(dense: DenseLandmarks) -> Region:
    """The region that the network would look at next."""
    return Look(np.column_stack([dense.points, dense.depth]).astype(np.float64), 0.0).region()


def _apart(one: Region, other: Region) -> float:
    """How far two regions are from each other, in sizes of the face; their sizes differ by as much, logarithmically."""
    return float(max(np.linalg.norm(one.centre - other.centre) / max(one.size, other.size),
                     abs(np.log(one.size / other.size))))
