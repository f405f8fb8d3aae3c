"""From any photo to the aligned crop: reading, detection, alignment.

Points are pixels, x right, y down, (0, 0) the picture's top left corner (so the first pixel's
centre is (0.5, 0.5), as in ``camera.to_pixels``), in the picture as a viewer shows it (after EXIF
rotation). Alignment follows Deng et al. 2019 ("Accurate 3D Face Reconstruction with
Weakly-Supervised Learning"): scale and translation only, no rotation.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from facegcn.errors import PhotoError
from facegcn.landmarks import LANDMARK_COUNT, POINT_ORDER, five_points

REFERENCE_SIZE = 224  # pixels, the crop for which the scale below is given
PIXELS_PER_DECIMETRE = 102.0  # size of the face in it [Deng et al. 2019]
MTCNN_KEYS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_DETECTOR_PIXELS = 1024  # the detector looks at larger photos reduced to this
_CONFIDENCE = 0.9  # detections below it are not counted as faces
_DETECTING = threading.Lock()


class Crop(NamedTuple):
    """The aligned picture.

    Attributes:
        image: (size, size, 3) uint8 RGB, black where the photo ends.
        transform: (2, 3) float64, photo pixels to crop pixels: ``crop = A photo + b``.
        inside: (size, size) bool, False where the photo ends.
    """

    image: np.ndarray
    transform: np.ndarray
    inside: np.ndarray


class Detection(NamedTuple):
    """What the face detector saw: the largest face's (5, 2) points or None, and the face count."""

    points: np.ndarray | None
    count: int


@dataclass
class AlignedPhoto:
    """A photo ready for the networks, but for its skin mask.

    Attributes:
        crop: the aligned picture.
        points: (5, 2) float32 alignment points in crop pixels.
        landmarks: (68, 2) float32 iBUG points in crop pixels, or None where only five are known.
        status: ``ok`` or ``several faces, the largest used``.
    """

    crop: Crop
    points: np.ndarray
    landmarks: np.ndarray | None
    status: str


# ---------------------------------------------------------------- reading
def read_image(path: str) -> np.ndarray:
    """Reads any picture OpenCV knows, turned as its EXIF tag says.

    Returns:
        uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the file has an alpha channel. Grey becomes
        RGB, 16 bits become 8.

    Raises:
        PhotoError: absent, no picture, cut short, or neither 8 nor 16 bits deep.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read: {error.strerror}", "unreadable") from error
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-65536:]:
        # OpenCV fills the missing part of a JPEG with grey and says nothing.
        raise PhotoError(f"{path}: the JPEG file is cut short; fetch it again", "unreadable")
    image = _decode(data, cv2.IMREAD_UNCHANGED)
    if image is not None and not (image.ndim == 3 and image.shape[2] == 4):
        # Only the colour mode heeds the EXIF tag; only the unchanged mode keeps alpha.
        image = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise PhotoError(f"{path}: is no picture that OpenCV can read; save it as PNG or JPEG", "unreadable")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise PhotoError(f"{path}: has {image.dtype} values; save it with 8 or 16 bits", "unreadable")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    """OpenCV's picture or None; its complaints become None too."""
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def opaque(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of an RGB or RGBA picture; transparent parts become black."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.uint16)
    return ((image[..., :3] * alpha + 127) // 255).astype(np.uint8)


# ---------------------------------------------------------------- detection
def detect_landmarks(image: np.ndarray) -> Detection:
    """Finds faces with MTCNN (K. Zhang et al. 2016).

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        the points of the largest face, in pixels of ``image``, and how many faces there are.
    """
    scale = min(1.0, _DETECTOR_PIXELS / max(image.shape[:2]))
    if scale < 1.0:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    with _DETECTING:  # one at a time: the detector keeps its state in itself
        found = _detector().detect_faces(image) or []
    faces = [face for face in found if face["confidence"] >= _CONFIDENCE]
    if not faces:
        return Detection(None, 0)
    largest = max(faces, key=lambda face: face["box"][2] * face["box"][3])
    points = np.array([largest["keypoints"][key] for key in MTCNN_KEYS], np.float32)
    # MTCNN names pixels, whose centres lie half a pixel from their corners.
    return Detection((points + 0.5) / np.float32(scale), len(faces))


@functools.cache
def _detector():
    """The one MTCNN of this process: loading takes longer than looking."""
    from mtcnn import MTCNN
    return MTCNN(device="CPU:0")


# ---------------------------------------------------------------- alignment
def alignment_transform(points: np.ndarray, five_points_3d: np.ndarray,
                        size: int = REFERENCE_SIZE) -> np.ndarray:
    """Deng et al.'s similarity (2, 3): photo pixels to crop pixels, scale and translation only.

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
    design = np.concatenate([corners, np.ones((5, 1))], axis=1)
    upwards = points * (1.0, -1.0)
    camera = np.linalg.lstsq(design, upwards, rcond=None)[0].T  # rows: x and y; columns: axes, offset
    lengths = np.linalg.norm(camera[:, :3], axis=1)
    if not np.isfinite(camera).all() or lengths.min() < 1e-3 * max(1.0, lengths.max()):
        raise PhotoError("the five points lie on each other or on a line", "bad points")
    if camera[0, 0] <= 0:
        raise PhotoError(f"left and right are exchanged; the order is {POINT_ORDER}", "bad points")
    scale = PIXELS_PER_DECIMETRE * size / REFERENCE_SIZE / lengths.mean()
    origin = camera[:, 3] * (1.0, -1.0)
    return np.column_stack([np.eye(2) * scale, size / 2.0 - scale * origin])


def transform_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Points (P, 2) carried through a (2, 3) transform; float32."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def warp(image: np.ndarray, transform: np.ndarray, size: int, nearest: bool = False) -> np.ndarray:
    """A picture carried through a (2, 3) transform onto (size, size); zero where it ends.

    Args:
        image: (H, W) or (H, W, C) uint8.
        transform: scale and translation, picture pixels to crop pixels.
        size: width and height of the result.
        nearest: take the nearest pixel: for label maps.
    """
    transform = np.array(transform, np.float64)
    if transform[0, 0] < 1.0 and not nearest:
        # Reduce by area first: interpolation alone would skip pixels.
        height, width = image.shape[:2]
        new = (max(1, round(width * transform[0, 0])), max(1, round(height * transform[1, 1])))
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
        transform[:, :2] = transform[:, :2] / np.array([new[0] / width, new[1] / height])
    # OpenCV counts from the first pixel's centre, we from its corner.
    transform[:, 2] += transform[:, :2] @ (0.5, 0.5) - 0.5
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    return cv2.warpAffine(image, transform, (size, size), flags=mode)


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
    full = np.full(image.shape[:2], 255, np.uint8) if image.shape[2] == 3 else image[..., 3]
    inside = warp(full, transform, size) > 250
    return Crop(warp(opaque(image), transform, size), transform, inside)


def align_photo(image: np.ndarray, points: np.ndarray | None, five_points_3d: np.ndarray,
                size: int = REFERENCE_SIZE) -> AlignedPhoto:
    """Aligns a photo by its points, or by the detector's where there are none.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8 (``read_image``).
        points: (5, 2) or (68, 2) (``points_beside``), or None.
        five_points_3d, size: as for ``alignment_transform``.

    Raises:
        PhotoError: no face was found, or as ``alignment_transform``.
    """
    status = "ok"
    if points is None:
        points, count = detect_landmarks(opaque(image))
        if points is None:
            raise PhotoError("no face was found; give its points in a file NAME.txt beside the photo: "
                             f"five lines 'x y': {POINT_ORDER}", "no face")
        if count > 1:
            status = "several faces, the largest used"
    crop = align(image, five_points(points), five_points_3d, size)
    moved = transform_points(points, crop.transform)
    return AlignedPhoto(crop, five_points(moved), moved if len(moved) == LANDMARK_COUNT else None, status)
