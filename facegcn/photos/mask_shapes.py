"""Morphology of bool masks, common to what finds faces' masks."""

from __future__ import annotations

import cv2
import numpy as np


def ellipse(width: float) -> np.ndarray:
    """Structuring element of odd width, 3 pixels at least."""
    width = 2 * max(1, round((width - 1) / 2)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))


def morph(mask: np.ndarray, operation: int, width: float) -> np.ndarray:
    """OpenCV morphology of a bool mask with an ellipse of ``width`` pixels."""
    return cv2.morphologyEx(mask.astype(np.uint8), operation, ellipse(width)) > 0


def main_parts(mask: np.ndarray, seed: np.ndarray, smallest: float) -> np.ndarray:
    """The connected parts of a mask that touch the seed or have at least ``smallest`` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    kept = stats[:, 4] >= smallest
    kept[np.unique(labels[seed])] = True
    kept[0] = False  # label 0 is the background
    return kept[labels]


def fill_holes(mask: np.ndarray, largest: float) -> np.ndarray:
    """The mask with enclosed holes of up to ``largest`` pixels filled."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    height, width = mask.shape
    left, top, wide, high, area = (stats[:, i] for i in range(5))
    enclosed = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    small = enclosed & (area <= largest)
    small[0] = False  # label 0 is the mask itself
    return mask | small[labels]


def hull(shape, points: np.ndarray, margin: float) -> np.ndarray:
    """(H, W) bool: the convex hull of points (M, 2), widened by ``margin`` pixels."""
    return _widened(shape, cv2.convexHull(np.float32(points))[:, 0], margin)


def polygon(shape, points: np.ndarray) -> np.ndarray:
    """(H, W) bool: inside of a closed line (M, 2)."""
    return _widened(shape, points, 0.0)


def _widened(shape, points, margin):
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.rint(np.asarray(points) - 0.5).astype(np.int32)], 1)
    return (cv2.dilate(canvas, ellipse(2 * margin + 1)) if margin else canvas) > 0
