"""A face baked into texture images at the sharpness of its photo.

The fine face's vertex colours already reproduce the photo as far as a vertex can. Of each texel that the photo shows,
r = log(photo) - log(A S) is what they lack, with A and S the vertices' albedo and light between their corners; it has
next to no low frequencies, so that w r, with w the trust in the photo's colour, which falls to 0 smoothly, leaves no
seam. In the photo's light the texture is A S exp(w r), which is the photo itself where w = 1; the albedo is
A exp(k w r), with k the share of such detail that is believed to be skin, at its right place, and no light; it is less
for an r that the photo's noise n would make, k = s / (1 + (n / (r A S))^2).

Letters: N vertices, F triangles, T texels a side, S pixels of the crop.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from facegcn import camera
from facegcn.backends import baking_kernel
from facegcn.morphable import MorphableModel
from facegcn.texture.raster import texels_of
from facegcn.texture.seen import FINENESS, front_depth, inverse, trusted
from facegcn.texture_layout import TextureLayout, signed_areas

_CERTAIN, _SLOPING, _MOST = 0.005, 0.008, 0.1  # decimetre behind the nearest surface; twice that is not seen
_GRAZING, _FACING = 0.15, 0.4  # the normal's z between which trust in a colour rises
#: Of the detail in the albedo: the detail step's. On 8 portraits of heads with known colours (docs/deviations.md),
#: before noise was taken off, the albedo from the front, 40 and 70 degrees was 21.33, 21.59, 21.92 dB near the truth,
#: with 1 21.11, 21.37, 21.72, with 0.5 21.58, 21.82, 22.14; the vertices' own, which are blurred, 21.88, 22.09, 22.40:
#: detail that lies a millimetre beside its place costs more than detail that is lacking.
_SHARE = 0.78
#: Levels of a photo's own noise: divided by a weak light, it would be grain in the albedo. On 12 portraits taking it
#: off brings the albedo from 23.24, 22.44, 22.71 to 23.28, 22.48, 22.75 dB.
_NOISE = 3.0
_GREATEST = 1.6  # logarithm of the factor by which the photo may change an albedo
_MARGIN = 4  # pixels around what a face needs of its photo


class BakedTextures(NamedTuple):
    """Texture images of one face; row 0 is the top (v = 1), padded beyond the islands.

    Attributes:
        albedo: (T, T, 3) uint8 RGB, without light.
        lit: (T, T, 3) uint8 RGB, in the photo's light.
        visibility: (T, T) uint8, 255 where the camera sees the surface and the photo reaches, 0 where it does not.
        confidence: (T, T) uint8, 255 where the colour is the photo's, 0 where it is the vertices'.
    """

    albedo: np.ndarray
    lit: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray


class BakedFace(NamedTuple):
    """What is baked: one face as test mode finds it, and the photo that shows it.

    Attributes:
        world: (N, 3) posed vertices, decimetre.
        normals: (N, 3) unit, world axes.
        albedo: (N, 3) fine albedo in [0, 1].
        shading: (N, 3) factor of the albedo, the detail step's local light included: ``fine_color / fine_texture``.
        photo: (h, w, 3) uint8 RGB, the original picture, of any size.
        transform: (2, 3) photo pixels -> crop pixels.
        mask: (S, S) skin mask of the crop, bool, or [0, 1] / [0, 255].
    """

    world: np.ndarray
    normals: np.ndarray
    albedo: np.ndarray
    shading: np.ndarray
    photo: np.ndarray
    transform: np.ndarray
    mask: np.ndarray


class Baker:
    """Bakes faces of one model into textures of one size; the texels are found once.

    Args:
        morphable: gives the triangles.
        layout: of this model (``layout.layout_of``).
        size: T.

    Raises:
        UserError: as ``raster.texels_of``.
    """

    def __init__(self, morphable: MorphableModel, layout: TextureLayout, size: int):
        self.layout, self.texels = layout, texels_of(layout, size)
        self._triangles = np.ascontiguousarray(morphable.triangles, np.int32)
        self._texel_areas = np.maximum(np.abs(signed_areas(layout.texels(size), layout.triangles)), 1e-6)

    def __call__(self, face: BakedFace) -> BakedTextures:
        """The textures of one face.

        Raises:
            ValueError: an array has another shape.
        """
        _check(face, len(np.unique(self.layout.vertices)))
        world = np.asarray(face.world, np.float64)
        crop_size, back = np.asarray(face.mask).shape[0], inverse(face.transform)
        photo, to_photo = _needed(np.asarray(face.photo), back, crop_size)
        pixels, places = _pyramid(photo)
        front = front_depth(world, self._triangles)
        surface = np.zeros((len(world), baking_kernel.COLUMNS), np.float32)
        surface[:, :3], surface[:, 3] = world, np.asarray(face.normals)[:, 2]
        surface[:, 4:7], surface[:, 7] = np.clip(face.albedo, 0.0, 1.0), self._levels_of(world, to_photo, crop_size)
        surface[:, 8:11] = np.maximum(face.shading, 0.0)
        view = np.concatenate([[camera.CAMERA_DISTANCE, camera.TAN_HALF_FOV, crop_size, FINENESS / crop_size],
                               to_photo.ravel(), photo.shape[1::-1], [FINENESS]])
        limits = np.array([_CERTAIN, _SLOPING, _MOST, _GRAZING, _FACING, _GREATEST, _SHARE,
                           _NOISE / 255.0])
        count, texels = self.texels.size ** 2, self.texels
        albedo, lit = np.empty((count, 3), np.uint8), np.empty((count, 3), np.uint8)
        visibility, confidence = np.empty(count, np.uint8), np.empty(count, np.uint8)
        baking_kernel.bake(texels.index, texels.triangles, texels.shares, self._triangles, surface, view, front,
                           trusted(front, face.mask), pixels, places, limits, albedo, lit, visibility, confidence)
        for image in (albedo, lit, visibility, confidence):
            texels.fill_gaps(image)
        square = (texels.size, texels.size)
        return BakedTextures(albedo.reshape(*square, 3), lit.reshape(*square, 3), visibility.reshape(square),
                             confidence.reshape(square))

    def _levels_of(self, world, to_photo, crop_size):
        """(N,) level of the photo's pyramid at which its pixels are as fine as the texels around each vertex."""
        scale = crop_size / 2.0 / ((camera.CAMERA_DISTANCE - world[:, 2:]) * camera.TAN_HALF_FOV)
        pixels = world[:, :2] * (1.0, -1.0) * scale @ to_photo[:, :2].T
        seen, count = np.abs(signed_areas(pixels, self._triangles)), len(world)
        corners = self._triangles.ravel()
        in_photo = np.bincount(corners, np.repeat(seen, 3), count)
        in_texture = np.bincount(corners, np.repeat(self._texel_areas, 3), count)
        return 0.5 * np.log2(np.maximum(in_photo, 1e-6) / np.maximum(in_texture, 1e-6))


def _check(face, count):
    """Raises ValueError naming the first misshapen array."""
    for name in ("world", "normals", "albedo", "shading"):
        if np.shape(getattr(face, name)) != (count, 3):
            raise ValueError(f"{name} must have shape ({count}, 3), got {np.shape(getattr(face, name))}")
    photo, mask = np.asarray(face.photo), np.asarray(face.mask)
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo must be (h, w, 3) uint8, got {photo.shape} {photo.dtype}")
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask must have shape (S, S), got {mask.shape}")
    if np.shape(face.transform) != (2, 3):
        raise ValueError(f"transform must have shape (2, 3), got {np.shape(face.transform)}")


def _needed(photo, back, crop_size):
    """The part of the photo that the crop shows, and the transform (2, 3) from crop pixels to it."""
    corners = crop_size * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) @ back[:, :2].T + back[:, 2]
    limit = np.array(photo.shape[1::-1])
    first = np.clip(np.floor(corners.min(axis=0)) - _MARGIN, 0, limit - 1).astype(int)
    last = np.clip(np.ceil(corners.max(axis=0)) + _MARGIN, first + 1, limit).astype(int)
    moved = back.copy()
    moved[:, 2] -= first
    return np.ascontiguousarray(photo[first[1]:last[1], first[0]:last[0]]), moved


def _pyramid(photo):
    """Pixels of a picture and of its halves, one after the other, as uint32 whose lower bytes are red, green and blue,
    and places (L, 3) of first pixel, rows and columns of each level."""
    halves = [photo]
    while min(halves[-1].shape[:2]) > 1:
        height, width = halves[-1].shape[:2]
        halves.append(cv2.resize(halves[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
    places = np.array([[0, *half.shape[:2]] for half in halves], np.int64)
    ends = np.cumsum(places[:, 1] * places[:, 2])
    places[1:, 0] = ends[:-1]
    pixels = np.empty((ends[-1], 4), np.uint8)
    for half, (first, rows, columns) in zip(halves, places):
        cv2.cvtColor(half, cv2.COLOR_RGB2RGBA, dst=pixels[first:first + rows * columns].reshape(rows, columns, 4))
    return pixels.ravel().view("<u4").astype(np.uint32, copy=False), places
