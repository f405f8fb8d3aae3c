"""Pictures and points carried through (2, 3) affine transforms: ``to = A from + b``.

Points count from the picture's top left corner, so the first pixel's centre is (0.5, 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np

_MARGIN = 4  # pixels around what is needed, after reduction: cubic interpolation looks 2 pixels far


def turn(degrees: float) -> np.ndarray:
    """(2, 2) float64 rotation; positive is clockwise in a picture, whose y points down."""
    radians = np.radians(degrees)
    return np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])


def similarity(scale: float, degrees: float, point, to) -> np.ndarray:
    """The (2, 3) transform that scales and turns, as ``turn``, and carries one point (2,) to another."""
    matrix = scale * turn(degrees)
    return np.column_stack([matrix, to - matrix @ point])


def transform_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Points (P, 2) carried through a (2, 3) transform; float32."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def inverse(transform: np.ndarray) -> np.ndarray:
    """The (2, 3) transform back."""
    back = np.linalg.inv(transform[:, :2])
    return np.column_stack([back, -back @ transform[:, 2]])


def scale_of(transform: np.ndarray) -> float:
    """How much longer a (2, 3) similarity makes lengths."""
    return float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))


def warp(image: np.ndarray, transform: np.ndarray, size: int, nearest: bool = False) -> np.ndarray:
    """A picture carried through a (2, 3) transform onto (size, size); zero where it ends.

    Args:
        image: (H, W) or (H, W, C) uint8.
        transform: picture pixels to result pixels: scale, rotation and translation.
        size: width and height of the result.
        nearest: take the nearest pixel: for label maps.
    """
    image, transform = _needed(image, np.array(transform, np.float64), size)
    if not image.size:
        return np.zeros((size, size, *image.shape[2:]), np.uint8)
    scale = scale_of(transform)
    if scale < 1.0 and not nearest:
        # Reduce by area first: interpolation alone would skip pixels.
        height, width = image.shape[:2]
        new = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA)
        transform[:, :2] = transform[:, :2] / np.array([new[0] / width, new[1] / height])
    # OpenCV counts from the first pixel's centre, we from its corner.
    transform[:, 2] += transform[:, :2] @ (0.5, 0.5) - 0.5
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_CUBIC
    return cv2.warpAffine(image, transform, (size, size), flags=mode)


class Pyramid:
    """A picture and its halves, each made when it is first needed: many small views of a large photo cost little.

    Attributes:
        shape: (H, W) of the picture.
    """

    def __init__(self, image: np.ndarray):
        self.shape = image.shape[:2]
        self._levels = [image]

    def level(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """The smallest level that shows at least ``scale`` of the picture's pixels a length, and its (x, y) scale."""
        wanted = max(0, int(np.floor(-np.log2(max(scale, 1e-9)))))
        while len(self._levels) <= wanted and max(self._levels[-1].shape[:2]) > 1:
            height, width = self._levels[-1].shape[:2]
            half = (max(1, width // 2), max(1, height // 2))
            self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))
        found = self._levels[min(wanted, len(self._levels) - 1)]
        return found, np.array(found.shape[1::-1]) / self.shape[::-1]

    def view(self, transform: np.ndarray, size: int) -> np.ndarray:
        """As ``warp`` of the picture."""
        image, scale = self.level(scale_of(transform))
        moved = np.array(transform, np.float64)
        moved[:, :2] /= scale
        return warp(image, moved, size)


def _needed(image, transform, size) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that the result shows, and the transform from it: OpenCV ends at 32,767 pixels."""
    corners = transform_points(size * np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), inverse(transform))
    limit, margin = np.array(image.shape[1::-1]), _MARGIN / min(1.0, scale_of(transform))
    first = np.clip(np.floor(corners.min(axis=0) - margin), 0, limit).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0) + margin), 0, limit).astype(int)
    moved = np.column_stack([transform[:, :2], transform[:, 2] + transform[:, :2] @ first])
    return image[first[1]:last[1], first[0]:last[0]], moved
