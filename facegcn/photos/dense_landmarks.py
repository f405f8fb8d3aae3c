"""468 points of a face by MediaPipe's landmark network (Y. Kartynnik et al. 2019): places, trust, visibility.

The network sees 192 x 192 pixels with the face upright in the middle. Beside the points it says how much like a face
its picture is, as a logit that this module calls the presence; it tells which way up a face is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from facegcn.landmarks import DENSE_COUNT, FIVE_POINT_DENSE, roll
from facegcn.photos import litert
from facegcn.photos.surface import outward_normals
from facegcn.photos.warping import Pyramid, inverse, scale_of, similarity, transform_points, turn

SIDE = 192  # pixels of the network's picture
AROUND = 1.5  # side of that picture in larger sides of the face [Kartynnik et al. 2019: 25 percent on each side]
#: Presence from which a picture shows a face, and from which nothing else needs to be tried. 96 made portraits have
#: 8 to 56, nine in ten above 24; turned by a quarter or a half 11 at the most, nineteen in twenty below 7. Of 18
#: pictures without a face the surest place has 4.5: a cat's.
FACE, SURE = 6.0, 18.0
#: The first look finds where the face is, each of the others looks there. From first regions a third apart the points
#: are 0.3 percent of the width of the face apart after three looks, 0.15 after four (median of made portraits).
_LOOKS = 4
#: Side of a face's box in the standard deviation of its points along it: 4.2 to 4.5 on made portraits, of any yaw.
_SIDE_OF_SPREAD = 4.4
#: Another look for the trust: the face turned by these degrees and larger by this factor in the network's picture.
_TURNED, _LARGER = 8.0, 1.12
_STEADY = 0.02  # of the face's larger side: a point that moves so far between two looks is trusted by half
_GRAZING, _PLAIN = 0.1, 0.5  # z of unit normals: below the first a point is hidden, from the second it is seen plainly
#: Of the five points: sides of the network's picture in the larger of eye distance and eyes to mouth.
_AROUND_FIVE = 3.6
_LEAST_LENGTH = 4.0  # pixels of that length, below which points are those of a speck
_ASTRAY = 0.25  # of the face's larger side: points so far from the user's, on the mean, are another face's


class DenseLandmarks(NamedTuple):
    """The points of one face.

    Attributes:
        points: (468, 2) float32 pixels of the picture, x right, y down, (0, 0) the picture's corner.
        depth: (468,) float32 the network's z, pixels of the same length, smaller is nearer to the camera; 0 is near the
            head's middle.
        trust: (468,) float32 in [0, 1]; 0 where a point is hidden or outside of the picture, else high where it is seen
            plainly and two looks agree.
        visible: (468,) bool; False where the face turns away from the camera, and outside of the picture.
    """

    points: np.ndarray
    depth: np.ndarray
    trust: np.ndarray
    visible: np.ndarray

    def five_points(self) -> np.ndarray:
        """(5, 2) float32 alignment points: eyes' middles, nose's tip, corners of the mouth."""
        return five_of(self.points)

    def with_trust(self, transform: np.ndarray) -> np.ndarray:
        """(468, 3) float32: x and y carried through a (2, 3) transform, and trust."""
        return np.column_stack([transform_points(self.points, transform), self.trust]).astype(np.float32)


class Region(NamedTuple):
    """A square of the picture that the network looks at: centre (2,), side in pixels, roll in degrees."""

    centre: np.ndarray
    side: float
    roll: float

    @property
    def size(self) -> float:
        """Larger side of the face that it is around, pixels."""
        return self.side / AROUND

    def transform(self) -> np.ndarray:
        """(2, 3): pixels of the picture to those that the network sees."""
        return similarity(SIDE / self.side, -self.roll, self.centre, SIDE / 2.0)


class Look(NamedTuple):
    """What the network saw.

    Attributes:
        points: (468, 3) float64, x and y in pixels of the picture, z of the same length.
        presence: logit of there being an upright face.
    """

    points: np.ndarray
    presence: float

    @property
    def roll(self) -> float:
        """Of the head, degrees, see ``landmarks.roll``."""
        return roll(five_of(self.points[:, :2]))

    @property
    def size(self) -> float:
        """About the larger side of the box around the upright points, pixels; from all points, and so steadier."""
        spread = (self.points[:, :2] @ turn(self.roll)).std(axis=0)
        return _SIDE_OF_SPREAD * max(1e-6, float(spread.max()))

    def region(self) -> Region:
        """The square around the points, turned as they are."""
        return Region(self.points[:, :2].mean(axis=0), AROUND * self.size, self.roll)


def five_of(points: np.ndarray) -> np.ndarray:
    """(5, D) alignment points of (468, D)."""
    return np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINT_DENSE])


def look(picture: Pyramid, region: Region) -> Look:
    """One look of the network at a region of a picture (H, W, 3) uint8."""
    transform = region.transform()
    values, presence = litert.run("face_landmark", np.float32(picture.view(transform, SIDE)) / np.float32(255.0))
    values = values.reshape(DENSE_COUNT, 3).astype(np.float64)
    places = values[:, :2] @ inverse(transform)[:, :2].T + inverse(transform)[:, 2]
    return Look(np.column_stack([places, values[:, 2] / scale_of(transform)]), float(presence.ravel()[0]))


def settled(picture: Pyramid, seen: Look) -> Look:
    """The face looked at again where the look before saw it, until the network sees it as it was trained to."""
    for _ in range(_LOOKS - 1):
        seen = look(picture, seen.region())
    return seen


def landmarks_of(picture: Pyramid, seen: Look) -> DenseLandmarks:
    """The points of a face that a settled look has found, after one more look that shows how steady they are."""
    region = seen.region()
    again = look(picture, Region(region.centre, region.side / _LARGER, region.roll + _TURNED))
    points = (seen.points + again.points) / 2.0
    moved = np.linalg.norm(again.points[:, :2] - seen.points[:, :2], axis=1) / seen.size
    facing = -outward_normals(points)[:, 2]  # the camera looks along z
    places = points[:, :2].astype(np.float32)
    inside = ((places >= 0) & (places <= picture.shape[::-1])).all(axis=1)
    visible = (facing > _GRAZING) & inside
    plain = np.clip((facing - _GRAZING) / (_PLAIN - _GRAZING), 0.0, 1.0)
    sure = np.clip(min(seen.presence, again.presence) / SURE, 0.0, 1.0)
    trust = visible * plain * sure / (1.0 + (moved / _STEADY) ** 2)
    return DenseLandmarks(places, points[:, 2].astype(np.float32), trust.astype(np.float32), visible)


def landmarks_at(image: np.ndarray, five: np.ndarray) -> DenseLandmarks | None:
    """The points of the face whose alignment points are known.

    Args:
        image: (H, W, 3) uint8.
        five: (5, 2) pixels, such as the user's.

    Returns:
        None where the network sees no face there, or another one.
    """
    five = np.asarray(five, np.float64)
    eyes, mouth = five[:2].mean(axis=0), five[3:].mean(axis=0)
    length = max(np.linalg.norm(five[1] - five[0]), np.linalg.norm(mouth - eyes))
    if not np.isfinite(five).all() or length < _LEAST_LENGTH:
        return None
    picture = Pyramid(image)
    seen = settled(picture, look(picture, Region((eyes + mouth) / 2.0, _AROUND_FIVE * length, roll(five))))
    if seen.presence < FACE or np.linalg.norm(five_of(seen.points[:, :2]) - five, axis=1).mean() > _ASTRAY * seen.size:
        return None
    return landmarks_of(picture, seen)
