"""The inner loops of baking and drawing textures, compiled by Numba; they release Python's lock.

``facegcn.texture`` holds the public functions and the meaning of the arrays. Coordinates count from the picture's top
left corner: pixel i covers [i, i + 1). Letters: N vertices, F triangles, K covered texels, T texels a side.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_DARKEST, _LEVEL = np.float32(2.0), np.float32(1.0 / 255.0)  # levels of a photo; one of them
_NO_LIGHT, _DIM, _TINY = np.float32(1e-3), np.float32(0.02), np.float32(1e-12)
_inlined = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_compiled
def _bilinear(image, x, y, result):
    """Channels of an image (H, W, C) between the four pixel centres around a place, clamped to it."""
    height, width, channels = image.shape
    x, y = min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0)
    left, top = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    fx, fy = x - left, y - top
    for c in range(channels):
        upper = image[top, left, c] * (1.0 - fx) + image[top, right, c] * fx
        lower = image[bottom, left, c] * (1.0 - fx) + image[bottom, right, c] * fx
        result[c] = upper * (1.0 - fy) + lower * fy


@_inlined
def _cubic(f):
    """Catmull-Rom weights of four neighbours, the place lying f behind the second."""
    return (((2.0 - f) * f - 1.0) * f / 2.0, ((3.0 * f - 5.0) * f * f + 2.0) / 2.0,
            ((4.0 - 3.0 * f) * f + 1.0) * f / 2.0, (f - 1.0) * f * f / 2.0)


@_compiled
def _sharp(image, x, y, result):
    """As ``_bilinear``, by cubic interpolation, within the range of a byte."""
    height, width, channels = image.shape
    x, y = min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0)
    left, top = int(x), int(y)
    across, down = _cubic(x - left), _cubic(y - top)
    if channels == 3 and 0 < left < width - 2 and 0 < top < height - 2:  # as below, without looking at the border
        red = green = blue = np.float32(0.0)
        for j in range(4):
            row = top + j - 1
            for i in range(4):
                share = np.float32(down[j] * across[i])
                red += share * image[row, left + i - 1, 0]
                green += share * image[row, left + i - 1, 1]
                blue += share * image[row, left + i - 1, 2]
        for c, total in enumerate((red, green, blue)):
            result[c] = min(max(total, np.float32(0.0)), np.float32(255.0))
        return
    for c in range(channels):
        total = 0.0
        for j in range(4):
            row = min(max(top + j - 1, 0), height - 1)
            line = 0.0
            for i in range(4):
                line += across[i] * image[row, min(max(left + i - 1, 0), width - 1), c]
            total += down[j] * line
        result[c] = min(max(total, 0.0), 255.0)


@_compiled
def _sample(levels, places, level, x, y, result, other):
    """Colour of a picture's pyramid at a place of its finest level: sharp at level 0 or below, else between the two
    levels around it. The levels (R, W, 3) uint8 lie below each other; places (L, 3): first row, rows, columns."""
    last = places.shape[0] - 1
    if level <= 0.0 or last == 0:
        _sharp(levels[:places[0, 1], :places[0, 2]], x, y, result)
        return
    finer = min(int(level), last)
    share = np.float32(level - finer) if finer < last else np.float32(0.0)
    first, rows, columns = places[finer, 0], places[finer, 1], places[finer, 2]
    _bilinear(levels[first:first + rows, :columns], x * columns / places[0, 2], y * rows / places[0, 1], result)
    if share > 0.0:
        first, rows, columns = places[finer + 1, 0], places[finer + 1, 1], places[finer + 1, 2]
        _bilinear(levels[first:first + rows, :columns], x * columns / places[0, 2], y * rows / places[0, 1], other)
        for c in range(3):
            result[c] += (other[c] - result[c]) * share


@_inlined
def _smooth_step(x):
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


@_inlined
def _byte(x):
    """A value in [0, 1] as a byte."""
    return np.uint8(min(max(x, 0.0), 1.0) * 255.0 + 0.5)


@_compiled
def bake(index, owners, shares, corners, surface, view, front, weight, levels, places, limits,
         albedo, lit, visibility, confidence):
    """Writes the covered texels of one face's textures.

    Args:
        index, owners: (K,) place in the flat images, and triangle.
        shares: (K, 2) weights of the triangle's first two corners.
        corners: (F, 3) vertices.
        surface: (N, 11) float32 world position, normal's z, albedo, shading, level of the photo's pyramid.
        view: (12,) camera distance; tangent of half the field of view; width of the crop; pixels of ``front`` for one
            of the crop; crop to photo (2, 3) of its finest level; its width and height.
        front: (V, V) float32 z of the nearest surface.
        weight: (V, V, 1) float32 trust in the photo's colour by where it lies.
        levels, places: the photo, see ``_sample``.
        limits: (8,) depth that is seen for certain; more for each unit of slope; the most; the normal's z below which
            no colour is trusted, from which on all is; the most that the logarithm of an albedo may change; the share
            of the change that is the albedo's; the photo's noise, in [0, 1]: a change below it counts for less.
        albedo, lit: (T T, 3) uint8 results.
        visibility, confidence: (T T,) uint8 results.
    """
    mixed = np.empty(surface.shape[1], np.float32)
    color, other, trust = np.empty(3, np.float32), np.empty(3, np.float32), np.empty(1, np.float32)
    half = view[2] / 2.0
    greatest, share, noise_level = np.float32(limits[5]), np.float32(limits[6]), np.float32(limits[7])
    for k in range(len(index)):
        i, j, n = corners[owners[k], 0], corners[owners[k], 1], corners[owners[k], 2]
        a, b = shares[k, 0], shares[k, 1]
        c = np.float32(1.0) - a - b
        for q in range(len(mixed)):
            mixed[q] = a * surface[i, q] + b * surface[j, q] + c * surface[n, q]
        scale = half / ((view[0] - mixed[2]) * view[1])
        x, y = half + mixed[0] * scale, half - mixed[1] * scale
        px, py = view[4] * x + view[5] * y + view[6], view[7] * x + view[8] * y + view[9]
        column, row, facing = int(math.floor(x * view[3])), int(math.floor(y * view[3])), mixed[3]
        seen = 0.0
        if (facing > 0.0 and 0 <= column < front.shape[1] and 0 <= row < front.shape[0]
                and 0.0 <= px <= view[10] and 0.0 <= py <= view[11]):
            slope = math.sqrt(max(1.0 - facing * facing, 0.0)) / max(facing, 0.05)
            allowed = min(limits[0] + limits[1] * slope, limits[2])
            seen = min(max(2.0 - (front[row, column] - mixed[2]) / allowed, 0.0), 1.0)
        w = 0.0
        if seen > 0.0:
            _bilinear(weight, x * view[3], y * view[3], trust)
            w = trust[0] * seen * _smooth_step((facing - limits[3]) / (limits[4] - limits[3]))
        place, trusted = index[k], np.float32(w)
        visibility[place], confidence[place] = _byte(seen), _byte(w)
        if w > 0.0:
            _sample(levels, places, mixed[10], px, py, color, other)
        for q in range(3):
            plain, lighted = mixed[4 + q], mixed[4 + q] * mixed[7 + q]
            if w > 0.0:
                shown = max(color[q], _DARKEST) * _LEVEL
                change = trusted * np.float32(math.log(shown / max(lighted, _NO_LIGHT)))
                lit[place, q] = _byte(shown if w == 1.0 else lighted * np.float32(math.exp(change)))
                noise = trusted * noise_level / max(lighted, _DIM)
                kept = share * change * change / (change * change + noise * noise + _TINY)
                albedo[place, q] = _byte(plain * np.float32(math.exp(kept * min(max(change, -greatest), greatest))))
            else:
                lit[place, q], albedo[place, q] = _byte(lighted), _byte(plain)


@_compiled
def draw_textured(ids, barycentrics, corners, places, texture, picture):
    """Colours of a textured surface's pixels.

    Args:
        ids: (H, W) triangle, -1 = none.
        barycentrics: (H, W, 3).
        corners: (F, 3) texture vertices.
        places: (M, 2) float32 their texel coordinates, column and row.
        texture: (T, T, C) uint8 or float32.
        picture: (H, W, C) float32 result, 0 where there is no triangle.
    """
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                picture[row, column, :] = 0.0
                continue
            x = y = 0.0
            for c in range(3):
                share, n = barycentrics[row, column, c], corners[t, c]
                x += share * places[n, 0]
                y += share * places[n, 1]
            _bilinear(texture, x, y, picture[row, column])
