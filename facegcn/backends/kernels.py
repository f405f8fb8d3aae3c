"""The inner loops of the rasterizer, the gathers and the normals, compiled by Numba.

Every loop works on one image (or mesh) and releases Python's lock, so that callers may run images
in threads. ``rasterizer`` and ``geometry`` hold the public functions and the meaning of the arrays;
``tensorflow_rasterizer`` computes the same in TensorFlow operations.

Pixel coordinates here are doubled and homogeneous: X = (x + w) W and Y = (w - y) H, so that the
centre of column c is X = (2c + 1) w, an exact product.
No loop may use ``fastmath``: the fill rule needs products rounded one by one.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_HAIR = 1e-6  # pixels
_BEHIND = 1 << 6
_BROKEN = 1 << 7

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inlined = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_compiled
def _to_doubled_pixels(clip, height, width):
    """Clip coordinates (N, 4) -> float64 (N, 4) of X, Y, z, w in doubled pixels, Y down."""
    screen = np.empty((clip.shape[0], 4), np.float64)
    for n in range(clip.shape[0]):
        x, y = np.float64(clip[n, 0]), np.float64(clip[n, 1])
        z, w = np.float64(clip[n, 2]), np.float64(clip[n, 3])
        screen[n, 0] = (x + w) * width
        screen[n, 1] = (w - y) * height
        screen[n, 2] = z
        screen[n, 3] = w
    return screen


@_compiled
def _locate(screen, height, width):
    """Where each vertex is: the pixels its triangles may begin and end at, and flags.

    Columns of the result (N, 5) int32: first and last column, first and last row, flags.
    A triangle covers pixels only from the least first to the greatest last of its corners. They
    are a hair wider than exact: the edge functions decide, a span must only not miss a pixel.
    A corner behind the camera spans the picture.
    Flags: one bit for each plane of the view volume the vertex is beyond (a triangle whose three
    corners are beyond one plane is invisible), _BEHIND where w is not positive, _BROKEN where a
    coordinate is not finite.
    """
    places = np.zeros((screen.shape[0], 5), np.int32)
    for n in range(screen.shape[0]):
        x, y, z, w = screen[n, 0], screen[n, 1], screen[n, 2], screen[n, 3]
        if not np.isfinite(x + y + z + w):
            places[n, 4] = _BROKEN
            continue
        places[n, 4] = ((x < 0) | (x > 2 * width * w) << 1 | (y < 0) << 2 | (y > 2 * height * w) << 3
                        | (z < -w) << 4 | (z > w) << 5)
        if w > 0:
            column = min(max((x / w - 1) / 2, -1.0), np.float64(width))
            row = min(max((y / w - 1) / 2, -1.0), np.float64(height))
            places[n, 0], places[n, 1] = math.ceil(column - _HAIR), math.floor(column + _HAIR)
            places[n, 2], places[n, 3] = math.ceil(row - _HAIR), math.floor(row + _HAIR)
        else:
            places[n, 1], places[n, 3] = width - 1, height - 1
            places[n, 4] |= _BEHIND
    return places


@_compiled
def _edge_functions(screen, i, j, k, px, py):
    """The three edge functions at a pixel: proportional to perspective-correct barycentrics.

    Each is x_a y_b - x_b y_a of two corners relative to the pixel. The two triangles at an edge
    compute the same two products, so their values are negatives of each other to the last bit.
    """
    x0, y0 = screen[i, 0] - px * screen[i, 3], screen[i, 1] - py * screen[i, 3]
    x1, y1 = screen[j, 0] - px * screen[j, 3], screen[j, 1] - py * screen[j, 3]
    x2, y2 = screen[k, 0] - px * screen[k, 3], screen[k, 1] - py * screen[k, 3]
    return x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0


@_compiled
def _owned_side(screen, a, b):
    """Side of edge a -> b, +1 or -1, that owns the pixels exactly on it.

    Top-left rule: the inside lies to the right of the edge, or the edge is level and the inside
    lies below it. With Y down, inwards is the direction in which the edge function grows.
    """
    right = screen[a, 1] * screen[b, 3] - screen[b, 1] * screen[a, 3]
    if right != 0:
        return 1 if right > 0 else -1
    down = screen[a, 3] * screen[b, 0] - screen[b, 3] * screen[a, 0]
    return 1 if down > 0 else -1


@_compiled
def _owns_edges(screen, i, j, k, e0, e1, e2, side):
    """Whether a triangle of this orientation owns the edges whose functions are exactly 0."""
    return ((e0 != 0 or _owned_side(screen, j, k) == side)
            and (e1 != 0 or _owned_side(screen, k, i) == side)
            and (e2 != 0 or _owned_side(screen, i, j) == side))


@_inlined
def _draw_triangle(screen, triangle, corners, box, ids, nearest):
    """Writes a triangle into the id and depth images where it covers a pixel of the box and is
    nearest so far.

    The edge functions are written out (see ``_edge_functions``) and this function is inlined:
    its loop is most of the work, and a call takes longer than the arithmetic.
    """
    i, j, k = corners
    X0, Y0, z0, w0 = screen[i, 0], screen[i, 1], screen[i, 2], screen[i, 3]
    X1, Y1, z1, w1 = screen[j, 0], screen[j, 1], screen[j, 2], screen[j, 3]
    X2, Y2, z2, w2 = screen[k, 0], screen[k, 1], screen[k, 2], screen[k, 3]
    left, right, top, bottom = box
    for row in range(top, bottom + 1):
        py = 2.0 * row + 1.0
        y0, y1, y2 = Y0 - py * w0, Y1 - py * w1, Y2 - py * w2
        for column in range(left, right + 1):
            px = 2.0 * column + 1.0
            x0, x1, x2 = X0 - px * w0, X1 - px * w1, X2 - px * w2
            e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            positive = (e0 >= 0) & (e1 >= 0) & (e2 >= 0)
            negative = (e0 <= 0) & (e1 <= 0) & (e2 <= 0)  # seen from behind: drawn too
            if not positive | negative:
                continue
            weight = e0 * w0 + e1 * w1 + e2 * w2
            if not (positive & (weight > 0) | negative & (weight < 0)):
                continue  # the part of a triangle that lies behind the camera
            if (e0 == 0) | (e1 == 0) | (e2 == 0):
                if not _owns_edges(screen, i, j, k, e0, e1, e2, 1 if weight > 0 else -1):
                    continue
            depth = (e0 * z0 + e1 * z1 + e2 * z2) / weight
            if (depth >= -1) & (depth <= 1) & (depth < nearest[row, column]):
                nearest[row, column] = depth
                ids[row, column] = triangle


@_compiled
def _draw_triangles(screen, triangles, ids, nearest):
    """Draws every triangle into the id (H, W) and depth (H, W) images."""
    height, width = ids.shape
    places = _locate(screen, height, width)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        left = max(min(places[i, 0], min(places[j, 0], places[k, 0])), 0)
        right = min(max(places[i, 1], max(places[j, 1], places[k, 1])), width - 1)
        top = max(min(places[i, 2], min(places[j, 2], places[k, 2])), 0)
        bottom = min(max(places[i, 3], max(places[j, 3], places[k, 3])), height - 1)
        if (left > right) | (top > bottom):
            continue
        flags = places[i, 4], places[j, 4], places[k, 4]
        if not (flags[0] & flags[1] & flags[2] | (flags[0] | flags[1] | flags[2]) & _BROKEN):
            _draw_triangle(screen, t, (i, j, k), (left, right, top, bottom), ids, nearest)


@_compiled
def draw(clip, triangles, ids, barycentrics, depth):
    """Rasterizes one image.

    Args:
        clip: (N, 4) clip coordinates.
        triangles: (F, 3) int32, all in 0..N-1.
        ids: (H, W) int32 result, nearest triangle or -1.
        barycentrics: (H, W, 3) float32 result, 0 where there is no triangle.
        depth: (H, W) float32 result, 1 where there is no triangle.
    """
    height, width = ids.shape
    screen = _to_doubled_pixels(clip, height, width)
    nearest = np.full((height, width), np.inf)
    ids[:] = -1
    _draw_triangles(screen, triangles, ids, nearest)
    for row in range(height):
        for column in range(width):
            t = ids[row, column]
            depth[row, column] = 1
            barycentrics[row, column, :] = 0
            if t >= 0:
                depth[row, column] = nearest[row, column]
                e0, e1, e2 = _edge_functions(screen, triangles[t, 0], triangles[t, 1], triangles[t, 2],
                                             2.0 * column + 1.0, 2.0 * row + 1.0)
                total = e0 + e1 + e2
                barycentrics[row, column, 0] = e0 / total
                barycentrics[row, column, 1] = e1 / total
                barycentrics[row, column, 2] = e2 / total


@_compiled
def draw_gradient(clip, triangles, ids, d_barycentrics, d_depth, d_clip):
    """Adds the gradient of one image's barycentrics and depth to ``d_clip`` (N, 4) float64."""
    height, width = ids.shape
    screen = _to_doubled_pixels(clip, height, width)
    x, y, e, g = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for row in range(height):
        py = 2.0 * row + 1.0
        for column in range(width):
            t = ids[row, column]
            if t < 0:
                continue
            px = 2.0 * column + 1.0
            corners = triangles[t]
            for c in range(3):
                x[c] = screen[corners[c], 0] - px * screen[corners[c], 3]
                y[c] = screen[corners[c], 1] - py * screen[corners[c], 3]
            for c in range(3):
                e[c] = x[(c + 1) % 3] * y[(c + 2) % 3] - x[(c + 2) % 3] * y[(c + 1) % 3]
            total = e[0] + e[1] + e[2]
            weight = mean = height_sum = 0.0
            for c in range(3):
                weight += e[c] * screen[corners[c], 3]
                height_sum += e[c] * screen[corners[c], 2]
                mean += e[c] / total * d_barycentrics[row, column, c]
            z = height_sum / weight
            by_depth = d_depth[row, column] / weight
            for c in range(3):
                n = corners[c]
                g[c] = ((d_barycentrics[row, column, c] - mean) / total
                        + by_depth * (screen[n, 2] - z * screen[n, 3]))
                d_clip[n, 2] += by_depth * e[c]
                d_clip[n, 3] -= by_depth * e[c] * z
            for c in range(3):  # corner c appears in the edge functions of the other two
                after, before = (c + 1) % 3, (c + 2) % 3
                dx = g[before] * y[after] - g[after] * y[before]
                dy = g[after] * x[before] - g[before] * x[after]
                n = corners[c]
                d_clip[n, 0] += dx * width
                d_clip[n, 1] -= dy * height
                d_clip[n, 3] += dx * (width - px) + dy * (height - py)


@_compiled
def interpolate(attributes, triangles, ids, barycentrics, result):
    """Mixes corner attributes (N, C) at each pixel of one image into ``result`` (H, W, C)."""
    channels = attributes.shape[1]
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                result[row, column, :] = 0
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            share = barycentrics[row, column]
            for c in range(channels):
                result[row, column, c] = (share[0] * attributes[i, c] + share[1] * attributes[j, c]
                                          + share[2] * attributes[k, c])


@_compiled
def interpolate_gradient(attributes, triangles, ids, barycentrics, upstream, d_attributes, d_barycentrics):
    """Adds one image's gradients: to ``d_attributes`` (N, C), and into ``d_barycentrics`` (H, W, 3)."""
    channels = attributes.shape[1]
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                continue
            for corner in range(3):
                n = triangles[t, corner]
                share = barycentrics[row, column, corner]
                inner = np.float32(0)
                for c in range(channels):
                    d_attributes[n, c] += share * upstream[row, column, c]
                    inner += attributes[n, c] * upstream[row, column, c]
                d_barycentrics[row, column, corner] = inner


@_compiled
def scatter_rows(values, index, result):
    """Adds row m of ``values`` (M, C) to each row ``index[m, :]`` of ``result`` (N, C)."""
    for m in range(index.shape[0]):
        for k in range(index.shape[1]):
            n = index[m, k]
            for c in range(values.shape[1]):
                result[n, c] += values[m, c]


@_compiled
def normal_sums(vertices, triangles, result):
    """Adds each triangle's cross(v1 - v2, v2 - v3) to its three corners in ``result`` (N, 3)."""
    for t in range(triangles.shape[0]):
        a, b, c = vertices[triangles[t, 0]], vertices[triangles[t, 1]], vertices[triangles[t, 2]]
        p0, p1, p2 = a[0] - b[0], a[1] - b[1], a[2] - b[2]
        q0, q1, q2 = b[0] - c[0], b[1] - c[1], b[2] - c[2]
        n0, n1, n2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
        for corner in range(3):
            n = triangles[t, corner]
            result[n, 0] += n0
            result[n, 1] += n1
            result[n, 2] += n2


@_compiled
def normal_sums_gradient(vertices, triangles, upstream, d_vertices):
    """Adds the gradient of ``normal_sums`` to ``d_vertices`` (N, 3)."""
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        for axis in range(3):
            # component `axis` of q x g and g x p, the gradients of v1 - v2 = p and v2 - v3 = q
            u, v = (axis + 1) % 3, (axis + 2) % 3
            g_u = upstream[i, u] + upstream[j, u] + upstream[k, u]
            g_v = upstream[i, v] + upstream[j, v] + upstream[k, v]
            p_u, p_v = vertices[i, u] - vertices[j, u], vertices[i, v] - vertices[j, v]
            q_u, q_v = vertices[j, u] - vertices[k, u], vertices[j, v] - vertices[k, v]
            d_p = q_u * g_v - q_v * g_u
            d_q = g_u * p_v - g_v * p_u
            d_vertices[i, axis] += d_p
            d_vertices[j, axis] += d_q - d_p
            d_vertices[k, axis] -= d_q
