"""The rows of how the rasterizer's time grows with the mesh and with the picture."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy.optimize import nnls

from facegcn.benchmark.rows.drawing import posed
from facegcn.benchmark.rows.timing import Parts, Row, Sizes, bumpy_mesh, compare, compiled
from facegcn.rasterizer import rasterize

#: Of the sizes of the other rows: 7 to 280 thousand triangles, 112 to 1024 pixels where those are the default.
MESHES = (0.1, 0.25, 0.5, 1, 2, 4)
PICTURES = (0.5, 1.5, 2, 3, 32 / 7)
REPETITIONS = 15  # of what takes milliseconds


def growth_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """Rasterizations of meshes and of pictures of growing size, and the line through them."""
    scenes = ([(round(sizes.vertices * mesh), sizes.pixels) for mesh in MESHES]
              + [(sizes.vertices, round(sizes.pixels * picture)) for picture in PICTURES])
    measured = [_measure(vertices, pixels, sizes) for vertices, pixels in scenes]
    work, times = np.array([row[:2] for row in measured], float), np.array([row[2] for row in measured])
    fit, predicted = linear_fit(work, times)
    rows = [Row(f"rasterize {sizes.batch} x {pixels} px, {triangles / sizes.batch:,.0f} triangles", time, None,
                f"{covered / sizes.batch:,.0f} px of each covered; line {line * 1e3:.1f} ms")
            for (_, pixels), (triangles, covered, time), line in zip(scenes, measured, predicted)]
    misses = np.abs(predicted / times - 1)
    return [*rows, Row(f"  {fit[1] * 1e9:.1f} ns a triangle, {fit[2] * 1e9:.1f} ns a covered pixel, and", fit[0], None,
                       f"the line misses by {np.median(misses):.0%}, {misses.max():.0%} at most")]


def linear_fit(work, times) -> tuple[np.ndarray, np.ndarray]:
    """The line time = c_0 + sum_i c_i work_i, c >= 0, of least relative squares [Lawson and Hanson 1974].

    Args:
        work: (S, K) amounts.
        times: (S,) seconds, > 0.

    Returns:
        c (K + 1,), and the line's times (S,).
    """
    amounts = np.column_stack([np.ones(len(times)), work])
    scale = amounts.max(axis=0)
    fit = nnls(amounts / scale / times[:, None], np.ones(len(times)))[0] / scale
    return fit, amounts @ fit


def _measure(vertices: int, pixels: int, sizes: Sizes) -> tuple[int, int, float]:
    """Triangles and covered pixels of all images, and seconds."""
    points, triangles = bumpy_mesh(vertices)
    clip, triangles = posed(points, sizes.batch), tf.constant(triangles)
    ours = compiled(lambda: rasterize(clip, triangles, pixels, pixels))
    covered = int(np.count_nonzero(np.asarray(ours().triangle_ids) >= 0))
    repetitions = min(REPETITIONS, 3 * sizes.repetitions)
    return sizes.batch * len(triangles), covered, compare(ours, lambda: None, repetitions)[0]
