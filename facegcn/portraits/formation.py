"""Image formation of one made portrait in NumPy: pose, light, camera, coverage, visibility.

The formulas of ``geometry``, ``lighting`` and ``camera`` for one face without TensorFlow, so that
portraits can be made inside a parallel data pipeline; the tests hold the two against each other.
Letters: N vertices, F triangles, H W pixels, S sub-pixels along each side of a pixel.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from facegcn import camera, lighting

_NEAR, _FAR = 2.0, 24.0  # nearer planes than the camera's: only the depth's resolution depends on them


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """R = Rz Ry Rx (3, 3) for angles (3,) in radians, as ``geometry.rotation_matrix``."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    return np.array([[cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
                     [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
                     [-sy, cy * sx, cy * cx]], np.float32)


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3) -> the nine harmonics (N, 9) of ``lighting.sh_basis``."""
    x, y, z = normals.T
    constant, first, second = lighting.ORDER_FACTORS
    return np.stack([np.full_like(x, constant), -first * y, first * z, -first * x,
                     second * x * y, -second * y * z, second / (2 * math.sqrt(3)) * (3 * z * z - 1),
                     -second * x * z, second / 2 * (x * x - y * y)], axis=1).astype(np.float32)


def shading(normals: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Unit normals (N, 3), gamma (27,) -> RGB factors (N, 3) of the albedo."""
    per_channel = gamma.reshape(3, lighting.HARMONICS).copy()
    per_channel[:, 0] += lighting.AMBIENT_OFFSET
    return sh_basis(normals) @ per_channel.T


def to_pixels(vertices: np.ndarray, size: float) -> np.ndarray:
    """World points (N, 3) in decimetre -> pixels (N, 2), x right, y down, of a square picture."""
    focal = size / (2 * camera.TAN_HALF_FOV)
    depth = camera.CAMERA_DISTANCE - vertices[:, 2:]
    return vertices[:, :2] * np.array([focal, -focal], np.float32) / depth + np.float32(size / 2)


def clip_coordinates(vertices: np.ndarray, push: np.ndarray | float = 0.0) -> np.ndarray:
    """World points (N, 3) -> clip space (N, 4) of the face camera.

    Args:
        vertices: (N, 3) decimetre.
        push: decimetre by which a point counts as farther away than it is drawn (N,) or a number.
    """
    depth = camera.CAMERA_DISTANCE - vertices[:, 2]
    slope, offset = (_FAR + _NEAR) / (_FAR - _NEAR), 2 * _FAR * _NEAR / (_FAR - _NEAR)
    clip = np.empty((len(vertices), 4), np.float32)
    clip[:, :2] = vertices[:, :2] / np.float32(camera.TAN_HALF_FOV)
    clip[:, 2] = depth * (slope - offset / (depth + push))
    clip[:, 3] = depth
    return clip


@numba.njit(nogil=True, cache=True, error_model="numpy")
def resolve(ids, barycentrics, triangles, colors, groups, hair, hair_texture, background, subpixels):
    """Sub-pixel samples -> pixels in front of a background.

    Args:
        ids: (S H, S W) int32 triangle of each sample, -1 = none.
        barycentrics: (S H, S W, 3) float32, perspective-correct.
        triangles: (F, 3) int32.
        colors: (N, 3) float32 RGB in [0, 1].
        groups: (F,) int32 group of each triangle; 0 is the face.
        hair: the group whose colour is multiplied by ``hair_texture``.
        hair_texture: (H, W) float32.
        background: (H, W, 3) float32.
        subpixels: S.

    Returns:
        image (H, W, 3) float32; the share of each pixel's samples that is face (H, W) and that is
        hair (H, W), float32 in [0, 1].
    """
    height, width = background.shape[:2]
    image = np.zeros((height, width, 3), np.float32)
    face_cover = np.zeros((height, width), np.float32)
    hair_cover = np.zeros((height, width), np.float32)
    share = np.float32(1.0 / (subpixels * subpixels))
    for row in range(height * subpixels):
        y = row // subpixels
        for column in range(width * subpixels):
            x = column // subpixels
            triangle = ids[row, column]
            if triangle < 0:
                for channel in range(3):
                    image[y, x, channel] += share * background[y, x, channel]
                continue
            weight = share
            if groups[triangle] == hair:
                hair_cover[y, x] += share
                weight *= hair_texture[y, x]
            elif groups[triangle] == 0:
                face_cover[y, x] += share
            for corner in range(3):
                part = weight * barycentrics[row, column, corner]
                vertex = triangles[triangle, corner]
                for channel in range(3):
                    image[y, x, channel] += part * colors[vertex, channel]
    return image, face_cover, hair_cover


@numba.njit(nogil=True, cache=True, error_model="numpy")
def visible_vertices(points, depths, facing, ids, barycentrics, triangles, alpha, subpixels, tolerance):
    """Which vertices are seen in the picture.

    Args:
        points: (N, 2) float32 pixels of the first N vertices.
        depths: (M,) float32 distance from the camera of every vertex of ``triangles``, M >= N.
        facing: (N,) bool, the normal looks towards the camera.
        ids, barycentrics, triangles: the samples, as for ``resolve``.
        alpha: (H, W) uint8; a vertex counts only where it is 255.
        subpixels: S.
        tolerance: decimetre a vertex may lie behind the surface drawn at its sample.

    Returns:
        (N,) bool.
    """
    height, width = alpha.shape
    visible = np.zeros(len(points), np.bool_)
    for vertex in range(len(points)):
        x, y = points[vertex]
        if not (facing[vertex] and 0 <= x < width and 0 <= y < height) or alpha[int(y), int(x)] < 255:
            continue
        row, column = int(y * subpixels), int(x * subpixels)
        triangle = ids[row, column]
        if triangle < 0:
            continue
        surface = np.float32(0.0)
        for corner in range(3):
            surface += barycentrics[row, column, corner] * depths[triangles[triangle, corner]]
        visible[vertex] = depths[vertex] <= surface + tolerance
    return visible
