"""Every compiled loop against the same lines run by Python: what Numba makes of them is what they say.

Coverage sees Python's lines only, so this is also where it counts the loops.
"""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from numba.core.dispatcher import Dispatcher

from facegcn import geometry, rasterizer
from facegcn.backends import baking_kernel, record_kernels, sparse_kernels, texture_kernels
from facegcn.backends.row_gathers import gather_rows
from facegcn.graph import ChebyshevSeries
from facegcn.mesh import closest_point, decimation
from facegcn.portraits.maker import PortraitMaker
from facegcn.texture.baking import Baker
from facegcn.texture.drawing import draw_textured
from facegcn.texture.layout import layout_of
from tests.faces import half_ellipsoid
from tests.test_texture_baking import face_of

TEXTURES = (baking_kernel.__name__, texture_kernels.__name__)


def exact_fma(a, b, c):
    """a * b + c with one rounding, of whatever are finite."""
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def weighed(colors, rows, columns, down, across):
    """Red, green and blue of 4 x 4 pixels by weight, as ``baking_kernel._weighed`` has them of a processor."""
    places = np.add.outer(np.array(rows, np.int64), np.array(columns, np.int64))
    pixels = colors.view(np.uint8).reshape(-1, 4)[places, :3].astype(np.float32)
    return tuple(np.einsum("j,i,jic->c", np.float32(down), np.float32(across), pixels))


@pytest.fixture
def interpreted(monkeypatch):
    """Calls a function compiled, and with the loops of modules (by default all) interpreted; both results."""
    def both(function, modules="facegcn."):
        compiled = function()
        with monkeypatch.context() as patch, np.errstate(all="ignore"):
            for module in [module for name, module in sys.modules.items() if name.startswith("facegcn.")]:
                for name, value in list(vars(module).items()):
                    if isinstance(value, Dispatcher) and value.__module__.startswith(modules):
                        patch.setattr(module, name, value.py_func)
            patch.setattr(decimation, "_fma", exact_fma)
            patch.setattr(baking_kernel, "_weighed", weighed)
            return compiled, function()
    return both


def test_rasterizer_and_its_gradients(interpreted, rng):
    """Triangles of all kinds: behind the camera, beyond the planes, not finite, exactly on pixel centres."""
    points = rng.normal(size=(1, 24, 4)).astype(np.float32)
    points[..., 3] = np.abs(points[..., 3]) + 0.3
    points[0, 0, 3], points[0, 1, 2], points[0, 2, 0] = -0.5, 9.0, np.nan
    points[0, 20:] = [[-0.875, -0.875, 0, 1], [0.875, -0.875, 0, 1], [0.875, 0.875, 0, 1], [-0.875, 0.875, 0, 1]]
    triangles = np.concatenate([rng.integers(0, 20, (12, 3)), [[20, 21, 22], [20, 22, 23]]]).astype(np.int32)
    colors = rng.random((1, 24, 3)).astype(np.float32)
    upstream = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)

    def draw():
        clip, values = tf.constant(points), tf.constant(colors)
        with tf.GradientTape() as tape:
            tape.watch([clip, values])
            drawn = rasterizer.rasterize(clip, triangles, 8, 8, "numba")
            mixed = rasterizer.interpolate(values, triangles, drawn, "numba")
            total = tf.reduce_sum(mixed * upstream) + tf.reduce_sum(drawn.depth * upstream[..., 0])
        return [*drawn, mixed, *tape.gradient(total, [clip, values])]

    compiled, plain = interpreted(draw)
    np.testing.assert_array_equal(compiled[0], plain[0])
    assert len(np.unique(compiled[0])) > 3
    for found, wanted in zip(compiled[1:], plain[1:]):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_normals_and_gathers(interpreted, rng):
    model = half_ellipsoid(5, 6)
    points, upstream = model.mean_shape[None] + 0.1 * rng.normal(size=(2, 1, 3)), rng.normal(size=(2, 30, 3))

    def run():
        vertices = tf.constant(points, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(vertices)
            normals = geometry.vertex_normals(vertices, model.triangles, "numba")
            rows = gather_rows(vertices, model.triangles, "numba")
            total = tf.reduce_sum(normals * upstream) + tf.reduce_sum(rows ** 2)
        return normals, tape.gradient(total, vertices)

    for found, wanted in zip(*interpreted(run)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widths", [(2, 3), (3, 2)])
def test_graph_convolution(interpreted, rng, widths, monkeypatch):
    monkeypatch.setattr(sparse_kernels, "LEAST_ROWS", 1)  # so small a matrix is TensorFlow's otherwise
    laplacian = sp.csr_matrix(np.float32(rng.normal(size=(9, 9)) * (rng.random((9, 9)) < 0.6)))
    assert sparse_kernels.worth_a_table(laplacian)
    x, kernel = rng.normal(size=(9, 2, widths[0])), rng.normal(size=(4 * widths[0], widths[1]))

    def run():
        series, given = ChebyshevSeries(laplacian, 4), [tf.constant(array, tf.float32) for array in (x, kernel)]
        with tf.GradientTape() as tape:
            tape.watch(given)
            result = series(*given)
            total = tf.reduce_sum(result ** 2)
        return result, *tape.gradient(total, given)

    for found, wanted in zip(*interpreted(run)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("less", [False, True])
def test_sparse_products(interpreted, rng, less):
    """Rows without entries, and rows longer than the table is wide."""
    matrix = sp.csr_matrix(np.float32(rng.normal(size=(9, 14)) * (rng.random((9, 14)) < np.linspace(0, 1, 9)[:, None])))
    table, x = sparse_kernels.table(matrix), rng.normal(size=(14, 3)).astype(np.float32)
    taken = np.ones((9, 3), np.float32) if less else None
    compiled, plain = interpreted(lambda: sparse_kernels.multiply(table, x, taken))
    np.testing.assert_allclose(compiled, matrix @ x - float(less), atol=1e-5)
    np.testing.assert_allclose(plain, compiled, atol=1e-5)


def test_records_in_network_range(interpreted, rng):
    rgba = rng.integers(0, 256, 4 * 50).astype(np.uint8)

    def run():
        found = np.empty(rgba.shape, np.float32)
        record_kernels.to_network_range(rgba, found)
        return found

    compiled, plain = interpreted(run)
    np.testing.assert_array_equal(compiled, plain)
    np.testing.assert_allclose(compiled.reshape(-1, 4) * (127.5, 127.5, 127.5, 255) + (127.5, 127.5, 127.5, 0),
                               rgba.reshape(-1, 4), atol=1e-4)


def test_portraits(interpreted):
    """Every look that is drawn, among the first few portraits, with glasses, strands and hands."""
    maker = PortraitMaker(half_ellipsoid(9, 11), 24, seed=1)
    compiled, plain = interpreted(lambda: [maker.make(index) for index in range(6)])
    for found, wanted in zip(compiled, plain):
        for name in ("rgba", "albedo", "visible", "landmarks"):
            one, other = (np.asarray(getattr(portrait, name), np.float64) for portrait in (found, wanted))
            assert np.mean(np.abs(one - other) > 1.001) < 0.01, name  # bytes may round the other way


def test_decimation(interpreted):
    model = half_ellipsoid(7, 8)
    compiled, plain = interpreted(lambda: decimation.decimate(model.mean_shape, model.triangles, 20))
    for found, wanted in zip(compiled, plain):
        np.testing.assert_array_equal(found, wanted)
    assert len(compiled[0]) <= 20


def test_closest_points(interpreted, rng):
    model = half_ellipsoid(6, 7)
    points = np.concatenate([model.mean_shape[::4] + 0.3 * rng.normal(size=(11, 3)), 5 * rng.normal(size=(20, 3))])
    compiled, plain = interpreted(lambda: closest_point.closest_points(points, model.mean_shape, model.triangles))
    for found, wanted in zip(compiled, plain):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_textures(interpreted, rng):
    """Baked of a photo that is coarser than the texture, and of one that is finer; then drawn."""
    model = half_ellipsoid(5, 6)
    layout = layout_of(model)
    baker = Baker(model, layout, 24)
    photo = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
    for face in (face_of(model), face_of(model, photo, np.float64([[4.0, 0, 0], [0, 4.0, 0]]))):
        compiled, plain = interpreted(lambda face=face: baker(face), TEXTURES)
        for name in ("albedo", "lit", "visibility", "confidence"):
            one, other = (getattr(textures, name).astype(int) for textures in (compiled, plain))
            assert np.mean(np.abs(one - other) > 1) < 0.01, name
    world = model.mean_shape - model.mean_shape.mean(axis=0)
    for texture in (photo, np.float32(photo)):
        compiled, plain = interpreted(lambda texture=texture: draw_textured(world, layout, texture, 12),
                                      TEXTURES)
        assert np.ptp(compiled) > 0
        np.testing.assert_allclose(compiled, plain, atol=1e-3)


def test_fma_rounds_once():
    assert exact_fma(1 + 2.0 ** -52, 1 + 2.0 ** -52, -1.0) == 2.0 ** -51 + 2.0 ** -104
    assert math.isclose(exact_fma(2, 3, 4), 10)
