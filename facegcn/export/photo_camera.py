"""Cameras of files for other programs: of the aligned crop, and of the photo that the crop was taken from.

The project's camera looks at the crop. In the photo the same rays end at pixels moved by the crop transform: a pinhole
camera whose principal point lies where the crop's centre came from, mostly beside the photo's own centre. glTF has no
such camera. So the photo's camera is another one, its principal point in the middle, whose pose and focal length make
the face's vertices fall on the same pixels as nearly as they can; how nearly, its ``extras`` tell. They also hold the
off-centre camera, which is exact, for programs that know one (Blender calls it shift).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy.optimize import minimize_scalar

from facegcn.camera import CAMERA_DISTANCE, FOV_Y, TAN_HALF_FOV
from facegcn.export.arrays import checked
from facegcn.export.scene import Camera

_SAMPLE = 400  # vertices that the pose is fitted to
_FOCAL_RANGE = (-0.7, 3.0)  # logarithm of the focal length over that of the crop's camera
_FOCAL_STEP = 1e-3
_FLIP = np.diag([1.0, -1.0, -1.0])  # OpenCV's camera has y down and looks along +z


def crop_camera() -> Camera:
    """The camera of the aligned crop, exact: square, 10 decimetres before the origin."""
    pose = np.eye(4)
    pose[2, 3] = CAMERA_DISTANCE
    return Camera("crop", math.radians(FOV_Y), 1.0, pose)


def photo_camera(vertices: np.ndarray, crop_transform: np.ndarray, crop_size: int,
                 photo_size: tuple[int, int]) -> Camera:
    """The camera with its principal point in the middle of the photo that shows the face where the photo does.

    Pose by SQPnP (Terzakis and Lourakis 2020), in a narrow view by EPnP (Lepetit et al. 2009), and
    Levenberg-Marquardt on some of the vertices, for the focal length that leaves the smallest error.

    Args:
        vertices: (N, 3) posed vertices, decimetre, all before the crop's camera; at least 6 that span a volume.
        crop_transform: (2, 3) photo pixels to crop pixels, a similarity.
        crop_size: width of the crop in pixels.
        photo_size: width and height of the photo in pixels.

    Returns:
        a camera ``photo`` with the photo's aspect. Its extras: ``picture_size`` (width, height) in pixels;
        ``reprojection_rms_pixels`` and ``reprojection_max_pixels``, the distance in the photo between where this camera
        and where the crop's shows the vertices; ``exact``, the off-centre camera: ``fov_y`` in radians, ``pose``
        (4, 4) camera to world in metres, ``principal_point`` in pixels, and ``shift``, how far the picture's
        middle is from that (x right, y up) in heights of the picture, Blender's own measure.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a transform that is no similarity, too few
            vertices, or vertices behind the camera.
    """
    vertices = checked("vertices", vertices, (-1, 3))
    transform = checked("crop_transform", crop_transform, (2, 3))
    size = np.array(photo_size, np.float64)
    targets, focal, principal = _seen(vertices, transform, crop_size)
    chosen = np.linspace(0, len(vertices) - 1, min(_SAMPLE, len(vertices))).astype(int)

    def error(log_ratio):
        found = _fitted(vertices[chosen], targets[chosen], focal * math.exp(log_ratio), size)
        return float(np.square(found[1]).mean())

    best = minimize_scalar(error, bounds=_FOCAL_RANGE, method="bounded", options={"xatol": _FOCAL_STEP})
    focal_here = focal * math.exp(best.x)
    pose, _ = _fitted(vertices[chosen], targets[chosen], focal_here, size)
    camera = Camera("photo", 2 * math.atan(size[1] / 2 / focal_here), size[0] / size[1], pose)
    off = np.linalg.norm(pixels_of(camera, vertices, photo_size) - targets, axis=1)
    extras = {"picture_size": [int(length) for length in photo_size],
              "reprojection_rms_pixels": float(np.sqrt(np.square(off).mean())),
              "reprojection_max_pixels": float(off.max()), "exact": _exact(transform, focal, principal, size)}
    return Camera("photo", camera.fov_y, camera.aspect, pose, extras=extras)


def pixels_of(camera: Camera, vertices: np.ndarray, picture_size: tuple[int, int]) -> np.ndarray:
    """(N, 2) pixels at which a camera shows world points (N, 3); the top left corner of the picture is (0, 0)."""
    rotation, place = camera.pose[:3, :3], camera.pose[:3, 3]
    seen = (np.asarray(vertices, np.float64) - place) @ rotation
    focal = picture_size[1] / 2 / math.tan(camera.fov_y / 2)
    return seen[:, :2] / -seen[:, 2:] * (focal, -focal) + np.array(picture_size) / 2


def _seen(vertices, transform, crop_size):
    """Photo pixels (N, 2) of the vertices, the focal length in photo pixels, the principal point in the photo."""
    depth = CAMERA_DISTANCE - vertices[:, 2:]
    if len(vertices) < 6 or not (depth > 0).all() or np.linalg.matrix_rank(vertices - vertices.mean(axis=0)) < 3:
        raise ValueError("the photo's camera needs at least 6 vertices that span a volume, all before the camera")
    linear = transform[:, :2]
    area = np.linalg.det(linear)
    if not area > 0 or not np.allclose(linear @ linear.T / area, np.eye(2), atol=1e-3):
        raise ValueError("crop_transform must scale, turn and move only")
    half = crop_size / 2
    crop = vertices[:, :2] * (1, -1) / (depth * TAN_HALF_FOV) * half + half
    back = np.linalg.inv(linear).T
    return (crop - transform[:, 2]) @ back, half / TAN_HALF_FOV / math.sqrt(area), (half - transform[:, 2]) @ back


def _fitted(vertices, targets, focal, size):
    """The pose (4, 4) of a camera of this focal length, and the distances in pixels that it leaves."""
    matrix = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    points = vertices @ _FLIP
    try:
        _, turn, move = cv2.solvePnP(points, targets, matrix, None, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:  # it refuses a view as narrow as that of a far face
        _, turn, move = cv2.solvePnP(points, targets, matrix, None, flags=cv2.SOLVEPNP_EPNP)
    turn, move = cv2.solvePnPRefineLM(points, targets, matrix, None, turn, move)
    shown = cv2.projectPoints(points, turn, move, matrix, None)[0][:, 0]
    pose = np.eye(4)
    pose[:3, :3] = _FLIP @ cv2.Rodrigues(turn)[0].T @ _FLIP
    pose[:3, 3] = -pose[:3, :3] @ _FLIP @ move[:, 0]
    return pose, np.linalg.norm(shown - targets, axis=1)


def _exact(transform, focal, principal, size):
    """The crop's camera as a camera of the photo: rolled, its principal point beside the middle."""
    pose = crop_camera().pose
    # A vector in the photo, y down, turned by the transform's angle is one in the crop; seen with y up: the other way.
    angle = math.atan2(transform[1, 0], transform[0, 0])
    pose[:2, :2] = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    pose[:3, 3] *= 0.1  # metre
    return {"fov_y": 2 * math.atan(size[1] / 2 / focal), "pose": pose, "principal_point": principal,
            "shift": (size / 2 - principal) * (1, -1) / size[1]}
