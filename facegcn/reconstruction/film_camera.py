"""One camera for a whole film.

Every frame is fitted in an aligned crop of its own, as a photo is, and each crop has a camera of its own. A face that
moves needs one camera that stands still. It looks at the middle of the frames, so glTF can hold it exactly, and its
focal length is that of the usual crop. A pose moves from the crop's camera to it by the points of the face: it is the
one that shows them at the same pixels (Gauss-Newton on six unknowns).

Letters: M points of the face's surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from facegcn.camera import CAMERA_DISTANCE, TAN_HALF_FOV
from facegcn.export.photo_camera import crop_camera
from facegcn.export.scene import Camera
from facegcn.landmark_fitting import POSE_SIZE, angles_of, project, rotation
from facegcn.photometric_terms import to_pixels
from facegcn.photos.warping import inverse, scale_of
from facegcn.surface_points import CROP_PIXELS

_STEPS = 6
_FLIP = np.array([1.0, -1.0])  # pictures count down, the world up


@dataclass(frozen=True)
class FilmCamera:
    """The camera of a film.

    Attributes:
        transform: (2, 3) pixels of a frame to those of the square crop that this camera, ``facegcn.camera``, sees.
        crop_size: width of that crop, pixels; the face may lie outside of it.
        size: width and height of a frame, pixels.
    """

    transform: np.ndarray
    crop_size: int
    size: tuple[int, int]

    @classmethod
    def of(cls, transforms, crop_size: int, size: tuple[int, int]) -> FilmCamera:
        """The camera of frames whose own crops have these transforms (n, 2, 3), n at least 1."""
        scale = float(np.median([scale_of(np.asarray(transform)) for transform in transforms]))
        offset = crop_size / 2.0 - scale * np.array(size) / 2.0
        return cls(np.column_stack([scale * np.eye(2), offset]), crop_size, size)

    def camera(self) -> Camera:
        """As glTF has it: exact."""
        width, height = self.size
        share = scale_of(self.transform) * height / self.crop_size
        return Camera("film", 2.0 * math.atan(share * TAN_HALF_FOV), width / height, crop_camera().pose)

    def pixels(self, world: np.ndarray) -> np.ndarray:
        """(n, 2) pixels of a frame where this camera sees world points (n, 3), the corner of the frame at (0, 0)."""
        crop = to_pixels(world, self.crop_size / 2.0)
        back = inverse(self.transform)
        return crop @ back[:, :2].T + back[:, 2]

    def pose(self, shape: np.ndarray, pose: np.ndarray, transform: np.ndarray) -> np.ndarray | None:
        """The pose before this camera of a face whose pose before a crop's camera is known.

        Args:
            shape: (M, 3) points of the face before its pose, decimetre.
            pose: (6,) angles and translation before the crop's camera.
            transform: (2, 3) pixels of the frame to those of that crop, which is as wide as this one.

        Returns:
            (6,); None where there is none in front of the camera.
        """
        shown, _, _ = project(shape, np.zeros((len(shape), 3, 0)), pose, slopes=False)
        units = self.crop_size / CROP_PIXELS
        back = inverse(np.asarray(transform, np.float64))
        pixels = (shown * units) @ back[:, :2].T + back[:, 2]
        targets = (pixels @ self.transform[:, :2].T + self.transform[:, 2]) / units
        x = self._start(pose, transform, targets.mean(axis=0))
        nothing = np.zeros((len(shape), 3, 0))
        for _ in range(_STEPS):
            seen, slopes, nearest = project(shape, nothing, x)
            if nearest <= 0.5 or not np.isfinite(x).all():
                return None
            slopes = slopes.reshape(-1, POSE_SIZE)
            x = x - np.linalg.lstsq(slopes, (seen - targets).ravel(), rcond=None)[0]
        return x if np.isfinite(x).all() else None

    def _start(self, pose, transform, middle):
        """About that pose: as far away as the face is small, turned as the crop is."""
        larger = scale_of(np.asarray(transform)) / scale_of(self.transform)
        upright = np.eye(3)
        upright[:2, :2] = np.linalg.inv(np.asarray(transform)[:, :2] / scale_of(np.asarray(transform))) * np.outer(
            _FLIP, _FLIP)
        depth = (CAMERA_DISTANCE - pose[5]) * larger
        across = (middle - CROP_PIXELS / 2.0) * _FLIP * (depth * 2.0 * TAN_HALF_FOV / CROP_PIXELS)
        return np.concatenate([angles_of(upright @ rotation(pose[:3])[0]), across, [CAMERA_DISTANCE - depth]])
