"""A textured face put back into its photo, at the photo's full size.

Letters: N vertices, T texels a side, S pixels of the crop, h w pixels of the photo.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.texture.drawing import Drawing, to_bytes
from facegcn.texture.seen import clip_coordinates, inverse
from facegcn.texture_layout import TextureLayout

_FEATHER = 4.0  # pixels of a crop of 224 over which the face rises from nothing inside the mask's border
_REFERENCE = 224


def pasted(photo: np.ndarray, world: np.ndarray, layout: TextureLayout, texture: np.ndarray, transform: np.ndarray,
           mask: np.ndarray) -> np.ndarray:
    """The face's picture in the photo; only the face's region is computed.

    Args:
        photo: (h, w, 3) uint8 RGB, the original picture.
        world: (N, 3) posed vertices, decimetre.
        layout: of their model.
        texture: (T, T, 3) uint8, the lit one as a rule.
        transform: (2, 3) photo pixels -> crop pixels.
        mask: (S, S) skin mask of the crop, bool or uint8, at whose border the face ends softly.

    Returns:
        (h, w, 3) uint8; the photo itself outside face and mask.

    Raises:
        ValueError: the photo is not (h, w, 3) uint8, or the mask not square.
    """
    photo, mask = np.asarray(photo), np.asarray(mask)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo must be (h, w, 3) uint8, got {photo.shape} {photo.dtype}")
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask must have shape (S, S), got {mask.shape}")
    size, back, result = len(mask), inverse(transform), photo.copy()
    left, top, right, bottom = _region(world, back, size, photo.shape)
    if right <= left or bottom <= top:
        return result
    moved = back - np.array([[0.0, 0.0, left], [0.0, 0.0, top]])
    height, width = bottom - top, right - left
    drawing = Drawing(world, layout, height, width, moved, size)
    share = (_soft(mask, moved, height, width) * drawing.covered)[..., None]
    region = result[top:bottom, left:right]
    region[:] = to_bytes(region + share * (drawing.colors(texture) - region))
    return result


def drawn_over(photo: np.ndarray, world: np.ndarray, layout: TextureLayout, albedo: np.ndarray, shading: np.ndarray,
               share: np.ndarray, transform: np.ndarray, crop_size: int) -> np.ndarray:
    """The face in a light drawn over a photo without a mask: where the model says, ending softly at its outline.

    Args:
        photo: (h, w, 3) uint8 RGB.
        world: (N, 3) posed vertices, decimetre.
        layout: of their model.
        albedo: (T, T, 3) uint8 texture.
        shading: (N, 3) factor of the albedo.
        share: (N,) in [0, 1] of the face in the picture, by vertices.
        transform: (2, 3) photo pixels -> crop pixels; the face may lie outside of the crop.
        crop_size: width of that crop, pixels.

    Returns:
        (h, w, 3) uint8; the photo itself where the face is not.
    """
    back, result = inverse(transform), photo.copy()
    left, top, right, bottom = _region(world, back, crop_size, photo.shape)
    if right <= left or bottom <= top:
        return result
    moved = back - np.array([[0.0, 0.0, left], [0.0, 0.0, top]])
    drawing = Drawing(world, layout, bottom - top, right - left, moved, crop_size)
    inside = cv2.distanceTransform(np.pad(drawing.covered, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    feather = _FEATHER * crop_size / _REFERENCE * np.sqrt(abs(np.linalg.det(back[:, :2])))
    rise = np.clip((inside - 0.5) / feather, 0.0, 1.0).astype(np.float32)
    values = drawing.attributes(np.column_stack([shading, share]))
    part = (rise * rise * (3.0 - 2.0 * rise))[..., None] * values[..., 3:]
    region = result[top:bottom, left:right]
    region[:] = to_bytes(region + part * (drawing.colors(albedo) * values[..., :3] - region))
    return result


def _region(world, back, size, shape):
    """First and last columns and rows of the photo that the face may cover: left, top, right, bottom."""
    clip = clip_coordinates(world)
    crop = (clip[:, :2] / clip[:, 3:] * (1.0, -1.0) + 1.0) * (size / 2.0)
    points = crop @ back[:, :2].T + back[:, 2]
    limit = np.array(shape[1::-1])
    return (*np.clip(np.floor(points.min(axis=0)), 0, limit).astype(int),
            *np.clip(np.ceil(points.max(axis=0)), 0, limit).astype(int))


def _soft(mask, to_region, height, width):
    """(height, width) float32 share of the face: 0 outside the mask, rising to 1 inside it."""
    grey = (np.asarray(mask) if mask.dtype == np.uint8 else mask * np.uint8(255)) > 127
    distance = cv2.distanceTransform(np.pad(grey, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rise = np.clip((distance - 0.5) * (_REFERENCE / (_FEATHER * len(mask))), 0.0, 1.0).astype(np.float32)
    centres = np.array(to_region)  # OpenCV counts from the first pixel's centre, we from its corner
    centres[:, 2] += centres[:, :2] @ (0.5, 0.5) - 0.5
    share = cv2.warpAffine(rise, centres, (width, height), flags=cv2.INTER_LINEAR)
    return share * share * (3.0 - 2.0 * share)
