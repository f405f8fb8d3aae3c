"""Points of a photo that are known by their place on a morphable model's surface, and what their places are worth.

A landmark detector has a convention of its own of where each point lies, and errors of its own. Both are held here as
numbers, so that one fit (``landmark_fitting``) serves 468 dense landmarks, 68 iBUG points and five alignment points:

    what a detector names = projection of the surface point + bias + factors u + noise e,   u, e standard normal

``factors`` are errors that many points share: a detector which takes a chin for longer than it is moves thirty points
at once. Without them a fit takes 468 points for 468 independent witnesses, and changes identity to please them.

Letters: L points of the detector, M of them on the surface, R shared errors, N vertices, F triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegcn.landmarks import DENSE_COUNT, FIVE_POINT_LANDMARKS, LANDMARK_COUNT, TARGET_COUNT

CROP_PIXELS = 224.0  # width of the crop whose pixels all errors are counted in
_POINT_NOISE = 2.0  # crop pixels, standard deviation of points that people or detectors set
_JAW_NOISE = 8.0  # of the first 17 iBUG points, which lie on the outline: they slide as the head turns
_JAW = 17


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Where the dense landmarks lie on a morphable model, as its file holds it.

    Attributes:
        triangles: (468,) int32 triangle that holds each landmark, -1 where it lies on no surface of the model.
        barycentrics: (468, 3) float32 weights of its corners, sum 1; rows of -1 mean nothing.
        bias: (468, 2) float32 pixels of a 224 crop, x right, y down, by which the detector is off in the mean, of an
            upright head.
        noise: (468,) float32 pixels, standard deviation of each coordinate's own error.
        factors: (468, 2, R) float32 pixels that one standard deviation of each shared error moves the points.
    """

    triangles: np.ndarray
    barycentrics: np.ndarray
    bias: np.ndarray
    noise: np.ndarray
    factors: np.ndarray


@dataclass(frozen=True)
class SurfacePoints:
    """Detector points on a model's surface.

    Attributes:
        count: L, points of the detector.
        rows: (M,) int which of them lie on the surface.
        vertices: (M, C) int vertices that each is a mix of.
        weights: (M, C) float64 their weights, sum 1.
        bias: (M, 2) float64 pixels of a 224 crop, as ``LandmarkEmbedding``.
        noise: (M,) float64 pixels.
        factors: (M, 2, R) float64 pixels; R may be 0.
    """

    count: int
    rows: np.ndarray
    vertices: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    noise: np.ndarray
    factors: np.ndarray

    def of(self, array: np.ndarray) -> np.ndarray:
        """Values (M, ...) float64 at the points of a vertex array (N, ...)."""
        return np.einsum("mc,mc...->m...", self.weights, np.asarray(array)[self.vertices].astype(np.float64))


def dense_points(morphable) -> SurfacePoints:
    """The dense landmarks by the model's own embedding.

    Args:
        morphable: a ``MorphableModel``.

    Raises:
        ValueError: the model has no embedding.
    """
    embedding = morphable.embedding
    if embedding is None:
        raise ValueError("the morphable model has no landmark embedding")
    rows = np.flatnonzero(embedding.triangles >= 0)
    return SurfacePoints(DENSE_COUNT, rows, morphable.triangles[embedding.triangles[rows]],
                         *(array[rows].astype(np.float64) for array in (
                             embedding.barycentrics, embedding.bias, embedding.noise, embedding.factors)))


def target_points(morphable) -> SurfacePoints:
    """The 68 iBUG points and the five alignment points, in the order of ``landmarks.landmark_targets``.

    Args:
        morphable: a ``MorphableModel``.
    """
    widest = max(len(group) for group in FIVE_POINT_LANDMARKS)
    marks, weights = np.zeros((TARGET_COUNT, widest), np.int64), np.zeros((TARGET_COUNT, widest))
    for row, group in enumerate([*((k,) for k in range(LANDMARK_COUNT)), *FIVE_POINT_LANDMARKS]):
        marks[row, :len(group)], weights[row, :len(group)] = group, 1.0 / len(group)
    noise = np.full(TARGET_COUNT, _POINT_NOISE)
    noise[:_JAW] = _JAW_NOISE
    return SurfacePoints(TARGET_COUNT, np.arange(TARGET_COUNT), morphable.landmarks[marks], weights,
                         np.zeros((TARGET_COUNT, 2)), noise, np.zeros((TARGET_COUNT, 2, 0)))


def joined(first: SurfacePoints, second: SurfacePoints) -> SurfacePoints:
    """The points of two detectors as those of one: first the first's; they share no error with the second's."""
    corners = max(first.vertices.shape[1], second.vertices.shape[1])
    shared = (first.factors.shape[2], second.factors.shape[2])

    def padded(array, axis, before, after):
        widths = [(0, 0)] * array.ndim
        widths[axis] = (before, after)
        return np.pad(array, widths)

    def wide(points, name):
        array = getattr(points, name)
        return padded(array, 1, 0, corners - array.shape[1])

    return SurfacePoints(
        first.count + second.count, np.concatenate([first.rows, second.rows + first.count]),
        np.concatenate([wide(points, "vertices") for points in (first, second)]),
        np.concatenate([wide(points, "weights") for points in (first, second)]),
        np.concatenate([first.bias, second.bias]), np.concatenate([first.noise, second.noise]),
        np.concatenate([padded(first.factors, 2, 0, shared[1]), padded(second.factors, 2, shared[0], 0)]))
