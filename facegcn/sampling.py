"""Colours sampled from the photo at the projected vertices.

Letters: B images, H W pixels, N vertices. Formulas: the released code, except where labelled.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import tensorflow as tf

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


def sample_colors(rgba, points, facing, mask=None) -> tf.Tensor:
    """Colour of the photo at each projected vertex, where it is visible.

    Args:
        rgba: (B, H, W, 4), RGB in [-1, 1], skin alpha in [0, 1].
        points: projected vertices (B, N, 2) in [-1, 1], x right, y down.
        facing: (B, N) 0/1: the vertex looks towards the camera and nothing is before it.
        mask: (B, H, W, 1) where the photo's colours are trusted; default: the eroded alpha.

    Returns:
        (B, N, 4): RGB in [-1, 1] times visible, and visible = facing times the mask, in [0, 1]. The
        colour is the nearest pixel's, round(p * size / 2 + size / 2), clamped to the image.

    Raises:
        ValueError: rgba has no four channels.
    """
    rgba = tf.convert_to_tensor(rgba, tf.float32)
    if rgba.shape.rank != 4 or rgba.shape[-1] != 4:
        raise ValueError(f"rgba must have shape (B, H, W, 4), got {rgba.shape}")
    masked = tf.concat([rgba[..., :3], eroded_mask(rgba[..., 3:]) if mask is None else mask], axis=-1)
    shape = tf.shape(rgba)
    height, width = shape[1], shape[2]
    half = tf.cast(tf.stack([width, height]) // 2, tf.float32)
    pixels = tf.cast(tf.round(points * half + half), tf.int32)
    column = tf.clip_by_value(pixels[..., 0], 0, width - 1)
    row = tf.clip_by_value(pixels[..., 1], 0, height - 1)
    sampled = tf.gather(tf.reshape(masked, (shape[0], height * width, 4)), row * width + column, batch_dims=1)
    visible = tf.cast(facing, tf.float32)[..., None] * sampled[..., 3:]
    return tf.concat([sampled[..., :3] * visible, visible], axis=-1)


def delit_colors(projected_color, shading) -> tf.Tensor:
    """Sampled colours divided by the estimated light, as albedo [ours].

    Args:
        projected_color: (B, N, 4) from ``sample_colors``.
        shading: (B, N, 3), see ``facegcn.lighting.shading``.

    Returns:
        (B, N, 3) albedo in [-1, 1] times visible, so 0 where not visible.
    """
    visible = projected_color[..., 3:]
    color01 = tf.math.divide_no_nan(projected_color[..., :3], visible) * 0.5 + 0.5
    albedo01 = tf.clip_by_value(color01 / tf.maximum(shading, _DARKEST_SHADING), 0.0, 1.0)
    return (albedo01 * 2.0 - 1.0) * visible
