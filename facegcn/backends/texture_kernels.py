"""The inner loop of drawing textures, compiled by Numba; it releases Python's lock.

``facegcn.texture`` holds the public functions and the meaning of the arrays. Coordinates count from the picture's top
left corner: pixel i covers [i, i + 1). Letters: N vertices, F triangles, K covered texels, T texels a side.
"""

from __future__ import annotations

from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy")


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
