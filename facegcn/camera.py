"""The face camera, and view and perspective matrices for any other.

Letters: B images, N vertices. World and camera space are right-handed with y up, unit decimetre;
the camera looks along its own -z. Clip space is OpenGL's: a point is visible where
-w <= x, y, z <= w, y up, z = -w on the near plane. Image row 0 is the top.
"""

from __future__ import annotations

import math

import tensorflow as tf

CAMERA_DISTANCE = 10.0  # decimetre: the camera stands at (0, 0, 10) and looks at the origin
FOV_Y = 12.5936  # vertical field of view, degrees
NEAR = 0.001  # distance of the near plane, decimetre
FAR = 30.0  # distance of the far plane, decimetre

TAN_HALF_FOV = math.tan(math.radians(FOV_Y) / 2)


def project(vertices) -> tf.Tensor:
    """Projects world points into a square picture of the face camera.

    Args:
        vertices: (B, N, 3) world points, decimetre.

    Returns:
        (B, N, 2) picture coordinates, x right and y DOWN; the picture is [-1, 1] x [-1, 1].
        Points at or behind the camera have no meaningful projection.
    """
    vertices = _points(vertices)
    depth = CAMERA_DISTANCE - vertices[..., 2:]
    return vertices[..., :2] * tf.constant([1.0, -1.0]) / (depth * TAN_HALF_FOV)


def to_pixels(points, size: int) -> tf.Tensor:
    """Picture coordinates in [-1, 1] to pixels of a square picture: p size / 2 + size / 2.

    Args:
        points: (..., 2) picture coordinates, x right, y down.
        size: width and height of the picture in pixels.

    Returns:
        (..., 2) float pixel coordinates; the top left corner of the picture is (0, 0).
    """
    return tf.convert_to_tensor(points, tf.float32) * (size / 2) + size / 2


def clip_coordinates(vertices, height: int, width: int) -> tf.Tensor:
    """World points in the clip space of the face camera, for ``rasterizer.rasterize``.

    Args:
        vertices: (B, N, 3) world points, decimetre.
        height, width: size of the picture in pixels; only their ratio counts.

    Returns:
        (B, N, 4) homogeneous clip coordinates, y up.
    """
    vertices = _points(vertices)
    matrix = perspective(width / height, FOV_Y, NEAR, FAR)[0]
    return transform(vertices - tf.constant([0.0, 0.0, CAMERA_DISTANCE]), matrix[None])


def transform(points, matrices) -> tf.Tensor:
    """Applies homogeneous 4 x 4 matrices to points.

    Args:
        points: (B, N, 3).
        matrices: (B, 4, 4) or (1, 4, 4), for column vectors.

    Returns:
        (B, N, 4) homogeneous coordinates.
    """
    rotation = matrices[:, :, :3]
    offset = matrices[:, :, 3]
    return tf.matmul(_points(points), rotation, transpose_b=True) + offset[:, None, :]


def perspective(aspect_ratio: float, fov_y, near_clip, far_clip) -> tf.Tensor:
    """Perspective matrices (those of OpenGL's gluPerspective): camera space to clip space.

    Args:
        aspect_ratio: width / height of the picture.
        fov_y: vertical field of view in degrees, a number or (B,).
        near_clip, far_clip: distances of the clipping planes, positive, a number or (B,).

    Returns:
        (B, 4, 4), or (1, 4, 4) if every argument is a number.
    """
    fov_y, near, far = (tf.reshape(tf.convert_to_tensor(v, tf.float32), (-1,))
                        for v in (fov_y, near_clip, far_clip))
    per_image = tf.zeros_like(fov_y + near + far)
    fov_y, near, far = fov_y + per_image, near + per_image, far + per_image
    focal = 1.0 / tf.tan(fov_y * (math.pi / 360.0))  # degrees to radians, and half the angle
    zero, one = tf.zeros_like(focal), tf.ones_like(focal)
    rows = ((focal / aspect_ratio, zero, zero, zero),
            (zero, focal, zero, zero),
            (zero, zero, (near + far) / (near - far), 2.0 * near * far / (near - far)),
            (zero, zero, -one, zero))
    return tf.stack([tf.stack(row, axis=1) for row in rows], axis=1)


def look_at(eye, center, world_up) -> tf.Tensor:
    """View matrices (those of OpenGL's gluLookAt): world space to camera space.

    Args:
        eye: (B, 3) position of the camera.
        center: (B, 3) a point it looks at.
        world_up: (B, 3) the direction that is up in the picture; any length.

    Returns:
        (B, 4, 4) matrices for column vectors.

    Raises:
        tf.errors.InvalidArgumentError: the camera is at the point it looks at, or ``world_up``
            is zero or along the line of sight.
    """
    eye, center, world_up = (tf.convert_to_tensor(v, tf.float32) for v in (eye, center, world_up))
    forward = _unit(center - eye, "the camera's position is the point it looks at")
    side = _unit(tf.linalg.cross(forward, world_up),
                 "the camera's up vector is zero or along its line of sight")
    up = tf.linalg.cross(side, forward)
    rotation = tf.stack([side, up, -forward], axis=1)
    offset = -tf.matmul(rotation, eye[:, :, None])
    last_row = tf.broadcast_to(tf.constant([0.0, 0.0, 0.0, 1.0]), (tf.shape(eye)[0], 1, 4))
    return tf.concat([tf.concat([rotation, offset], axis=2), last_row], axis=1)


def _points(points) -> tf.Tensor:
    """Checks and converts an argument (B, N, 3)."""
    points = tf.convert_to_tensor(points, tf.float32)
    if points.shape.rank != 3 or points.shape[-1] not in (3, None):
        raise ValueError(f"vertices must have shape (B, N, 3), got {points.shape}")
    return points


def _unit(vectors, message: str) -> tf.Tensor:
    """Normalises (B, 3) vectors; refuses those shorter than 1e-6 with this message."""
    lengths = tf.norm(vectors, axis=1, keepdims=True)
    with tf.control_dependencies([tf.debugging.assert_greater(lengths, 1e-6, message=message)]):
        return vectors / lengths
