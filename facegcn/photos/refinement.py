"""A mask seen again after the fit: what the fitted face cannot explain is something in front of it."""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.photos import skin_field
from facegcn.photos.face_regions import FaceRegions
from facegcn.photos.mask_shapes import fill_holes, morph

_SURE, _DOUBTED = 4.0, 3.2  # deviations: what holds a pixel beyond the first goes, with what is beyond the second
_FARTHEST = 9.0  # what is farther is as far
_RADIUS, _EDGE = 0.03, 0.10  # units and logarithm, of the guided filter
_SPECK, _HOLE = 0.003, 0.004  # shares of the unit's square: smaller parts are the face's own, such as moles
_SLIVER = 0.03  # units; narrower is an edge that the shape misses
_EXPLAINED = 0.5  # share below which the fit itself says that a pixel is not the face's
_KEPT = 0.5  # share of a feature's surroundings that must stay, for the feature to stay


def refine_mask(rgba: np.ndarray, render_rgb: np.ndarray, coverage: np.ndarray, explained: np.ndarray | None = None,
                dense: np.ndarray | None = None) -> np.ndarray:
    """The mask without what a fitted coarse face cannot explain.

    The residual is that of logarithmic colours, so a light that is a little wrong does not matter; nor does a smooth
    error of the render, which is fitted and taken away first.

    Args:
        rgba: (H, W, 4) uint8 crop and its mask.
        render_rgb: (H, W, 3) levels in [0, 255] of the lit coarse face.
        coverage: (H, W) in [0, 1] or bool, where the render shows it.
        explained: (H, W) in [0, 1], how much of a pixel the fit counted as the face's, or None.
        dense: (468, 3) landmarks of the crop; without them nothing says where the features are, and the mask stays.

    Returns:
        (H, W) uint8, 0 or 255; it is 255 only where the mask was.

    Raises:
        ValueError: shapes that do not fit each other, or as ``FaceRegions``.
    """
    shape = rgba.shape[:2]
    if rgba.shape != (*shape, 4) or render_rgb.shape != (*shape, 3) or np.shape(coverage) != shape \
            or (explained is not None and np.shape(explained) != shape):
        raise ValueError(f"expected a picture (H, W, 4), its render (H, W, 3) and coverage (H, W), got {rgba.shape}, "
                         f"{render_rgb.shape} and {np.shape(coverage)}")
    mask = rgba[..., 3] > 127
    covered = np.asarray(coverage) > 0.5
    found = None
    if dense is not None:
        regions = FaceRegions(dense, shape)
        colors = skin_field.log_colors(rgba[..., :3])
        apart = colors - skin_field.log_colors(render_rgb)
        found = skin_field.residuals(apart, regions, mask & covered)
    if found is None:
        return np.where(mask, 255, 0).astype(np.uint8)
    plain = np.minimum(skin_field.distance(*found), np.float32(_FARTHEST))
    far = skin_field.smoothed(plain, colors[..., 0], max(1, round(_RADIUS * regions.unit)), _EDGE)
    doubted = far > _DOUBTED
    sure = far > _SURE
    if explained is not None:
        sure |= doubted & (np.asarray(explained) < _EXPLAINED)
    inside = morph(covered, cv2.MORPH_ERODE, 2 * _SLIVER * regions.unit)  # the render's rim is seldom quite in place
    occluder = _grown(sure & mask & inside & ~regions.features(), doubted & mask & covered, regions)
    kept = mask & ~occluder
    for seat, *parts in (*zip(regions.eyes, regions.eyes, regions.brows), (regions.lips, regions.lips),
                         (regions.nostrils, regions.nostrils)):
        around = regions.around(seat, 0.06) & mask
        if not around.any() or kept[around].mean() > _KEPT:
            kept |= np.any(parts, axis=0) & mask
    kept = fill_holes(kept, _HOLE * regions.unit ** 2) & mask
    return np.where(kept, 255, 0).astype(np.uint8)


def _grown(sure, doubted, regions):
    """The parts of what is doubted that hold something sure and are no specks or thin lines."""
    parts = morph(doubted, cv2.MORPH_OPEN, _SLIVER * regions.unit)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(parts.astype(np.uint8), connectivity=4)
    hit = np.bincount(labels[sure], minlength=len(stats))
    occluders = (stats[:, 4] >= _SPECK * regions.unit ** 2) & (hit >= 0.25 * stats[:, 4])
    occluders[0] = False
    return occluders[labels]
