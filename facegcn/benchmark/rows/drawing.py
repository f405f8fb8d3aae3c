"""The rows of the rasterizer.

Letters: B images, N vertices, H W pixels.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from facegcn import camera
from facegcn.benchmark.references import naive_draw, naive_rasterize
from facegcn.benchmark.rows.timing import Parts, Row, Sizes, bumpy_mesh, compare, compiled
from facegcn.geometry import rotate
from facegcn.rasterizer import interpolate, rasterize

COLOR_SETS = 4  # drawn in a training step [released code]


def posed(vertices, batch: int) -> tf.Tensor:
    """Clip coordinates (B, N, 4) of the mesh turned a little further in each image."""
    angles = np.zeros((batch, 3), np.float32)
    angles[:, 1] = np.linspace(-0.5, 0.5, batch)
    world = rotate(tf.constant(np.repeat(vertices[None], batch, axis=0), tf.float32), tf.constant(angles))
    return camera.clip_coordinates(world, 1, 1)


def draw(clip, triangles, color_sets, pixels: int) -> list:
    """Pictures (B, H, W, 3) of each colour set (B, N, 3), from one rasterization."""
    drawn = rasterize(clip, triangles, pixels, pixels)
    return [interpolate(colors, triangles, drawn) for colors in color_sets]


def rasterize_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """One rasterization, and the drawing of all colour sets of a training step."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    clip, triangles = posed(vertices, sizes.batch), tf.constant(triangles)
    sets = [tf.random.stateless_uniform((sizes.batch, len(vertices), 3), (0, i)) for i in range(COLOR_SETS)]
    ours = compiled(lambda: rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    naive = compiled(lambda: naive_rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    draw_sets = compiled(lambda: draw(clip, triangles, sets, sizes.pixels))
    # Compiled together, TensorFlow would find that the rasterizations are the same.
    naive_draw_one = compiled(lambda colors: naive_draw(clip, triangles, [colors], sizes.pixels))
    work = f"{sizes.batch} x {sizes.pixels} px, {len(triangles):,} triangles"
    return [Row(f"rasterize {work}", *compare(ours, naive, sizes.repetitions), "<= 4.7 ms"),
            Row(f"  {COLOR_SETS} colour sets, drawn",
                *compare(draw_sets, lambda: [naive_draw_one(colors) for colors in sets],
                         sizes.repetitions), "")]
