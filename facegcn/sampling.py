"""Colours sampled from the photo at the projected vertices, and which vertices it shows.

Letters: B images, H W pixels, N vertices. Formulas: the released code, except where labelled.
Pixels: coordinate 0 is the left or top edge of the picture, pixel i covers [i, i+1), its centre is i + 0.5.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import tensorflow as tf

from facegcn import camera
from facegcn.rasterizer import Rasterization, interpolate

SAMPLINGS = ("bilinear", "released")
_DILATION = 5  # width of the ellipse that closes small holes of the mask, pixels [released code]
EROSION = 9  # width of the ellipse that is taken off its border, twice, pixels [released code]
_DARKEST_SHADING = 0.1  # shading below this would blow up noise when divided out [ours]


def eroded_mask(alpha, erosion: int = EROSION) -> tf.Tensor:
    """Skin mask without its border: dilated by a 5x5 ellipse, then eroded twice by a larger one.

    Grey-scale morphology. The released code adds its 0/1 elements to the image before it takes
    the extremum; for values in [0, 1] that is the extremum inside the ellipse, taken here over the
    rectangles the ellipse is made of. Beyond the border of the image there is nothing.

    Args:
        alpha: (B, H, W, 1) in [0, 1].
        erosion: width of the ellipse that erodes, pixels, odd; 9 in the released code.

    Returns:
        (B, H, W, 1) in [0, 1].
    """
    # Pooling is several times faster with the images side by side as channels.
    mask = tf.transpose(tf.convert_to_tensor(alpha, tf.float32), (3, 1, 2, 0))
    mask = _dilate(mask, _DILATION)
    for _ in range(2):
        mask = 1.0 - _dilate(1.0 - mask, erosion)
    return tf.transpose(mask, (3, 1, 2, 0))


def _dilate(image, width):
    """Maximum inside OpenCV's ellipse of this width; each rectangle's by rows, then by columns."""
    maxima = [tf.nn.max_pool2d(tf.nn.max_pool2d(image, (rows, 1), 1, "SAME"), (1, columns), 1, "SAME")
              for rows, columns in _rectangles(width)]
    return functools.reduce(tf.maximum, maxima)


def _rectangles(width: int) -> list[tuple[int, int]]:
    """(height, width) of the centred rectangles whose union is OpenCV's ellipse."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    row_widths = ellipse.sum(axis=1)
    return [(int((row_widths >= w).sum()), int(w)) for w in np.unique(row_widths)]


def sample_colors(rgba, points, facing, mask=None, sampling: str = "bilinear") -> tf.Tensor:
    """Colour of the photo at each projected vertex, where it is visible. No gradient in the points.

    Args:
        rgba: (B, H, W, 4), RGB in [-1, 1], skin alpha in [0, 1].
        points: projected vertices (B, N, 2) in [-1, 1], x right, y down.
        facing: (B, N) 0/1: the vertex looks towards the camera and nothing is before it.
        mask: (B, H, W, 1) where the photo's colours are trusted; default: the eroded alpha.
        sampling: ``bilinear``: between the four pixels whose centres surround the point, each weighed by the
            mask, so that nothing bleeds in from outside it [ours]; ``released``: the pixel number
            round(p * size / 2 + size / 2), half a pixel right of and below the point [released code].
            Points outside the picture take its border.

    Returns:
        (B, N, 4): RGB in [-1, 1] times visible, and visible = facing times the mask, in [0, 1].

    Raises:
        ValueError: rgba has no four channels, or an unknown sampling.
    """
    rgba = tf.convert_to_tensor(rgba, tf.float32)
    if rgba.shape.rank != 4 or rgba.shape[-1] != 4:
        raise ValueError(f"rgba must have shape (B, H, W, 4), got {rgba.shape}")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    mask = eroded_mask(rgba[..., 3:]) if mask is None else tf.convert_to_tensor(mask, tf.float32)
    facing = tf.cast(facing, tf.float32)[..., None]
    points = tf.stop_gradient(tf.convert_to_tensor(points, tf.float32))
    if sampling == "released":
        half = tf.cast(tf.shape(rgba)[2:0:-1] // 2, tf.float32)
        sampled = _pixels(tf.concat([rgba[..., :3], mask], axis=-1), tf.cast(tf.round(points * half + half), tf.int32))
        visible = facing * sampled[..., 3:]
        return tf.concat([sampled[..., :3] * visible, visible], axis=-1)
    # Colours go through the interpolation times the mask and come out times visible: nothing to divide by.
    return facing * _bilinear(tf.concat([rgba[..., :3] * mask, mask], axis=-1), points)


def _bilinear(image, points):
    """Values (B, N, C) of an image (B, H, W, C) at points (B, N, 2) in [-1, 1], between pixel centres."""
    half = tf.cast(tf.shape(image)[2:0:-1], tf.float32) / 2.0
    from_centre = points * half + half - 0.5  # in pixels, from the first pixel's centre
    corner = tf.floor(from_centre)
    right, down = tf.split(from_centre - corner, 2, axis=-1)
    corner = tf.cast(corner, tf.int32)
    upper = _pixels(image, corner) * (1.0 - right) + _pixels(image, corner + (1, 0)) * right
    lower = _pixels(image, corner + (0, 1)) * (1.0 - right) + _pixels(image, corner + (1, 1)) * right
    return upper * (1.0 - down) + lower * down


def _pixels(image, index):
    """Pixels (B, N, C) of an image (B, H, W, C) by number (B, N, 2): column, row; clamped to the image."""
    shape = tf.shape(image)
    height, width = shape[1], shape[2]
    column = tf.clip_by_value(index[..., 0], 0, width - 1)
    row = tf.clip_by_value(index[..., 1], 0, height - 1)
    rows = tf.reshape(image, (shape[0], height * width, image.shape[-1]))
    return tf.gather(rows, row * width + column, batch_dims=1)


def seen_colors01(projected_color) -> tf.Tensor:
    """The photo's own colours (B, N, 3) in [0, 1] of ``sample_colors``' result; mid-grey where not visible."""
    return tf.math.divide_no_nan(projected_color[..., :3], projected_color[..., 3:]) * 0.5 + 0.5


def delit_colors(projected_color, shading) -> tf.Tensor:
    """Sampled colours divided by the estimated light, as albedo [ours].

    Args:
        projected_color: (B, N, 4) from ``sample_colors``.
        shading: (B, N, 3), see ``facegcn.lighting.shading``.

    Returns:
        (B, N, 3) albedo in [-1, 1] times visible, so 0 where not visible.
    """
    visible = projected_color[..., 3:]
    albedo01 = tf.clip_by_value(seen_colors01(projected_color) / tf.maximum(shading, _DARKEST_SHADING), 0.0, 1.0)
    return (albedo01 * 2.0 - 1.0) * visible


# ---------------------------------------------------------------- what the camera sees
#: A vertex counts as hidden when the surface drawn at its pixel lies more than this in front of
#: it, decimetre. 5 mm bridges one pixel of a slope of 75 degrees and is thinner than any nose.
DEPTH_TOLERANCE = 0.05


def depth_visible(world, projected, triangles, rasterization: Rasterization) -> tf.Tensor:
    """1.0 for vertices with nothing in front of them, 0.0 for hidden ones (B, N).

    Vertices outside the picture count as hidden. No gradient.

    Args:
        world: posed vertices (B, N, 3), decimetre; the camera looks along -z.
        projected: the same in [-1, 1], x right, y down (B, N, 2).
        triangles: (F, 3).
        rasterization: of the same vertices.
    """
    size = rasterization.triangle_ids.shape[1]
    surface = interpolate(world[..., 2:], triangles, rasterization)[..., 0]
    covered = rasterization.triangle_ids >= 0
    surface = tf.where(covered, surface, tf.fill(tf.shape(surface), -camera.FAR))
    pixels = tf.cast(tf.floor(camera.to_pixels(projected, size)), tf.int32)
    inside = tf.reduce_all((pixels >= 0) & (pixels < size), axis=-1)
    pixels = tf.clip_by_value(pixels, 0, size - 1)
    front = tf.gather_nd(surface, pixels[..., ::-1], batch_dims=1)
    return tf.stop_gradient(tf.cast(inside & (front - world[..., 2] < DEPTH_TOLERANCE), tf.float32))
