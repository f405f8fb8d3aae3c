"""The rasterizer in TensorFlow operations only: for GPUs, and where Numba is not installed.

Every pair of a triangle and a pixel in its bounding box is a candidate; the edge functions, in
double precision and in the same order of operations as the compiled loops of ``kernels``, decide
which candidates are inside; a scatter-minimum finds the nearest of each pixel.
Memory grows with the sum of the bounding boxes: about 300 bytes a candidate.

Letters: B images, N vertices, F triangles, M candidates, H W pixels. Coordinates as in ``kernels``.
"""

from __future__ import annotations

import tensorflow as tf

from facegcn.backends.row_gathers import gather_rows


def draw(clip_vertices, triangles, height: int, width: int):
    """Triangle ids, barycentrics and depth; arguments and results as ``rasterizer.rasterize``."""
    screen = _to_doubled_pixels(clip_vertices, height, width)
    ids = _nearest_triangles(tf.stop_gradient(screen), triangles, height, width)
    barycentrics, depth = _at_pixels(screen, triangles, ids, height, width)
    return ids, barycentrics, depth


def interpolate(attributes, triangles, ids, barycentrics) -> tf.Tensor:
    """Attributes (B, N, C) mixed at the pixels -> (B, H, W, C), as ``rasterizer.interpolate``."""
    corners = _corners_of_pixels(attributes, triangles, ids)
    return tf.reduce_sum(corners * barycentrics[..., None], axis=3)


def _to_doubled_pixels(clip, height: int, width: int) -> tf.Tensor:
    """Clip coordinates (B, N, 4) -> float64 (B, N, 4) of X, Y, z, w in doubled pixels, Y down."""
    x, y, z, w = tf.unstack(tf.cast(clip, tf.float64), axis=2)
    return tf.stack([(x + w) * width, (w - y) * height, z, w], axis=2)


def _nearest_triangles(screen, triangles, height: int, width: int) -> tf.Tensor:
    """Ids (B, H, W) of the nearest triangles, -1 where there is none."""
    batch, count = tf.shape(screen)[0], tf.shape(triangles)[0]
    corners = tf.reshape(tf.gather(screen, triangles, axis=1), (-1, 3, 4))  # (B F, 3, 4)
    owner, row, column = _candidates(corners, height, width)
    depth, covered = _test_candidates(corners, owner, row, column)
    owner, row, column = owner[covered], row[covered], column[covered]
    pixel = (owner // count * height + row) * width + column
    pixel_count = batch * height * width
    nearest = tf.math.unsorted_segment_min(depth[covered], pixel, pixel_count)
    first = depth[covered] == tf.gather(nearest, pixel)  # of equally near triangles the first wins
    ids = tf.math.unsorted_segment_min((owner % count)[first], pixel[first], pixel_count)
    ids = tf.where(ids == tf.int32.max, -1, ids)  # the minimum of nothing is the largest number
    return tf.reshape(ids, (batch, height, width))


def _candidates(corners, height: int, width: int):
    """Triangle (of all images), row and column of each pair to test, three (M,) int32."""
    x, y, z, w = tf.unstack(corners, axis=2)
    outside = tf.reduce_any(tf.stack([
        tf.reduce_all(beyond, axis=1)
        for beyond in (x < 0, x > 2 * width * w, y < 0, y > 2 * height * w, z < -w, z > w)]), axis=0)
    finite = tf.reduce_all(tf.math.is_finite(x + y + z + w), axis=1)
    before_camera = tf.reduce_all(w > 0, axis=1)
    left, right = _first_and_last(x, w, before_camera, width)
    top, bottom = _first_and_last(y, w, before_camera, height)
    columns = tf.maximum(right - left + 1, 0)
    counts = tf.where(finite & ~outside, columns * tf.maximum(bottom - top + 1, 0), 0)
    owner = tf.repeat(tf.range(tf.size(counts)), counts)
    place = tf.range(tf.reduce_sum(counts)) - tf.gather(tf.cumsum(counts, exclusive=True), owner)
    box_width = tf.gather(columns, owner)
    return owner, tf.gather(top, owner) + place // box_width, tf.gather(left, owner) + place % box_width


def _first_and_last(position, w, before_camera, count: int):
    """First and last pixel along one axis that each triangle may cover, (B F,) int32 each."""
    projected = (position / w - 1) / 2
    # a hair wider than exact: the edge functions decide, the range must only not miss a pixel
    first = tf.math.ceil(tf.clip_by_value(tf.reduce_min(projected, axis=1) - 1e-6, 0, count))
    last = tf.floor(tf.clip_by_value(tf.reduce_max(projected, axis=1) + 1e-6, -1, count - 1))
    first = tf.where(before_camera, first, 0)
    last = tf.where(before_camera, last, count - 1)
    return tf.cast(first, tf.int32), tf.cast(last, tf.int32)


def _test_candidates(corners, owner, row, column):
    """Depth of each candidate (M,) float64, and whether its pixel is covered (M,) bool."""
    near = tf.gather(corners, owner)  # (M, 3, 4)
    edges, weight, depth = _edge_functions(near, *_centres(row, column))
    side = tf.where(weight > 0, 1, -1)[:, None]
    owned = tf.gather(_owned_sides(corners), owner)
    inside = (edges * tf.cast(side, tf.float64) > 0) | ((edges == 0) & (owned == side))
    covered = tf.reduce_all(inside, axis=1) & (weight != 0) & (depth >= -1) & (depth <= 1)
    return depth, covered


def _edge_functions(corners, px, py):
    """Edge functions (..., 3), their sum weighted by w (...), and depth (...) at pixel centres.

    See ``kernels``: the products are formed one by one, in the same order.
    """
    x, y, z, w = tf.unstack(corners, axis=-1)
    x0, x1, x2 = tf.unstack(x - px[..., None] * w, axis=-1)
    y0, y1, y2 = tf.unstack(y - py[..., None] * w, axis=-1)
    edges = (x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0)
    weight = sum(e * part for e, part in zip(edges, tf.unstack(w, axis=-1)))
    height = sum(e * part for e, part in zip(edges, tf.unstack(z, axis=-1)))
    return tf.stack(edges, axis=-1), weight, tf.math.divide_no_nan(height, weight)


def _owned_sides(corners) -> tf.Tensor:
    """Side, +1 or -1, on which each edge owns the pixels exactly on it (..., 3): top-left rule."""
    a, b = tf.gather(corners, (1, 2, 0), axis=1), tf.gather(corners, (2, 0, 1), axis=1)
    right = a[..., 1] * b[..., 3] - b[..., 1] * a[..., 3]
    down = a[..., 3] * b[..., 0] - b[..., 3] * a[..., 0]
    return tf.where((right > 0) | ((right == 0) & (down > 0)), 1, -1)


def _centres(row, column):
    """Doubled pixel coordinates of pixel centres: x and y, float64."""
    return 2 * tf.cast(column, tf.float64) + 1, 2 * tf.cast(row, tf.float64) + 1


def _at_pixels(screen, triangles, ids, height: int, width: int):
    """Barycentrics (B, H, W, 3) and depth (B, H, W) at the pixels, differentiable in ``screen``."""
    row, column = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    corners = _corners_of_pixels(screen, triangles, ids)
    edges, _, depth = _edge_functions(corners, *_centres(row, column))
    barycentrics = tf.math.divide_no_nan(edges, tf.reduce_sum(edges, axis=-1, keepdims=True))
    covered = ids >= 0
    return (tf.cast(tf.where(covered[..., None], barycentrics, 0), tf.float32),
            tf.cast(tf.where(covered, depth, 1), tf.float32))


def _corners_of_pixels(values, triangles, ids) -> tf.Tensor:
    """Values (B, N, C) at the corners of each pixel's triangle (B, H, W, 3, C); any where none."""
    batch, count = tf.shape(values)[0], tf.shape(values)[1]
    padded = tf.pad(triangles, [[0, 1], [0, 0]])  # so that a mesh without triangles has a row to read
    corners = tf.gather(padded, tf.maximum(ids, 0)) + (tf.range(batch) * count)[:, None, None, None]
    channels = tf.shape(values)[2]
    flat = tf.reshape(values, (1, batch * count, channels))
    rows = gather_rows(flat, tf.reshape(corners, (-1, 1)), backend="tensorflow")
    return tf.ensure_shape(tf.reshape(rows, tf.concat([tf.shape(ids), (3, channels)], axis=0)),
                           ids.shape + (3, values.shape[2]))
