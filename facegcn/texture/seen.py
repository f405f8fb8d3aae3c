"""What the face camera sees of a face, finer than its crop: the nearest surface, and where the photo is trusted.

Letters: N vertices, F triangles, S pixels of the crop, V of the finer picture.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from facegcn import camera
from facegcn.rasterizer import rasterize_numpy

FINENESS = 1024  # pixels V of the crop's view
_NOTHING = -1e6  # decimetre, z where there is no surface
_EDGE = 0.015  # decimetre by which neighbouring depths bend where one surface hides another
#: Millimetres on the face over which trust rises from 0 to 1: from the mask's border, and from where one part of the
#: face hides another, for the photo's edge may lie beside the mesh's.
_MASK_FEATHER, _EDGE_FEATHER = 2.0, 0.8
_MILLIMETRES = 2.0 * camera.CAMERA_DISTANCE * camera.TAN_HALF_FOV * 100.0 / FINENESS  # of a pixel, at z = 0


def inverse(transform) -> np.ndarray:
    """The (2, 3) affine transform back. Raises ``numpy.linalg.LinAlgError`` for one that has none."""
    transform = np.asarray(transform, np.float64)
    back = np.linalg.inv(transform[:, :2])
    return np.column_stack([back, -back @ transform[:, 2]])


def clip_coordinates(world, transform=None, size: float = 1.0, height: int = 1, width: int = 1) -> np.ndarray:
    """Clip coordinates of the face camera for a picture that shows its view through an affine map.

    Args:
        world: (N, 3) decimetre.
        transform: (2, 3) from pixels of the square crop to pixels of the picture; None: the picture is the crop.
        size: width of the crop, pixels.
        height, width: of the picture.

    Returns:
        (N, 4) float64 homogeneous, y up, for ``rasterizer.rasterize_numpy``.
    """
    world = np.asarray(world, np.float64)
    depth = camera.CAMERA_DISTANCE - world[:, 2]
    view = world[:, :2] * (1.0, -1.0) / camera.TAN_HALF_FOV  # times depth; y down
    near, far = camera.NEAR, camera.FAR
    z = ((near + far) * depth - 2.0 * near * far) / (far - near)
    if transform is not None:
        transform = np.asarray(transform, np.float64)
        moved = (view + depth[:, None]) * (size / 2.0) @ transform[:, :2].T + depth[:, None] * transform[:, 2]
        view = moved * (2.0 / width, 2.0 / height) - depth[:, None]
    return np.column_stack([view[:, 0], -view[:, 1], z, depth])


def front_depth(world: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(V, V) float32 z of the nearest surface at each pixel of the crop's view, decimetre; far behind where there is
    none."""
    ids, _, depth = rasterize_numpy(clip_coordinates(world), triangles, FINENESS, FINENESS)
    near, far = camera.NEAR, camera.FAR
    distance = 2.0 * near * far / ((near + far) - depth.astype(np.float64) * (far - near))
    return np.where(ids >= 0, camera.CAMERA_DISTANCE - distance, _NOTHING).astype(np.float32)


def trusted(front: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Trust in the photo's colour by where in the picture it lies, in [0, 1].

    Args:
        front: (V, V) from ``front_depth``.
        mask: (S, S) skin mask of the crop, bool or uint8.

    Returns:
        (V, V) float32: 0 outside the mask, at its border, and where one part of the face hides another.
    """
    covered = front > _NOTHING / 2
    grey = np.asarray(mask)
    grey = grey.astype(np.float32) / (255.0 if grey.dtype == np.uint8 else 1.0)
    inside = cv2.resize(grey, (FINENESS, FINENESS), interpolation=cv2.INTER_LINEAR) > 0.5
    trust, region = np.zeros(front.shape, np.float32), _region(inside & covered)
    if region is not None:  # beyond it nothing is trusted
        front, covered, inside = front[region], covered[region], inside[region]
        trust[region] = (_risen(inside & covered, _MASK_FEATHER)
                         * _risen(~_hiding(front, covered), _EDGE_FEATHER))
    return trust


def _region(good):
    """The rows and columns where something is good, and so many around them that their border changes nothing; None
    where nothing is."""
    margin = math.ceil(_EDGE_FEATHER / _MILLIMETRES) + 2
    ranges = []
    for axis in (1, 0):
        there = np.flatnonzero(good.any(axis=axis))
        if not len(there):
            return None
        ranges.append(slice(max(there[0] - margin, 0), there[-1] + 1 + margin))
    return tuple(ranges)


def _hiding(front, covered):
    """(V, V) bool where the surface jumps: its depth bends more than a face does from pixel to pixel."""
    bent = np.zeros(front.shape, bool)
    for axis in (0, 1):
        before, here, after = (tuple(part if along == axis else slice(None) for along in (0, 1))
                               for part in (slice(None, -2), slice(1, -1), slice(2, None)))
        bent[here] |= np.abs(front[before] + front[after] - np.float32(2.0) * front[here]) > _EDGE
    return bent & covered


def _risen(good, millimetres):
    """0 where not good, rising smoothly to 1 over some millimetres from there; the picture's border is bad, too."""
    distance = cv2.distanceTransform(np.pad(good, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    share = np.clip(distance * np.float32(_MILLIMETRES / millimetres), 0.0, 1.0)
    return share * share * (np.float32(3.0) - np.float32(2.0) * share)
