"""facegcn.rasterizer: both paths against a slow oracle, coverage, gradients, odd input."""

import importlib.util
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import Delaunay

from facegcn import backends, rasterizer
from facegcn.rasterizer import interpolate, rasterize, rasterize_numpy

BACKENDS = ("numba", "tensorflow")


def oracle(clip, triangles, height, width):
    """Ids, barycentrics and depth of one image by solving for each triangle and pixel.

    A pixel (x, y) sees the point of a triangle whose clip coordinates are t (x, y, ., 1), t > 0:
    the matrix of the corners' (x, y, w) maps the corner weights to it.
    """
    x = (2 * np.arange(width) + 1) / width - 1
    y = 1 - (2 * np.arange(height) + 1) / height
    centres = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
    ids = np.full((height, width), -1)
    weights, depth = np.zeros((height, width, 3)), np.ones((height, width))
    for t, triangle in enumerate(triangles):
        corners = np.float64(clip[triangle])
        matrix = corners[:, [0, 1, 3]].T
        if np.linalg.det(matrix) == 0:
            continue
        w = centres @ np.linalg.inv(matrix).T
        z = w @ corners[:, 2]
        seen = (w >= 0).all(axis=-1) & (z >= -1) & (z <= 1) & ((ids < 0) | (z < depth))
        ids[seen], depth[seen] = t, z[seen]
        weights[seen] = w[seen] / w[seen].sum(axis=-1, keepdims=True)
    return ids, weights, depth


def random_mesh(rng, vertices=40, triangles=60, behind=False):
    """Overlapping triangles in and around the picture, with perspective; perhaps some w < 0."""
    clip = rng.uniform(-1.3, 1.3, (vertices, 4))
    clip[:, 3] = rng.uniform(-0.7 if behind else 0.3, 3, vertices)
    clip[:, :2] *= np.abs(clip[:, 3:])
    clip[:, 2] *= np.abs(clip[:, 3]) * 1.1
    return (clip.astype(np.float32),
            np.int32([rng.choice(vertices, 3, replace=False) for _ in range(triangles)]))


@pytest.mark.parametrize("behind", (False, True))
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_meshes_match_the_oracle(rng, backend, behind):
    height, width = 37, 53
    for _ in range(4):
        clip, triangles = random_mesh(rng, behind=behind)
        ids, weights, depth = oracle(clip, triangles, height, width)
        assert (ids >= 0).mean() > 0.2
        drawn = rasterize(clip[None], triangles, height, width, backend)
        np.testing.assert_array_equal(drawn.triangle_ids[0], ids)
        np.testing.assert_allclose(drawn.barycentrics[0], weights, atol=1e-5)
        np.testing.assert_allclose(drawn.depth[0], depth, atol=1e-5)


def test_both_paths_give_the_same_bits_on_a_dense_mesh(rng):
    side = 90
    u, v = np.meshgrid(np.linspace(-1.1, 1.1, side), np.linspace(-1.1, 1.1, side))
    clip = np.stack([u, v, 0.3 * np.sin(5 * u) * np.cos(4 * v), np.ones_like(u)], axis=-1).reshape(-1, 4)
    clip = np.float32([clip + rng.normal(scale=0.01, size=clip.shape) for _ in range(3)])
    cell = np.arange(side * side).reshape(side, side)
    triangles = np.concatenate([
        np.stack([cell[:-1, :-1], cell[:-1, 1:], cell[1:, 1:]], -1).reshape(-1, 3),
        np.stack([cell[:-1, :-1], cell[1:, 1:], cell[1:, :-1]], -1).reshape(-1, 3)])
    compiled, plain = (rasterize(clip, triangles, 64, 64, backend) for backend in BACKENDS)
    for one, other in zip(compiled, plain):
        np.testing.assert_array_equal(one, other)
    ids, weights, depth = rasterize_numpy(clip[1], triangles, 64, 64)
    np.testing.assert_array_equal(ids, compiled.triangle_ids[1])
    np.testing.assert_array_equal(weights, compiled.barycentrics[1])
    np.testing.assert_array_equal(depth, compiled.depth[1])


# ---------------------------------------------------------------- coverage
def test_bands_of_rows_in_several_threads_are_one_picture(rng, monkeypatch):
    """Scenes of other sizes in turn: the memory that threads keep fits each."""
    for vertices, height, width in ((40, 37, 53), (500, 64, 8), (12, 2, 70)):
        clip, triangles = random_mesh(rng, vertices, 2 * vertices, behind=True)
        monkeypatch.setattr(rasterizer, "_WORTH_BANDS", np.inf)
        whole = rasterize_numpy(clip, triangles, height, width)
        assert (whole[0] >= 0).any()
        monkeypatch.setattr(rasterizer, "_WORTH_BANDS", 0)
        for cores in (2, 5):
            monkeypatch.setattr(rasterizer, "cores", lambda cores=cores: cores)
            for one, other in zip(whole, rasterize_numpy(clip, triangles, height, width)):
                np.testing.assert_array_equal(one, other)


def coverage_counts(clip, triangles, height, width, backend):
    """How many triangles cover each pixel: every triangle drawn alone, as an image of its own."""
    alone = rasterize(clip[triangles], [[0, 1, 2]], height, width, backend)
    return (alone.triangle_ids.numpy() >= 0).sum(axis=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", ((16, 16), (16, 32), (21, 13)))
def test_shared_edges_are_covered_exactly_once(rng, backend, size):
    height, width = size
    for _ in range(4):
        centres = np.stack([(2 * rng.integers(0, width, 25) + 1) / width - 1,
                            (2 * rng.integers(0, height, 25) + 1) / height - 1], axis=1)
        between = rng.uniform(-1, 1, (15, 2))
        square = [[-1, -1], [-1, 1], [1, -1], [1, 1]]
        points = np.unique(np.float32(np.concatenate([centres, between, square])), axis=0)
        triangles = np.int32(Delaunay(points).simplices)
        flipped = rng.random(len(triangles)) < 0.5
        triangles[flipped] = triangles[flipped][:, ::-1]
        w = rng.uniform(0.5, 3, (len(points), 1)).astype(np.float32)
        for clip in (np.concatenate([points, 0 * w, 1 + 0 * w], axis=1),
                     np.concatenate([points * w, 0 * w, w], axis=1)):
            counts = coverage_counts(clip.astype(np.float32), triangles, height, width, backend)
            np.testing.assert_array_equal(counts, np.ones(size))


@pytest.mark.parametrize("backend", BACKENDS)
def test_top_left_rule(backend):
    """A square whose border runs through pixel centres keeps those at the top and left only."""
    square = np.float32([[-0.75, -0.75, 0, 1], [0.25, -0.75, 0, 1], [0.25, 0.25, 0, 1], [-0.75, 0.25, 0, 1]])
    covered = rasterize(square[None], [[0, 1, 2], [0, 2, 3]], 8, 8, backend).triangle_ids[0].numpy() >= 0
    expected = np.zeros((8, 8), bool)
    expected[3:7, 1:5] = True  # the border is between pixels
    np.testing.assert_array_equal(covered, expected)
    on_centres = square + np.float32([0.125, 0.125, 0, 0])
    covered = rasterize(on_centres[None], [[0, 1, 2], [0, 2, 3]], 8, 8, backend).triangle_ids[0].numpy() >= 0
    expected = np.zeros((8, 8), bool)
    expected[2:6, 1:5] = True
    np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_zero_is_the_top_and_both_sides_are_drawn(backend):
    top_left = np.float32([[-1, 1, 0, 1], [-1, 0, 0, 1], [0, 1, 0, 1]])
    for triangle in ([0, 1, 2], [2, 1, 0]):
        covered = rasterize(top_left[None], [triangle], 10, 10, backend).triangle_ids[0].numpy() >= 0
        expected = np.zeros((10, 10), bool)
        expected[:5, :5] = np.add.outer(np.arange(5), np.arange(5)) < 4  # the long side goes through centres
        np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_wins_and_ties_go_to_the_first(backend):
    full = np.float32([[-1, -3, 0, 1], [-1, 1, 0, 1], [3, 1, 0, 1]])
    layers = np.concatenate([full + [0, 0, z, 0] for z in (0.5, -0.25, -0.25, 0.75, -1.5)]).astype(np.float32)
    triangles = np.arange(15, dtype=np.int32).reshape(5, 3)
    drawn = rasterize(layers[None], triangles, 6, 7, backend)
    np.testing.assert_array_equal(drawn.triangle_ids, np.ones((1, 6, 7)))  # the last is before the near plane
    np.testing.assert_allclose(drawn.depth, np.full((1, 6, 7), -0.25))


@pytest.mark.parametrize("backend", BACKENDS)
def test_floor_that_runs_under_the_camera(backend):
    """A triangle from before to behind the camera covers the lower half, up to the horizon."""
    focal, near, far = 1.0, 0.1, 100.0
    world = np.float32([[-200, -1, 50], [200, -1, 50], [0, -1, -90]])  # camera at 0 looks along -z
    depth = -world[:, 2]
    clip = np.stack([focal * world[:, 0], focal * world[:, 1],
                     (far + near) / (far - near) * depth - 2 * far * near / (far - near), depth], axis=1)
    drawn = rasterize(np.float32(clip)[None], [[0, 1, 2]], 40, 40, backend)
    covered = drawn.triangle_ids[0].numpy() == 0
    assert covered[22:, 5:35].all() and not covered[:20].any()
    row = 30  # y = -0.525 sees the floor at distance focal / 0.525
    distance = 1 / 0.525
    expected = ((far + near) / (far - near) * distance - 2 * far * near / (far - near)) / distance
    np.testing.assert_allclose(drawn.depth[0, row, 20], expected, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_see(backend):
    """Points, lines, triangles with NaN, behind the camera or beyond a plane draw nothing."""
    clip = np.float32([[0, 0, 0, 1], [0, 0, 0, 1], [0.5, 0.5, 0, 1], [np.nan, 0, 0, 1], [1, 0, 0, -1],
                       [0, 1, 0, -1], [-1, -1, 0, -1], [5, 0, 0, 1], [5, 1, 0, 1], [6, 0, 0, 1]])
    triangles = [[0, 1, 2], [0, 0, 0], [0, 2, 3], [4, 5, 6], [7, 8, 9]]
    drawn = rasterize(clip[None], triangles, 9, 9, backend)
    assert (drawn.triangle_ids.numpy() == -1).all() and (drawn.depth.numpy() == 1).all()
    assert (drawn.barycentrics.numpy() == 0).all()


# ---------------------------------------------------------------- interpolation
@pytest.mark.parametrize("backend", BACKENDS)
def test_interpolation_is_perspective_correct(backend):
    """On a slanted plane, world coordinates at a pixel are where its ray meets the plane."""
    world = np.float32([[-9, -4, -3], [9, -4, -3], [0, 8, -12]])
    clip = np.concatenate([world[:, :2], 0.1 * world[:, 2:], -world[:, 2:]], axis=1)
    drawn = rasterize(clip[None], [[0, 1, 2]], 24, 24, backend)
    seen = interpolate(world[None], [[0, 1, 2]], drawn, backend)[0].numpy()
    covered = drawn.triangle_ids[0].numpy() == 0
    x = (2 * np.arange(24) + 1) / 24 - 1
    expected = np.stack(np.meshgrid(x, -x), axis=-1)
    assert covered.mean() > 0.3
    np.testing.assert_allclose(seen[covered][:, :2] / -seen[covered][:, 2:], expected[covered], atol=1e-5)
    np.testing.assert_array_equal(seen[~covered], 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_match_finite_differences(rng, backend):
    """Of interpolated attributes and depth, for attributes and clip vertices.

    The triangles are layers that do not meet, seen in pixels away from their borders, so that a
    small step changes no pixel's triangle.
    """
    clip, _ = random_mesh(rng, vertices=18)
    triangles = np.arange(18, dtype=np.int32).reshape(6, 3)
    clip[:, 2] = clip[:, 3] * (np.repeat(np.linspace(-0.8, 0.8, 6), 3) + rng.uniform(-0.05, 0.05, 18))
    clip, attributes = tf.constant(clip[None]), tf.constant(rng.normal(size=(1, 18, 4)), tf.float32)
    drawn = rasterize(clip, triangles, 48, 48, backend)
    inner = np.min(drawn.barycentrics, axis=-1, keepdims=True) > 0.1
    ids = drawn.triangle_ids.numpy()
    for shift, axis in ((1, 1), (-1, 1), (1, 2), (-1, 2)):  # neither behind another's border
        inner &= (np.roll(ids, shift, axis) == ids)[..., None]
    assert inner.sum() > 100
    weights = inner * rng.normal(size=(1, 48, 48, 5)).astype(np.float32)

    def total(vertices, values):
        seen = rasterize(vertices, triangles, 48, 48, backend)
        pixels = tf.concat([interpolate(values, triangles, seen, backend), seen.depth[..., None]], axis=-1)
        return tf.reduce_sum(tf.cast(pixels * weights, tf.float64))

    with tf.GradientTape() as tape:
        tape.watch([clip, attributes])
        value = total(clip, attributes)
    for which, gradient in enumerate(tape.gradient(value, [clip, attributes])):
        for _ in range(4):
            direction = rng.normal(size=gradient.shape).astype(np.float32)
            steps = [clip, attributes]
            ahead, behind = ([*steps[:which], steps[which] + sign * 1e-3 * direction, *steps[which + 1:]]
                             for sign in (1, -1))
            measured = float(total(*ahead) - total(*behind)) / 2e-3
            predicted = float(tf.reduce_sum(gradient * direction))
            assert abs(measured - predicted) < 0.01 * abs(measured) + 0.02


def test_both_paths_give_the_same_gradients(rng):
    clip, triangles = random_mesh(rng)
    clip, attributes = tf.constant(clip[None]), tf.constant(rng.normal(size=(1, 40, 3)), tf.float32)
    weights = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    results = []
    for backend in BACKENDS:
        with tf.GradientTape() as tape:
            tape.watch([clip, attributes])
            drawn = rasterize(clip, triangles, 32, 32, backend)
            total = tf.reduce_sum(interpolate(attributes, triangles, drawn, backend) * weights)
            total += tf.reduce_sum(drawn.depth * weights[..., 0])
        results.append(tape.gradient(total, [clip, attributes]))
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


# ---------------------------------------------------------------- batches and bad input
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_batch_in_a_compiled_function(rng, backend):
    clip, triangles = random_mesh(rng)

    @tf.function(input_signature=[tf.TensorSpec((None, 40, 4)), tf.TensorSpec((None, 40, None))])
    def draw(vertices, attributes):
        with tf.GradientTape() as tape:
            tape.watch([vertices, attributes])
            drawn = rasterize(vertices, triangles, 20, 30, backend)
            pixels = interpolate(attributes, triangles, drawn, backend)
        assert drawn.triangle_ids.shape.as_list() == [None, 20, 30]
        assert drawn.barycentrics.shape.as_list() == [None, 20, 30, 3]
        assert pixels.shape.as_list() == [None, 20, 30, None]
        return pixels, tape.gradient(pixels, [vertices, attributes])

    alone = draw(clip[None], clip[None])
    for batch in (0, 1, 3):
        several = np.repeat(clip[None], batch, axis=0)
        pixels, gradients = draw(several, several)
        np.testing.assert_array_equal(pixels, np.repeat(alone[0], batch, axis=0))
        for gradient, expected in zip(gradients, alone[1]):
            np.testing.assert_allclose(gradient, np.repeat(expected, batch, axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mesh_without_triangles(backend):
    empty = np.zeros((0, 3), np.int32)
    drawn = rasterize(np.ones((2, 5, 4)), empty, 4, 4, backend)
    assert (drawn.triangle_ids.numpy() == -1).all()
    assert (interpolate(np.ones((2, 5, 3)), empty, drawn, backend).numpy() == 0).all()


def test_bad_input_is_refused():
    clip, triangles = np.zeros((1, 4, 4), np.float32), np.int32([[0, 1, 2]])
    cases = ((dict(clip_vertices=np.zeros((4, 4))), r"clip_vertices must have shape \(B, N, 4\), got \(4, 4"),
             (dict(clip_vertices=np.zeros((1, 4, 3))), r"clip_vertices must .* got \(1, 4, 3\)"),
             (dict(triangles=np.zeros((2, 4), np.int32)), r"triangles must have shape \(F, 3\), got \(2, 4"),
             (dict(height=0), "height and width must be at least 1 pixel, got 0 x 8"),
             (dict(backend="opengl"), "backend must be one of"))
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            rasterize(**{**dict(clip_vertices=clip, triangles=triangles, height=8, width=8), **change})
    with pytest.raises(ValueError, match=r"clip_vertices must have shape \(N, 4\)"):
        rasterize_numpy(clip, triangles, 8, 8)
    with pytest.raises(ValueError, match="triangles has values in 0..9, but there are only rows 0..3"):
        rasterize_numpy(clip[0], [[0, 1, 9]], 8, 8)
    drawn = rasterizer.rasterize(clip, triangles, 8, 8)
    with pytest.raises(ValueError, match=r"attributes must have shape \(B, N, C\), got \(4, 3\)"):
        interpolate(np.zeros((4, 3)), triangles, drawn)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_out_of_range_stops_instead_of_reading_beyond(backend):
    clip = np.zeros((1, 4, 4), np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError if backend == "tensorflow" else Exception,
                       match="0, 4|rows 0..3"):
        rasterize(clip, [[0, 1, 4]], 8, 8, backend)


def test_a_broken_numba_is_an_error_not_a_slow_fallback(monkeypatch):
    monkeypatch.setitem(sys.modules, "facegcn.backends.kernels", None)
    monkeypatch.delattr(backends, "kernels")
    specification = importlib.util.find_spec("facegcn.backends.row_gathers")
    with pytest.raises(ImportError):
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
