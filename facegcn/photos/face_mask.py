"""The face's mask in a crop with dense landmarks: hair, hands, cloth, frames and glare are no face.

Inside the landmarks' outline a pixel is face if its colour is that of this face's skin under its light
(``skin_field``). Eyes, brows, lips and nostrils are face by their places, unless what is around them is covered.
Numbers were chosen on made portraits.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.photos import skin_field
from facegcn.photos.face_regions import FaceRegions, check_dense
from facegcn.photos.mask_shapes import ellipse, fill_holes, main_parts, morph

_AROUND = 0.2  # of the larger side of the face, looked at beside it
_NEAR = 3.1  # deviations that still count as skin
_FARTHEST = 8.0  # what is farther is as far: one speck must not spoil its surroundings
_RADIUS, _EDGE = 0.025, 0.10  # units and logarithm, of the guided filter
#: Hair and cloth come from the rim: distances at the face's middle count by the first, and grow by the second to the
#: rim, at these units right and down.
_MIDDLE_DOUBT, _RIM_DOUBT, _HALF = 0.5, 0.35, (0.45, 0.60)
_ABOVE_DOUBT = 1.0  # distances grow by this part above the oval, where hair begins
_STRAND, _STRAND_AREA, _FRINGE_DOUBT = 0.02, 0.03, 8.0  # units; of local contrast above the brows: strands of hair
_SIDE, _SIDE_DOUBT = 0.04, 0.4  # units that the outline is wider than the oval, and the doubt there
_COVERED = 0.45  # share of skin around a feature below which something covers it
_ALIEN = 12.0  # deviations of tint that no iris and no brow has
_BEARD_TINT, _BEARD_DARK = 2.2, -0.05  # a beard's tint may be farther by this factor; its lightness is below
_LINE, _LINE_DARK, _LINE_LONG = 0.055, 0.12, 0.30  # units wide, logarithm, units long: a frame of glasses
_GLASSES = 0.21  # units, the reach of glasses from the eyes
_GLARE, _GLARE_PALE = 0.35, 0.5  # logarithm brighter than skin, and part of skin's tint that is left
_PALE_HOLE, _ALMOST = 0.03, 1.7  # enclosed holes up to that share are skin where distances are below that many limits
_SLIVER, _SPECK, _HOLE, _PART = 0.03, 0.0006, 0.004, 0.02  # units; shares of the unit's square


def face_mask(image: np.ndarray, dense: np.ndarray, keep_features: bool = True) -> np.ndarray | None:
    """Where a crop shows the face.

    Args:
        image: (H, W, 3) uint8 RGB.
        dense: (468, 3) x, y in pixels and trust.
        keep_features: keep eyes, brows, lips and what they enclose; False leaves skin alone.

    Returns:
        (H, W) bool; None where no bare skin is in sight to learn from.

    Raises:
        ValueError: as ``FaceRegions``; the image is not (H, W, 3).
    """
    check_dense(dense)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image (H, W, 3), got {image.shape}")
    whole = np.zeros(image.shape[:2], bool)
    box, moved = _box(dense, image.shape[:2])
    found = _mask_inside(image[box], moved, keep_features) if whole[box].size else whole[box]
    if found is None:
        return None
    whole[box] = found
    return whole


def _box(dense, shape):
    """Rows and columns around the face, and its landmarks in them: the rest of a crop would cost time."""
    dense = np.float64(dense)
    places = dense[:, :2]
    margin = _AROUND * np.ptp(places, axis=0).max()
    low = np.clip(np.floor(places.min(axis=0) - margin), 0, shape[::-1]).astype(int)
    high = np.clip(np.ceil(places.max(axis=0) + margin), 0, shape[::-1]).astype(int)
    return (slice(low[1], high[1]), slice(low[0], high[0])), dense - (*low, 0.0)


def _mask_inside(image, dense, keep_features):
    """``face_mask`` of a picture with nothing but the face."""
    regions = FaceRegions(dense, image.shape[:2])
    colors = skin_field.log_colors(image)
    found = skin_field.residuals(colors, regions, np.ones(image.shape[:2], bool))
    if found is None:
        return None
    left, spread = found
    area = regions.unit ** 2
    outline = morph(regions.outline, cv2.MORPH_DILATE, 2 * _SIDE * regions.unit)
    far = _far(left, spread, colors, regions)
    lenses = _lenses(regions)
    skin = outline & (far < _NEAR) & ~(_glare(left, colors) & lenses)
    frames = _frames(colors[..., 0], lenses, regions)
    skin = morph(skin & ~frames, cv2.MORPH_OPEN, _SLIVER * regions.unit)
    skin = main_parts(skin, skin & np.any(regions.safe(), axis=0), _PART * area)
    skin = fill_holes(skin, _SPECK * area)
    skin |= fill_holes(skin, _PALE_HOLE * area) & (far < _NEAR * _ALMOST) & ~frames
    if keep_features:
        skin = fill_holes(skin | _features(skin, left, spread, regions) & outline, _HOLE * area) & ~frames
    else:
        skin &= ~regions.features()
    return skin


def _far(left, spread, colors, regions):
    """Distance from skin, smoothed along the picture's edges, grown where hair is likely."""
    plain = np.minimum(skin_field.distance(left, spread), np.float32(_FARTHEST))
    radius = max(1, round(_RADIUS * regions.unit))
    far = skin_field.smoothed(plain, colors[..., 0], radius, _EDGE)
    right, down = regions.coordinates()
    inner = _MIDDLE_DOUBT + _RIM_DOUBT * (np.square(right / _HALF[0]) + np.square(down / _HALF[1]))
    doubt = np.where(regions.oval, inner, np.where(regions.outline, 1.0 + _ABOVE_DOUBT, 1.0 + _SIDE_DOUBT))
    smooth = cv2.GaussianBlur(colors[..., 0], (0, 0), _STRAND * regions.unit)
    detail = np.square(colors[..., 0] - smooth)
    strands = np.sqrt(cv2.GaussianBlur(detail, (0, 0), _STRAND_AREA * regions.unit))
    fringe = regions.above_brows & ~regions.features()
    return far * np.float32(doubt) * np.where(fringe, 1.0 + _FRINGE_DOUBT * strands, 1.0)


def _glare(left, colors):
    """Reflections on glasses that burn out what is below them: far brighter and paler than skin."""
    tint = colors[..., 1:] - left[..., 1:]
    pale = np.abs(colors[..., 1:]).sum(axis=-1) < _GLARE_PALE * np.abs(tint).sum(axis=-1)
    return (left[..., 0] > _GLARE) & pale


def _lenses(regions):
    """Where the lenses of glasses may be: around the eyes, short of the nose's end."""
    away = cv2.distanceTransform(np.uint8(~np.any(regions.eyes, axis=0)), cv2.DIST_L2, 3)
    return (away < _GLASSES * regions.unit) & regions.above_cheeks & ~regions.nose


def _frames(light, ring, regions):
    """Long dark lines around the eyes that are neither brows nor lashes."""
    dark = cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, ellipse(_LINE * regions.unit)) > _LINE_DARK
    lines = dark & ring & ~np.any([*regions.eyes, *regions.brows], axis=0)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines.astype(np.uint8), connectivity=8)
    long = np.maximum(stats[:, 2], stats[:, 3]) > _LINE_LONG * regions.unit
    long[0] = False
    return morph(long[labels], cv2.MORPH_DILATE, 3)


def _features(skin, left, spread, regions):
    """Eyes, brows, lips, nostrils and a beard, of those that nothing covers."""
    tint = np.hypot(left[..., 1] / spread[1], left[..., 2] / spread[2])
    kept = []
    around = regions.around(regions.nostrils, 0.04)
    if around.any() and skin[around].mean() > _COVERED:
        kept.append(regions.nostrils)
    for eye, brow in zip(regions.eyes, regions.brows):
        around = regions.around(eye, 0.06)
        if around.any() and skin[around].mean() > _COVERED:
            kept.append((eye | brow) & (tint < _ALIEN))
    lips = regions.lips & (regions.trust.max() > 0)
    if lips.any() and np.median(left[lips][:, 1] / spread[1]) > -3.0 and np.median(left[lips][:, 0]) > -1.2:
        kept.append(regions.lips)
        beard = regions.below & (tint < _NEAR * _BEARD_TINT) & (left[..., 0] < _BEARD_DARK)
        kept.append(morph(beard, cv2.MORPH_OPEN, _SLIVER * regions.unit))
    return np.any(kept, axis=0)
