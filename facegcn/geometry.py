"""Rotations and vertex normals.

Letters: B images, N vertices, F triangles. Right-handed axes, y up; points are row vectors.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from facegcn.backends import kernels
from facegcn.backends.row_gathers import check_index, gather_rows, map_images, resolve_backend, scatter_rows

#: Squared length below which a vector counts as zero and is left unnormalised.
_TINY_SQUARED_LENGTH = 1e-20


def rotation_matrix(angles) -> tf.Tensor:
    """Rotation matrices R = Rz(c) Ry(b) Rx(a), the convention of Deng et al. 2019.

    Args:
        angles: (B, 3) rotation about x, y and z in radians, positive by the right-hand rule.

    Returns:
        (B, 3, 3). Column vectors turn by R v, row vectors (our points) by v R^T.

    Raises:
        ValueError: ``angles`` is not (B, 3).
    """
    angles = tf.convert_to_tensor(angles, tf.float32)
    _check_rank("angles", angles, 2)
    sin_x, sin_y, sin_z = tf.unstack(tf.sin(angles), axis=1)
    cos_x, cos_y, cos_z = tf.unstack(tf.cos(angles), axis=1)
    rows = (
        (cos_z * cos_y, cos_z * sin_y * sin_x - sin_z * cos_x, cos_z * sin_y * cos_x + sin_z * sin_x),
        (sin_z * cos_y, sin_z * sin_y * sin_x + cos_z * cos_x, sin_z * sin_y * cos_x - cos_z * sin_x),
        (-sin_y, cos_y * sin_x, cos_y * cos_x))
    return tf.stack([tf.stack(row, axis=1) for row in rows], axis=1)


def rotate(points, angles) -> tf.Tensor:
    """Turns points or normals: v R^T.

    Args:
        points: (B, N, 3), any unit.
        angles: (B, 3) rotation about x, y and z in radians.

    Returns:
        (B, N, 3), same unit.

    Raises:
        ValueError: an argument has another shape.
    """
    points = tf.convert_to_tensor(points, tf.float32)
    _check_rank("points", points, 3)
    return tf.matmul(points, rotation_matrix(angles), transpose_b=True)


def vertex_normals(vertices, triangles, backend: str = "auto") -> tf.Tensor:
    """Unit normals of the vertices: the sum of their faces' cross(v1 - v2, v2 - v3), normalised.

    The cross products are as long as twice the face's area, so large faces count more.
    A vertex without a face of positive area gets (0, 0, 0).

    Args:
        vertices: (B, N, 3), any unit.
        triangles: (F, 3) int32 vertex indices, 0-based, counter-clockwise seen from outside.
        backend: ``numba``, ``tensorflow`` or ``auto``, see ``row_gathers.resolve_backend``.

    Returns:
        (B, N, 3) unit vectors that point outwards, differentiable in the vertices.

    Raises:
        ValueError: an argument has another shape, or the backend is unknown.
    """
    vertices = tf.convert_to_tensor(vertices, tf.float32)
    triangles = tf.convert_to_tensor(triangles, tf.int32)
    _check_rank("vertices", vertices, 3)
    if triangles.shape.rank != 2 or triangles.shape[1] not in (3, None):
        raise ValueError(f"triangles must have shape (F, 3), got {triangles.shape}")
    if resolve_backend(backend) == "numba":
        sums = _normal_sums_numba(vertices, triangles)
    else:
        sums = _normal_sums_tensorflow(vertices, triangles)
    sums.set_shape(vertices.shape)
    return tf.math.l2_normalize(sums, axis=-1, epsilon=_TINY_SQUARED_LENGTH)


def vertex_normals_numpy(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """``vertex_normals`` of one mesh in NumPy, without TensorFlow: for data pipelines.

    Args:
        vertices: (N, 3) float32, any unit.
        triangles: (F, 3) int32, all in 0..N-1.

    Returns:
        (N, 3) float32.
    """
    normals = np.zeros_like(vertices)
    kernels.normal_sums(vertices, triangles, normals)
    x, y, z = normals.T
    return normals / np.sqrt(np.maximum(x * x + y * y + z * z, _TINY_SQUARED_LENGTH))[:, None]


def _normal_sums_tensorflow(vertices, triangles) -> tf.Tensor:
    """Sums (B, N, 3) of the cross products around each vertex, in TensorFlow operations."""
    first, second, third = tf.unstack(gather_rows(vertices, triangles, "tensorflow"), axis=2)
    crosses = tf.linalg.cross(first - second, second - third)
    return scatter_rows(crosses, triangles, tf.shape(vertices)[1], "tensorflow")


@tf.custom_gradient
def _normal_sums_numba(vertices, triangles):
    """The same through the compiled loops."""

    def gradient(upstream):
        result = tf.numpy_function(_normal_sums_gradient_numpy, [vertices, triangles, upstream], tf.float32,
                                   stateful=False)
        result.set_shape(vertices.shape)
        return result, None

    return tf.numpy_function(_normal_sums_numpy, [vertices, triangles], tf.float32, stateful=False), gradient


def _normal_sums_numpy(vertices, triangles):
    check_index("triangles", triangles, vertices.shape[1])
    sums = np.zeros_like(vertices)
    map_images(lambda b: kernels.normal_sums(vertices[b], triangles, sums[b]), vertices.shape[0])
    return sums


def _normal_sums_gradient_numpy(vertices, triangles, upstream):
    result = np.zeros_like(vertices)
    map_images(lambda b: kernels.normal_sums_gradient(vertices[b], triangles, upstream[b], result[b]),
               vertices.shape[0])
    return result


def _check_rank(name: str, tensor: tf.Tensor, rank: int) -> None:
    """Raises ValueError unless the tensor has this rank and a last axis of 3."""
    if tensor.shape.rank != rank or tensor.shape[-1] not in (3, None):
        wanted = "(B, 3)" if rank == 2 else "(B, N, 3)"
        raise ValueError(f"{name} must have shape {wanted}, got {tensor.shape}")
