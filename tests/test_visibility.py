"""The depth test of vertices."""

import numpy as np

from facegcn import camera
from facegcn.rasterizer import rasterize
from facegcn.sampling import DEPTH_TOLERANCE, depth_visible

SIZE = 64


def visible(points, triangles):
    world = np.asarray(points, np.float32)[None]
    triangles = np.asarray(triangles, np.int32)
    raster = rasterize(camera.clip_coordinates(world, SIZE, SIZE), triangles, SIZE, SIZE)
    return depth_visible(world, camera.project(world), triangles, raster).numpy()[0]


def square(z, half):
    return [[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]


FACES = [[0, 1, 2], [0, 2, 3]]


def test_a_square_hides_what_lies_behind_it():
    points = square(0.5, 0.5) + square(0.0, 0.3) + square(0.0, 0.9)
    triangles = FACES + [[4 + i for i in f] for f in FACES] + [[8 + i for i in f] for f in FACES]
    np.testing.assert_array_equal(visible(points, triangles), [1] * 4 + [0] * 4 + [1] * 4)


def test_a_vertex_is_compared_with_the_surface_at_its_own_place():
    """A small square above the right half hides what lies behind it there, and not what lies mirrored."""
    nearer = [[x + 0.4, y + 0.2, z] for x, y, z in square(0.5, 0.15)]
    behind = [[0.4, 0.2, -1.0], [0.2, 0.4, -1.0], [-0.2, -0.4, -1.0], [-0.4, 0.2, -1.0], [0.4, -0.2, -1.0]]
    np.testing.assert_array_equal(visible(nearer + behind, FACES), [1] * 4 + [0, 1, 1, 1, 1])


def test_vertices_just_behind_the_surface_still_count():
    near, far = 0.5 * DEPTH_TOLERANCE, 2.0 * DEPTH_TOLERANCE
    points = square(0.0, 0.5) + [[0.1, 0.1, -near], [0.1, 0.1, -far]]
    found = visible(points, FACES + [[4, 4, 4], [5, 5, 5]])
    np.testing.assert_array_equal(found[4:], [1, 0])


def test_vertices_outside_the_picture_are_hidden():
    points = square(0.0, 0.5) + [[5.0, 0.0, 0.0], [0.0, -5.0, 0.0]]
    np.testing.assert_array_equal(visible(points, FACES)[4:], [0, 0])
