"""The default skin mask of an aligned crop, from its own colours and landmarks.

Skin is what resembles the cheeks, the nose and a bare forehead, inside an enlarged face ellipse: a
Gaussian in YCrCb for each, stretched along shading and highlights, so that a half-lit face keeps both
halves. Hair, frames and strands that are thin and dark go; eyes, brows, mouth and beard, whose colours
are not skin's, are put back by their places. All numbers were chosen by eye on the masks of 16 portraits (skin from
light to dark, beards, fringes, glasses, side light): a mask of the user's own is better, and wins.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.photos.alignment import AlignedPhoto
from facegcn.photos.face_mask import face_mask
from facegcn.photos.mask_shapes import ellipse, fill_holes, hull, main_parts, morph

# Proportions of a face in decimetre, from the middle between the eyes: right, down. Axes are half axes of ellipses.
_EYE_DISTANCE, _MOUTH_DROP = 0.65, 0.70  # between the pupils [mean of adults 0.63]; from there down to the mouth
_FACE_CENTRE, _FACE_AXES = 0.20, (0.80, 1.05)  # larger than a face [1.4 x 1.9 whole], with ears, short of the hair
_CHEEK_DROP, _CHEEK_RADIUS, _NOSE_RADIUS = 0.58, 0.12, 0.08  # the first: a part of the way from eye to mouth corner
_EYE_AXES, _BROW_RISE, _BROW_AXES = (0.22, 0.12), 0.24, (0.34, 0.15)  # with lids and lashes; above the eye
_NOSTRIL_DROP, _NOSTRIL_AXES, _MOUTH_AXES = 0.08, (0.22, 0.14), (0.36, 0.20)  # below the nose's tip; with the lips
_AROUND_EYE = (0.30, 0.24)  # skin, unless dark glasses cover it
_FOREHEAD_RISE, _FOREHEAD_RADIUS, _FOREHEAD_START = 0.45, 0.10, 0.36  # of its seed; where a fringe may hang
_BEARD_TOP, _BEARD_RADIUS = 0.52, 0.78  # below the eyes, and share of the face ellipse
_EYE_MARGIN, _BROW_MARGIN, _MOUTH_MARGIN = 0.05, 0.07, 0.04  # around what landmarks enclose: they lie on edges

_NOISE = 1.0  # pixels, standard deviation of the blur that removes noise
_STRAND, _STRAND_AREA = 4.0, 5.0  # the same of the blur that removes strands of hair, and of their contrast's mean
_DARKEST = 10.0  # levels added to a ground that contrast is a part of: noise on black is no hair
_SURE_PART = 0.75  # of a seed's pixels, the most alike, give its colour: strands and frames may cross it
_NEAR = 3.0  # standard deviations from a Gaussian that still count as skin
_LEAST_DEVIATION = (8.0, 4.5, 5.0)  # of Y, Cr, Cb, levels: one patch shows less than a face does
_SHADE, _GLOSS = 0.18, 0.12  # standard deviations of shading and of white highlights, parts of the colour
_EDGE_DOUBT = 0.5  # distances grow by this part towards the edge of the face ellipse
_SMOOTH = 0.03  # local contrast below which a forehead is bare, not fringed
_FRINGE_DOUBT = 5.5  # distances on the forehead grow by this times the local contrast: strands of hair
_THIN, _THIN_DARK = 0.20, 0.65  # decimetre; what is narrower, and darker than this part of its surroundings
_GAP = 0.45  # decimetre; features lie in gaps of the skin narrower than this
_SLIVER = 0.08  # decimetre; what is narrower is a strand between hair, not skin
_FEWEST = 16  # pixels of a seed inside the picture
_COVERED = 0.5  # share of skin around an eye below which something covers it
_SPOT, _SMALL_HOLE, _SMALL_PART = 0.01, 0.03, 0.10  # decimetre^2: filled always, filled with features; dropped


class _Frame:
    """Positions and lengths of a face, from its five points."""

    def __init__(self, points: np.ndarray):
        left, right, self.nose, mouth_left, mouth_right = np.asarray(points, np.float64)
        self.eyes, self.mouth_corners = (left, right), (mouth_left, mouth_right)
        self.middle, self.mouth = (left + right) / 2.0, (mouth_left + mouth_right) / 2.0
        across, downwards = right - left, self.mouth - self.middle
        # A face turned aside narrows one of the two lengths.
        self.unit = max(np.linalg.norm(across) / _EYE_DISTANCE, np.linalg.norm(downwards) / _MOUTH_DROP)
        self.down = downwards / np.linalg.norm(downwards)
        self.roll = np.degrees(np.arctan2(across[1], across[0]))

    def coordinates(self, shape) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) distance from the face's centre, 1 on the face ellipse; decimetres below the eyes."""
        centre = self.middle + _FACE_CENTRE * self.unit * self.down
        rows, columns = np.indices(shape)
        offset = np.stack([columns, rows], axis=-1) + 0.5 - centre
        turn = np.radians(self.roll)
        across = offset @ (np.cos(turn), np.sin(turn)) / (_FACE_AXES[0] * self.unit)
        downwards = offset @ (-np.sin(turn), np.cos(turn)) / (_FACE_AXES[1] * self.unit)
        return np.hypot(across, downwards), downwards * _FACE_AXES[1] + _FACE_CENTRE

    def ellipse(self, shape, centre, axes) -> np.ndarray:
        """(H, W) bool: an ellipse of half axes in decimetre, rolled with the face."""
        canvas = np.zeros(shape, np.uint8)
        # We count from the pixel's corner, OpenCV from its centre.
        box = (tuple(map(float, np.asarray(centre) - 0.5)), tuple(2.0 * self.unit * axis for axis in axes), self.roll)
        cv2.ellipse(canvas, box, 1, -1)
        return canvas > 0


def skin_mask(image: np.ndarray, points: np.ndarray, landmarks: np.ndarray | None = None,
              keep_features: bool = True) -> np.ndarray:
    """Where an aligned crop shows the face's skin.

    Args:
        image: (H, W, 3) uint8 RGB crop.
        points: (5, 2) alignment points, pixels.
        landmarks: (68, 2) iBUG points, pixels, which place the features better; or None.
        keep_features: keep eyes, brows and mouth, which a fine texture has to show, unless glasses
            cover them; False leaves skin alone.

    Returns:
        (H, W) uint8, 0 or 255.
    """
    frame, shape = _Frame(points), image.shape[:2]
    area = frame.unit ** 2
    levels = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), _NOISE), cv2.COLOR_RGB2YCrCb).astype(np.float32)
    contrast = _local_contrast(levels[..., 0])
    seeds = _seeds(frame, levels, contrast)
    radius, drop = frame.coordinates(shape)
    doubt = 1.0 + _EDGE_DOUBT * radius ** 2 + np.where(drop < -_FOREHEAD_START, _FRINGE_DOUBT * contrast, 0.0)
    near = _distance(levels, _gaussians(levels, seeds)) * doubt < _NEAR
    skin = (radius < 1.0) & near & ~_thin_dark(levels[..., 0], frame)
    skin = morph(fill_holes(skin, _SPOT * area), cv2.MORPH_OPEN, _SLIVER * frame.unit)
    skin = fill_holes(main_parts(skin, np.any(seeds, axis=0), _SMALL_PART * area), _SPOT * area)
    if keep_features:
        beard = (drop > _BEARD_TOP) & (radius < _BEARD_RADIUS)
        skin = fill_holes(skin | _features(frame, skin, landmarks) | beard, _SMALL_HOLE * area)
    return np.where(skin, 255, 0).astype(np.uint8)


def crop_mask(aligned: AlignedPhoto, keep_features: bool = True) -> np.ndarray:
    """The estimated mask of an aligned photo: by its dense landmarks where it has them, else ``skin_mask``.

    A photo's transparency says where the picture is, not where skin is: a cut-out head has hair.

    Args:
        aligned: what ``alignment.align_photo`` made of it.
        keep_features: as for ``skin_mask``.

    Returns:
        (size, size) uint8, 0 or 255; 0 where the photo ends.
    """
    crop = aligned.crop
    if aligned.dense is not None:
        found = face_mask(crop.image, aligned.dense, keep_features)
        if found is not None:
            return np.where(found & crop.inside, 255, 0).astype(np.uint8)
    return skin_mask(crop.image, aligned.points, aligned.landmarks, keep_features) * crop.inside


def _local_contrast(luma: np.ndarray) -> np.ndarray:
    """(H, W): root mean square of fine luma detail, as a part of the luma: high on strands of hair."""
    smooth = cv2.GaussianBlur(luma, (0, 0), _STRAND)
    detail = (luma - smooth) / (smooth + _DARKEST)
    return np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _STRAND_AREA))


def _thin_dark(luma: np.ndarray, frame: _Frame) -> np.ndarray:
    """(H, W) bool: dark lines and spots on brighter ground: brows, lashes, glasses' frames, strands."""
    ground = cv2.morphologyEx(luma, cv2.MORPH_CLOSE, ellipse(_THIN * frame.unit))
    return luma < _THIN_DARK * ground


def _seeds(frame: _Frame, levels: np.ndarray, contrast: np.ndarray) -> list[np.ndarray]:
    """Masks of both cheeks and the nose, skin on almost every face, and of a bare forehead."""
    shape = contrast.shape
    cheeks = [frame.ellipse(shape, eye + _CHEEK_DROP * (corner - eye), (_CHEEK_RADIUS, _CHEEK_RADIUS))
              for eye, corner in zip(frame.eyes, frame.mouth_corners)]
    seeds = [*cheeks, frame.ellipse(shape, frame.nose, (_NOSE_RADIUS, _NOSE_RADIUS))]
    forehead = frame.ellipse(shape, frame.middle - _FOREHEAD_RISE * frame.unit * frame.down,
                             (_FOREHEAD_RADIUS, _FOREHEAD_RADIUS))
    # Smooth and not far from skin: no fringe, no cap. Its tint may differ from the cheeks'.
    if forehead.any() and np.median(contrast[forehead]) < _SMOOTH \
            and np.median(_distance(levels[forehead], _gaussians(levels, seeds))) < _NEAR:
        seeds.append(forehead)
    return seeds


def _gaussians(levels: np.ndarray, seeds: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mean, whitening matrix) of the colours in each seed and in their union."""
    found = []
    for seed in [*seeds, np.any(seeds, axis=0)]:
        samples = levels[seed]
        if len(samples) < _FEWEST:
            continue
        centre = np.median(samples, axis=0)
        spread = np.abs(samples - centre).sum(axis=1)
        samples = samples[spread <= np.quantile(spread, _SURE_PART)]
        colour = centre - (0.0, 128.0, 128.0)
        covariance = (np.cov(samples.T) + np.diag(np.square(_LEAST_DEVIATION))
                      + _SHADE ** 2 * np.outer(colour, colour))
        covariance[0, 0] += (_GLOSS * colour[0]) ** 2
        found.append((centre, np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)))
    return found


def _distance(levels: np.ndarray, gaussians: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Mahalanobis distance of colours (..., 3) from the nearest Gaussian; infinite without any."""
    nearest = np.full(levels.shape[:-1], np.inf, np.float32)
    for centre, whitening in gaussians:
        squared = np.square((levels - centre).reshape(-1, 3) @ whitening) @ np.ones(3, np.float32)
        nearest = np.minimum(nearest, np.sqrt(squared).reshape(nearest.shape))
    return nearest


def _features(frame: _Frame, skin: np.ndarray, landmarks: np.ndarray | None) -> np.ndarray:
    """(H, W) bool: mouth and nostrils, and the eyes and brows that nothing covers."""
    shape = skin.shape
    gaps = morph(skin, cv2.MORPH_CLOSE, _GAP * frame.unit)
    nostrils = frame.ellipse(shape, frame.nose + _NOSTRIL_DROP * frame.unit * frame.down, _NOSTRIL_AXES)
    regions = [_mouth(frame, shape, landmarks), nostrils]
    for side, eye in enumerate(frame.eyes):
        opening, brow = _eye(frame, shape, landmarks, side), _brow(frame, shape, landmarks, side)
        around = frame.ellipse(shape, eye, _AROUND_EYE) & ~opening & ~brow
        if around.any() and skin[around].mean() >= _COVERED:
            regions += [opening & gaps, brow & gaps]
    return np.any(regions, axis=0)


def _eye(frame, shape, landmarks, side) -> np.ndarray:
    if landmarks is None:
        return frame.ellipse(shape, frame.eyes[side], _EYE_AXES)
    return hull(shape, landmarks[36 + 6 * side:42 + 6 * side], _EYE_MARGIN * frame.unit)


def _brow(frame, shape, landmarks, side) -> np.ndarray:
    if landmarks is None:
        return frame.ellipse(shape, frame.eyes[side] - _BROW_RISE * frame.unit * frame.down, _BROW_AXES)
    return hull(shape, landmarks[17 + 5 * side:22 + 5 * side], _BROW_MARGIN * frame.unit)


def _mouth(frame, shape, landmarks) -> np.ndarray:
    if landmarks is None:
        return frame.ellipse(shape, frame.mouth, _MOUTH_AXES)
    return hull(shape, landmarks[48:60], _MOUTH_MARGIN * frame.unit)
