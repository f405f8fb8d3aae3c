"""Differentiable rasterization: which triangle each pixel sees, and where in it.

Triangles are drawn in homogeneous coordinates (Olano and Greer 1997), so none needs clipping at
the near plane. The nearest triangle wins, of equally near ones the first. Both sides of a
triangle are drawn. A pixel is covered when its centre is inside; centres exactly on an edge
follow the top-left rule, so that triangles that share an edge never both cover a pixel and never
leave it out. Fragments beyond the near or far plane are dropped.

The gradient treats the triangle of each pixel as fixed: barycentrics and depth move with the
vertices, coverage does not (Genova et al. 2018).

Letters: B images, N vertices, F triangles, H W pixels, C channels. Row 0 is the top.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn.backends import kernels, tensorflow_rasterizer
from facegcn.backends.row_gathers import aligned_empty, check_index, cores, map_images, resolve_backend
from facegcn.backends.scratch import scratch

_WORTH_BANDS = 30_000  # triangles and pixels: a thread of its own for less takes longer than it saves


class Rasterization(NamedTuple):
    """What each pixel sees; one rasterization serves any number of ``interpolate`` calls.

    Attributes:
        triangle_ids: (B, H, W) int32, the nearest triangle, -1 where there is none.
        barycentrics: (B, H, W, 3) float32, perspective-correct weights of the triangle's
            corners, in [0, 1] with sum 1; all 0 where there is no triangle.
        depth: (B, H, W) float32, z / w in [-1, 1], smaller is nearer; 1 where there is none.
    """

    triangle_ids: object
    barycentrics: object
    depth: object


def rasterize(clip_vertices, triangles, height: int, width: int, backend: str = "auto") -> Rasterization:
    """Finds the nearest triangle of every pixel.

    Args:
        clip_vertices: (B, N, 4) float32 homogeneous clip coordinates x, y, z, w, y up: the
            picture is -w <= x, y <= w, visible depth -w <= z <= w.
        triangles: (F, 3) int32 vertex indices, 0-based; either orientation is drawn.
        height, width: picture size H, W in pixels.
        backend: ``numba`` (compiled loops on the CPU), ``tensorflow`` (TensorFlow operations
            only, for GPUs), or ``auto``. Both give the same ids.

    Returns:
        A Rasterization; barycentrics and depth are differentiable in ``clip_vertices``.

    Raises:
        ValueError: an argument has another shape, or the backend is unknown.
    """
    clip_vertices = tf.convert_to_tensor(clip_vertices, tf.float32)
    triangles = tf.convert_to_tensor(triangles, tf.int32)
    height, width = int(height), int(width)
    _check_shapes(clip_vertices.shape, triangles.shape, height, width, batched=True)
    module_draw = _draw if resolve_backend(backend) == "numba" else tensorflow_rasterizer.draw
    ids, barycentrics, depth = module_draw(clip_vertices, triangles, height, width)
    batch = clip_vertices.shape[0]
    ids.set_shape((batch, height, width))
    barycentrics.set_shape((batch, height, width, 3))
    depth.set_shape((batch, height, width))
    return Rasterization(ids, barycentrics, depth)


def interpolate(attributes, triangles, rasterization: Rasterization, backend: str = "auto") -> tf.Tensor:
    """Vertex attributes at each pixel: the barycentric mix of the triangle's corners.

    Args:
        attributes: (B, N, C) float32, anything that is linear on triangles: colours, normals ...
        triangles: (F, 3) int32, those that were rasterized.
        rasterization: result of ``rasterize``.
        backend: as in ``rasterize``.

    Returns:
        (B, H, W, C), 0 where there is no triangle; differentiable in the attributes and, through
        the barycentrics, in the vertices.

    Raises:
        ValueError: an argument has another shape, or the backend is unknown.
    """
    attributes = tf.convert_to_tensor(attributes, tf.float32)
    triangles = tf.convert_to_tensor(triangles, tf.int32)
    if attributes.shape.rank != 3:
        raise ValueError(f"attributes must have shape (B, N, C), got {attributes.shape}")
    ids, barycentrics = rasterization.triangle_ids, rasterization.barycentrics
    if resolve_backend(backend) == "numba":
        pixels = _interpolate(attributes, triangles, ids, barycentrics)
    else:
        pixels = tensorflow_rasterizer.interpolate(attributes, triangles, ids, barycentrics)
    pixels.set_shape(ids.shape.concatenate([attributes.shape[2]]))
    return pixels


def rasterize_numpy(clip_vertices, triangles, height: int, width: int):
    """``rasterize`` of one image in NumPy, without TensorFlow: for data pipelines.

    Releases Python's lock while it works, so that threads can draw side by side; cores that have nothing else to do
    help with a large picture.

    Args:
        clip_vertices: (N, 4) homogeneous clip coordinates, y up.
        triangles: (F, 3) vertex indices, 0-based.
        height, width: picture size H, W in pixels.

    Returns:
        triangle ids (H, W) int32, barycentrics (H, W, 3) float32, depth (H, W) float32.

    Raises:
        ValueError: an argument has another shape, or an index is out of range.
    """
    clip_vertices = np.ascontiguousarray(clip_vertices, np.float32)
    triangles = np.ascontiguousarray(triangles, np.int32)
    _check_shapes(clip_vertices.shape, triangles.shape, height, width, batched=False)
    check_index("triangles", triangles, clip_vertices.shape[0])
    ids, barycentrics, depth = _draw_all(clip_vertices[None], triangles, height, width)
    return ids[0], barycentrics[0], depth[0]


# -------------------------------------------------------------------- the compiled path
def _draw(clip_vertices, triangles, height: int, width: int):
    """Ids, barycentrics and depth from the compiled loops, with their compiled gradient."""

    @tf.custom_gradient
    def draw(clip):
        ids, barycentrics, depth = tf.numpy_function(
            _draw_numpy, [clip, triangles, height, width], [tf.int32, tf.float32, tf.float32],
            stateful=False)

        def gradient(_, d_barycentrics, d_depth):
            result = tf.numpy_function(_draw_gradient_numpy, [clip, triangles, ids, d_barycentrics, d_depth],
                                       tf.float32, stateful=False)
            result.set_shape(clip.shape)
            return result

        return (ids, barycentrics, depth), gradient

    return draw(clip_vertices)


def _interpolate(attributes, triangles, ids, barycentrics) -> tf.Tensor:
    """``interpolate`` through the compiled loops."""

    @tf.custom_gradient
    def mix(values, weights):
        def gradient(upstream):
            d_values, d_weights = tf.numpy_function(
                _interpolate_gradient_numpy, [values, triangles, ids, weights, upstream],
                [tf.float32, tf.float32], stateful=False)
            d_values.set_shape(values.shape)
            d_weights.set_shape(weights.shape)
            return d_values, d_weights

        pixels = tf.numpy_function(_interpolate_numpy, [values, triangles, ids, weights], tf.float32,
                                   stateful=False)
        return pixels, gradient

    return mix(attributes, barycentrics)


def _draw_numpy(clip, triangles, height, width):
    check_index("triangles", triangles, clip.shape[1])
    return _draw_all(clip, triangles, int(height), int(width))


def _draw_all(clip, triangles, height: int, width: int):
    """Ids, barycentrics and depth (B, H, W, ...) of images that are drawn side by side, in bands of rows if few."""
    batch, count = clip.shape[:2]
    ids, barycentrics, depth = _empty_images((batch,), height, width)
    bands = min(-(-cores() // max(batch, 1)), height) if len(triangles) + height * width >= _WORTH_BANDS else 1
    edges = [height * band // bands for band in range(bands + 1)]

    def draw(job):
        image, band = divmod(job, bands)
        first, end = edges[band], edges[band + 1]
        kernels.draw(clip[image], triangles, height, first, ids[image, first:end], barycentrics[image, first:end],
                     depth[image, first:end], scratch.empty("screen", 4 * count, np.float64),
                     scratch.empty("boxes", 4 * count, np.int32), scratch.empty("flags", count, np.uint8),
                     scratch.empty("nearest", (end - first) * width, np.float64))

    map_images(draw, batch * bands)
    return ids, barycentrics, depth


def _draw_gradient_numpy(clip, triangles, ids, d_barycentrics, d_depth):
    d_clip = np.zeros(clip.shape, np.float64)  # many small terms: summed in double
    map_images(lambda b: kernels.draw_gradient(clip[b], triangles, ids[b], d_barycentrics[b], d_depth[b],
                                               d_clip[b]), clip.shape[0])
    return d_clip.astype(np.float32)


def _interpolate_numpy(attributes, triangles, ids, barycentrics):
    _check_drawn(attributes, triangles, ids)
    pixels = aligned_empty(ids.shape + attributes.shape[2:], np.float32)
    map_images(lambda b: kernels.interpolate(attributes[b], triangles, ids[b], barycentrics[b], pixels[b]),
               attributes.shape[0])
    return pixels


def _interpolate_gradient_numpy(attributes, triangles, ids, barycentrics, upstream):
    d_attributes = np.zeros_like(attributes)
    d_barycentrics = np.zeros_like(barycentrics)
    map_images(lambda b: kernels.interpolate_gradient(attributes[b], triangles, ids[b], barycentrics[b],
                                                      upstream[b], d_attributes[b], d_barycentrics[b]),
               attributes.shape[0])
    return d_attributes, d_barycentrics


# -------------------------------------------------------------------- checks
def _empty_images(batch: tuple, height: int, width: int):
    """Unfilled arrays for triangle ids, barycentrics and depth."""
    shape = (*batch, height, width)
    return (aligned_empty(shape, np.int32), aligned_empty((*shape, 3), np.float32),
            aligned_empty(shape, np.float32))


def _check_shapes(vertices, triangles, height, width, batched: bool) -> None:
    """Raises ValueError naming the argument of ``rasterize`` whose shape is wrong."""
    wanted = "(B, N, 4)" if batched else "(N, 4)"
    if len(vertices) != 2 + batched or vertices[-1] not in (4, None):
        raise ValueError(f"clip_vertices must have shape {wanted}, got {tuple(vertices)}")
    if len(triangles) != 2 or triangles[1] not in (3, None):
        raise ValueError(f"triangles must have shape (F, 3), got {tuple(triangles)}")
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1 pixel, got {height} x {width}")


def _check_drawn(attributes, triangles, ids) -> None:
    """Raises ValueError unless the arrays of ``interpolate`` belong together."""
    check_index("triangles", triangles, attributes.shape[1])
    if ids.shape[0] != attributes.shape[0]:
        raise ValueError(f"attributes of {attributes.shape[0]} images, but {ids.shape[0]} were rasterized")
    if ids.size and ids.max() >= triangles.shape[0]:
        raise ValueError(f"triangle {ids.max()} was rasterized, but there are only {triangles.shape[0]}")
