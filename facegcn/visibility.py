"""Which vertices the camera sees: the depth test that the released code lacks."""

from __future__ import annotations

import tensorflow as tf

from facegcn import camera
from facegcn.rasterizer import Rasterization, interpolate

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
