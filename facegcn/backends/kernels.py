"""The inner loops of the rasterizer, the gathers and the normals, compiled by Numba.

Every loop works on one image (or mesh) and releases Python's lock, so that callers may run images
in threads. ``rasterizer`` and ``geometry`` hold the public functions and the meaning of the arrays;
``tensorflow_rasterizer`` computes the same in TensorFlow operations.

Pixel coordinates here are doubled and homogeneous: X = (x + w) W and Y = (w - y) H, so that the
centre of column c is X = (2c + 1) w, an exact product.
No loop may use ``fastmath``: the fill rule needs products rounded one by one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_HAIR = 1e-6  # pixels
_BEHIND = 1 << 6
_BROKEN = 1 << 7

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _place(clip, height, width, first, rows, screen, boxes, flags):
    """Where each vertex is: in doubled pixels, in which pixels its triangles may begin and end, and flags.

    A triangle covers pixels only from the least first to the greatest last of its corners. They are a hair wider than
    exact: the edge functions decide, a span must only not miss a pixel. A corner behind the camera spans the picture.
    Flags: one bit for each plane of the view volume the vertex is beyond (a triangle whose three corners are beyond
    one plane is invisible), ``_BEHIND`` where w is not positive, ``_BROKEN`` where a coordinate is not finite.
    The loop has no branch and its arrays are flat, so that the compiler makes it work on eight vertices at once.

    Args:
        clip: (4 N,) clip coordinates of each vertex.
        height, width: of the whole picture.
        first, rows: the rows that are drawn.
        screen: (4 N,) result X, Y, z, w.
        boxes: (4 N,) result first and last column, first and last row.
        flags: (N,) result.
    """
    right, bottom = np.int32(width - 1), np.int32(first + rows - 1)
    for n in range(len(flags)):
        z, w = np.float64(clip[4 * n + 2]), np.float64(clip[4 * n + 3])
        x, y = (np.float64(clip[4 * n]) + w) * width, (w - np.float64(clip[4 * n + 1])) * height
        screen[4 * n], screen[4 * n + 1], screen[4 * n + 2], screen[4 * n + 3] = x, y, z, w
        finite = abs(x + y + z + w) < np.inf
        known = finite & (w > 0)
        column = min(max((x / w - 1) / 2, -1.0), np.float64(width)) if known else 0.0
        row = min(max((y / w - 1) / 2, -1.0), np.float64(height)) if known else 0.0
        boxes[4 * n] = max(np.int32(np.ceil(column - _HAIR)), np.int32(0))
        boxes[4 * n + 1] = min(np.int32(np.floor(column + _HAIR)), right) if known else right
        boxes[4 * n + 2] = max(np.int32(np.ceil(row - _HAIR)) if known else np.int32(0), np.int32(first))
        boxes[4 * n + 3] = min(np.int32(np.floor(row + _HAIR)), bottom) if known else bottom
        beyond = ((1 if x < 0 else 0) | (2 if x > 2 * width * w else 0) | (4 if y < 0 else 0)
                  | (8 if y > 2 * height * w else 0) | (16 if z < -w else 0) | (32 if z > w else 0)
                  | (0 if w > 0 else _BEHIND))
        flags[n] = beyond if finite else _BROKEN


@_compiled
def _owned_side(screen, a, b):
    """Side of edge a -> b, +1 or -1, that owns the pixels exactly on it.

    Top-left rule: the inside lies to the right of the edge, or the edge is level and the inside
    lies below it. With Y down, inwards is the direction in which the edge function grows.
    """
    right = screen[4 * a + 1] * screen[4 * b + 3] - screen[4 * b + 1] * screen[4 * a + 3]
    down = screen[4 * a + 3] * screen[4 * b] - screen[4 * b + 3] * screen[4 * a]
    return 1 if (right > 0) | ((right == 0) & (down > 0)) else -1


@_compiled
def _owns_edges(screen, i, j, k, e0, e1, e2, side):
    """Whether a triangle of this orientation owns the edges whose functions are exactly 0."""
    return ((e0 != 0 or _owned_side(screen, j, k) == side)
            and (e1 != 0 or _owned_side(screen, k, i) == side)
            and (e2 != 0 or _owned_side(screen, i, j) == side))


@_compiled
def _draw_triangles(screen, boxes, flags, triangles, first, width, ids, barycentrics, nearest):
    """Writes every triangle into the flat images where it covers a pixel and is nearest so far.

    The three edge functions at a pixel are proportional to perspective-correct barycentrics. Each is x_a y_b - x_b y_a
    of two corners relative to the pixel. The two triangles at an edge compute the same two products, so their values
    are negatives of each other to the last bit. Arguments as in ``draw`` and ``_place``.
    """
    for t in range(len(triangles) // 3):
        # Without a sign, as else each access would look whether it counts from the end.
        i, j, k = np.uintp(triangles[3 * t]), np.uintp(triangles[3 * t + 1]), np.uintp(triangles[3 * t + 2])
        left = min(boxes[4 * i], min(boxes[4 * j], boxes[4 * k]))
        right = max(boxes[4 * i + 1], max(boxes[4 * j + 1], boxes[4 * k + 1]))
        top = min(boxes[4 * i + 2], min(boxes[4 * j + 2], boxes[4 * k + 2]))
        bottom = max(boxes[4 * i + 3], max(boxes[4 * j + 3], boxes[4 * k + 3]))
        if (left > right) | (top > bottom):
            continue
        hidden = flags[i] & flags[j] & flags[k] | (flags[i] | flags[j] | flags[k]) & _BROKEN
        if hidden != 0:
            continue
        X0, Y0, z0, w0 = screen[4 * i], screen[4 * i + 1], screen[4 * i + 2], screen[4 * i + 3]
        X1, Y1, z1, w1 = screen[4 * j], screen[4 * j + 1], screen[4 * j + 2], screen[4 * j + 3]
        X2, Y2, z2, w2 = screen[4 * k], screen[4 * k + 1], screen[4 * k + 2], screen[4 * k + 3]
        for row in range(top, bottom + 1):
            py = 2.0 * row + 1.0
            y0, y1, y2 = Y0 - py * w0, Y1 - py * w1, Y2 - py * w2
            for column in range(left, right + 1):
                px = 2.0 * column + 1.0
                x0, x1, x2 = X0 - px * w0, X1 - px * w1, X2 - px * w2
                e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
                weight = e0 * w0 + e1 * w1 + e2 * w2
                # A triangle seen from behind is drawn too; the part of it that lies behind the camera is not.
                least = min(e0, min(e1, e2)) if weight > 0 else -max(e0, max(e1, e2))
                if not ((least >= 0) & (weight != 0)):
                    continue
                if least == 0:
                    if not _owns_edges(screen, i, j, k, e0, e1, e2, 1 if weight > 0 else -1):
                        continue
                depth = (e0 * z0 + e1 * z1 + e2 * z2) / weight
                pixel = np.uintp((row - first) * width + column)
                if (depth >= -1) & (depth <= 1) & (depth < nearest[pixel]):
                    nearest[pixel] = depth
                    ids[pixel] = t
                    total = e0 + e1 + e2
                    barycentrics[3 * pixel] = e0 / total
                    barycentrics[3 * pixel + 1] = e1 / total
                    barycentrics[3 * pixel + 2] = e2 / total


@_compiled
def draw(clip, triangles, height, first, ids, barycentrics, depth, screen, boxes, flags, nearest):
    """Rasterizes a band of rows of one image.

    Args:
        clip: (N, 4) clip coordinates.
        triangles: (F, 3) int32, all in 0..N-1.
        height: H of the whole image.
        first: the first of the R rows that are drawn.
        ids: (R, W) int32 result, nearest triangle or -1.
        barycentrics: (R, W, 3) float32 result, 0 where there is no triangle.
        depth: (R, W) float32 result, 1 where there is no triangle.
        screen, boxes, flags: memory to work in, (4 N,) float64, (4 N,) int32, (N,) uint8.
        nearest: memory to work in, (R W,) float64.
    """
    rows, width = ids.shape
    _place(clip.reshape(-1), height, width, first, rows, screen, boxes, flags)
    ids, barycentrics = ids.reshape(-1), barycentrics.reshape(-1)
    nearest[:], ids[:], barycentrics[:] = np.inf, -1, 0
    _draw_triangles(screen, boxes, flags, triangles.reshape(-1), first, width, ids, barycentrics, nearest)
    flat = depth.reshape(-1)
    for pixel in range(len(flat)):
        flat[pixel] = min(nearest[pixel], 1.0)


@_compiled
def draw_gradient(clip, triangles, ids, d_barycentrics, d_depth, d_clip):
    """Adds the gradient of one image's barycentrics and depth to ``d_clip`` (N, 4) float64."""
    height, width = ids.shape
    x, y, z, w, e, g = np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for row in range(height):
        py = 2.0 * row + 1.0
        for column in range(width):
            t = ids[row, column]
            if t < 0:
                continue
            px = 2.0 * column + 1.0
            corners = triangles[t]
            for c in range(3):
                n = corners[c]
                z[c], w[c] = clip[n, 2], clip[n, 3]
                x[c] = (clip[n, 0] + w[c]) * width - px * w[c]
                y[c] = (w[c] - clip[n, 1]) * height - py * w[c]
            for c in range(3):
                e[c] = x[(c + 1) % 3] * y[(c + 2) % 3] - x[(c + 2) % 3] * y[(c + 1) % 3]
            total = e[0] + e[1] + e[2]
            weight = mean = height_sum = 0.0
            for c in range(3):
                weight += e[c] * w[c]
                height_sum += e[c] * z[c]
                mean += e[c] / total * d_barycentrics[row, column, c]
            depth = height_sum / weight
            by_depth = d_depth[row, column] / weight
            for c in range(3):
                n = corners[c]
                g[c] = (d_barycentrics[row, column, c] - mean) / total + by_depth * (z[c] - depth * w[c])
                d_clip[n, 2] += by_depth * e[c]
                d_clip[n, 3] -= by_depth * e[c] * depth
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
