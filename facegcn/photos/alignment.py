"""From a photo and its points to the aligned crop.

Alignment follows Deng et al. 2019 ("Accurate 3D Face Reconstruction with Weakly-Supervised Learning"): scale and
translation only, no rotation. Their networks were trained on heads that are nearly upright, ours too, and a head rolled
by 45 degrees gives rubbish. So a head rolled by more than ``TURN_ABOVE`` degrees is turned upright, all the way, by the
line of its eyes, its mouth and the axis between them; the crop's transform then holds that rotation, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from facegcn.errors import PhotoError
from facegcn.landmarks import LANDMARK_COUNT, POINT_ORDER, five_points, roll
from facegcn.photos.choosing import LARGEST, choose
from facegcn.photos.dense_landmarks import landmarks_at
from facegcn.photos.detection import find_faces
from facegcn.photos.reading import opaque, shown_part
from facegcn.photos.warping import scale_of, transform_points, turn, warp

REFERENCE_SIZE = 224  # pixels, the crop for which the scale below is given
PIXELS_PER_DECIMETRE = 102.0  # size of the face in it [Deng et al. 2019]
#: Degrees of roll. Made portraits, which the regressor learns from, roll by 5 degrees, standard deviation, at most 20;
#: in trials 30 was still good and 45 rubbish.
TURN_ABOVE = 15.0
FACE_WIDTH = 1.4  # decimetre between the cheekbones: the mean of adults [NIOSH 2007: 13.5 women, 14.3 men, cm]
#: Pixels of a face's width in the photo. At the first a crop of 224 keeps a fifth of its fine detail (variance of the
#: Laplacian; 33 dB, 16 portraits made smaller), at 80 two fifths, at 40 a twelfth; at the second nothing: such points
#: are those of another size of the photo.
BLURRED_BELOW, NO_FACE_BELOW = 60, 16
_MOST_INSIDE = 3  # of the five points that must lie in the photo: half a face may be cut off, not more


class Crop(NamedTuple):
    """The aligned picture.

    Attributes:
        image: (size, size, 3) uint8 RGB, black where the photo ends.
        transform: (2, 3) float64, photo pixels to crop pixels: ``crop = A photo + b``.
        inside: (size, size) bool, False where the photo ends or is transparent.
    """

    image: np.ndarray
    transform: np.ndarray
    inside: np.ndarray


@dataclass
class AlignedPhoto:
    """A photo ready for the networks, but for its skin mask.

    Attributes:
        crop: the aligned picture.
        points: (5, 2) float32 alignment points in crop pixels.
        landmarks: (68, 2) float32 iBUG points in crop pixels, or None where only five are known.
        remarks: what the user should know, such as ``the face is only 50 pixels wide: expect blur``.
        dense: (468, 3) float32 x and y in crop pixels and trust, 0 = of no use; None where no network saw the face.
    """

    crop: Crop
    points: np.ndarray
    landmarks: np.ndarray | None
    remarks: tuple[str, ...] = ()
    dense: np.ndarray | None = None

    @property
    def status(self) -> str:
        """``ok``, or the remarks."""
        return ", ".join(self.remarks) or "ok"


def alignment_transform(points: np.ndarray, five_points_3d: np.ndarray,
                        size: int = REFERENCE_SIZE) -> np.ndarray:
    """The similarity (2, 3), photo pixels to crop pixels: Deng et al.'s, after a turn of rolled heads.

    A weak-perspective camera is fitted to the five points by least squares (8 unknowns, POS); a
    decimetre then becomes 102 pixels (of a 224 crop), and the projected origin the crop's centre.

    Args:
        points: (5, 2) in the photo.
        five_points_3d: (5, 3) of the mean face, decimetre (``MorphableModel.five_points``).
        size: width and height of the crop.

    Raises:
        PhotoError: points that fix no face, or left and right exchanged.
    """
    points, corners = np.asarray(points, np.float64), np.asarray(five_points_3d, np.float64)
    if points.shape != (5, 2) or corners.shape != (5, 3):
        raise ValueError(f"expected points (5, 2) and (5, 3), got {points.shape} and {corners.shape}")
    rolled = roll(points)
    matrix = turn(-rolled) if abs(rolled) > TURN_ABOVE else np.eye(2)
    design = np.concatenate([corners, np.ones((5, 1))], axis=1)
    upwards = points @ matrix.T * (1.0, -1.0)
    camera = np.linalg.lstsq(design, upwards, rcond=None)[0].T  # rows: x and y; columns: axes, offset
    lengths = np.linalg.norm(camera[:, :3], axis=1)
    if not np.isfinite(camera).all() or lengths.min() < 1e-3 * max(1.0, lengths.max()):
        raise PhotoError("the five points lie on each other or on a line", "bad points")
    if np.linalg.det(camera[:, :2]) <= 0:
        raise PhotoError(f"left and right are exchanged; the order is {POINT_ORDER}", "bad points")
    scale = PIXELS_PER_DECIMETRE * size / REFERENCE_SIZE / lengths.mean()
    origin = camera[:, 3] * (1.0, -1.0)
    return np.column_stack([scale * matrix, size / 2.0 - scale * origin])


def face_width(transform: np.ndarray, size: int) -> float:
    """Pixels between the cheekbones in the photo whose crop of width ``size`` has this transform."""
    return FACE_WIDTH * PIXELS_PER_DECIMETRE * size / REFERENCE_SIZE / scale_of(transform)


def align(image: np.ndarray, points: np.ndarray, five_points_3d: np.ndarray,
          size: int = REFERENCE_SIZE) -> Crop:
    """The aligned crop of a photo.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8; transparent parts become black.
        points, five_points_3d, size: as for ``alignment_transform``.

    Raises:
        PhotoError: as ``alignment_transform``.
    """
    transform = alignment_transform(points, five_points_3d, size)
    inside = warp(shown_part(image), transform, size) > 250
    return Crop(warp(opaque(image), transform, size), transform, inside)


def align_photo(image: np.ndarray, points: np.ndarray | None, five_points_3d: np.ndarray,
                size: int = REFERENCE_SIZE, face: str | int = LARGEST) -> AlignedPhoto:
    """Aligns a photo by its points, or by the detector's where there are none.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8 (``reading.read_image``).
        points: (5, 2) or (68, 2) (``landmarks.points_beside``), or None.
        five_points_3d, size: as for ``alignment_transform``.
        face: which of several, see ``choosing.face_choice``; points say themselves whose they are.

    Raises:
        PhotoError: no face was found, or one too small; the points lie outside or are those of a speck; or as
            ``align``.
    """
    remarks, given = [], points is not None
    if not given:
        faces = find_faces(opaque(image))
        if not faces:
            raise PhotoError("no face was found; give its points in a file NAME.txt beside the photo: "
                             f"five lines 'x y': {POINT_ORDER}", "no face")
        chosen, remark = choose(faces, face, image.shape)
        points, dense = chosen.points, chosen.dense
        remarks += [remark] if remark else []
    five = five_points(points)
    width = face_width(alignment_transform(five, five_points_3d, size), size)
    _check_place(five, width, image.shape[1::-1], given)
    crop = align(image, five, five_points_3d, size)
    if abs(roll(five)) > TURN_ABOVE:
        remarks.append(f"the head is rolled by {abs(roll(five)):.0f} degrees: turned upright")
    if width < BLURRED_BELOW:
        remarks.append(f"the face is only {width:.0f} pixels wide: expect blur")
    moved = transform_points(points, crop.transform)
    if given:
        dense = landmarks_at(opaque(image), five)
    return AlignedPhoto(crop, five_points(moved), moved if len(moved) == LANDMARK_COUNT else None, tuple(remarks),
                        None if dense is None else dense.with_trust(crop.transform))


def dense_of_crop(rgba: np.ndarray, points: np.ndarray | None = None) -> np.ndarray | None:
    """Dense landmarks of a picture that is an aligned crop already.

    Args:
        rgba: (S, S, 4) or (S, S, 3) uint8; what its alpha hides is looked at, too.
        points: (5, 2) or (68, 2) pixels of the crop, or None: then the face is searched.

    Returns:
        (468, 3) float32 x, y and trust; None where the network sees no face.
    """
    picture = np.ascontiguousarray(rgba[..., :3])
    if points is not None:
        dense = landmarks_at(picture, five_points(points))
    else:
        faces = find_faces(picture)
        dense = choose(faces, LARGEST, picture.shape)[0].dense if faces else None
    return None if dense is None else dense.with_trust(np.eye(2, 3))


def _check_place(five: np.ndarray, width: float, limit: tuple[int, int], given: bool) -> None:
    """Raises PhotoError for five points outside a photo of ``limit`` (width, height) pixels, or of a speck."""
    if ((five >= 0) & (five <= limit)).all(axis=1).sum() < _MOST_INSIDE:
        raise PhotoError(f"the points lie outside the photo, which has {limit[0]} x {limit[1]} pixels; are they of "
                         "another size of it?", "bad points")
    if width < NO_FACE_BELOW and given:
        raise PhotoError(f"by its points the face is only {width:.0f} pixels wide in a photo of {limit[0]} x "
                         f"{limit[1]}; are they of another size of it?", "bad points")
    if width < NO_FACE_BELOW:
        raise PhotoError(f"the largest face is only {width:.0f} pixels wide; take a photo that shows it larger",
                         "no face")
