"""Every compiled loop against the same lines run by Python: what Numba makes of them is what they say.

Coverage sees Python's lines only, so this is also where it counts the loops.
"""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from numba.core.dispatcher import Dispatcher

from facegcn import geometry, rasterizer
from facegcn.backends import kernels, texture_kernels
from facegcn.backends.row_gathers import gather_rows
from facegcn.mesh import closest_point, decimation
from facegcn.portraits import formation, overlay
from facegcn.portraits.maker import PortraitMaker
from facegcn.texture.baking import Baker
from facegcn.texture.drawing import draw_textured
from facegcn.texture.layout import layout_of
from tests.faces import half_ellipsoid
from tests.test_texture_baking import face_of

MODULES = (kernels, texture_kernels, closest_point, decimation, formation, overlay)


def exact_fma(a, b, c):
    """a * b + c with one rounding, of whatever are finite."""
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


@pytest.fixture
def interpreted(monkeypatch):
    """Calls a function compiled, and with the loops of modules interpreted; both results."""
    def both(function, modules=MODULES):
        compiled, names = function(), {module.__name__ for module in modules}
        with monkeypatch.context() as patch, np.errstate(all="ignore"):
            for module in [module for name, module in sys.modules.items() if name.startswith("facegcn.")]:
                for name, value in list(vars(module).items()):
                    if isinstance(value, Dispatcher) and value.__module__ in names:
                        patch.setattr(module, name, value.py_func)
            patch.setattr(decimation, "_fma", exact_fma)
            return compiled, function()
    return both


def test_every_module_with_loops_is_here():
    from tests.test_architecture import modules
    found = {path.stem for path in modules() if "njit" in path.read_text()}
    assert found == {module.__name__.rsplit(".", 1)[1] for module in MODULES}


def test_rasterizer_and_its_gradients(interpreted, rng):
    """Triangles of all kinds: behind the camera, beyond the planes, not finite, exactly on pixel centres."""
    points = rng.normal(size=(1, 24, 4)).astype(np.float32)
    points[..., 3] = np.abs(points[..., 3]) + 0.3
    points[0, 0, 3], points[0, 1, 2], points[0, 2, 0] = -0.5, 9.0, np.nan
    points[0, 20:] = [[-1, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]]
    triangles = np.concatenate([rng.integers(0, 20, (12, 3)), [[20, 21, 22], [20, 22, 23]]]).astype(np.int32)
    colors = rng.random((1, 24, 3)).astype(np.float32)
    upstream = rng.normal(size=(1, 6, 8, 3)).astype(np.float32)

    def draw():
        clip, values = tf.constant(points), tf.constant(colors)
        with tf.GradientTape() as tape:
            tape.watch([clip, values])
            drawn = rasterizer.rasterize(clip, triangles, 6, 8, "numba")
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
    photo = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    for face in (face_of(model), face_of(model, photo, np.float64([[2.0, 0, 0], [0, 2.0, 0]]))):
        compiled, plain = interpreted(lambda face=face: baker(face), [texture_kernels])
        for name in ("albedo", "lit", "visibility", "confidence"):
            one, other = (getattr(textures, name).astype(int) for textures in (compiled, plain))
            assert np.mean(np.abs(one - other) > 1) < 0.01, name
    world = model.mean_shape - model.mean_shape.mean(axis=0)
    for texture in (photo, np.float32(photo)):
        compiled, plain = interpreted(lambda texture=texture: draw_textured(world, layout, texture, 12),
                                      [texture_kernels])
        assert np.ptp(compiled) > 0
        np.testing.assert_allclose(compiled, plain, atol=1e-3)


def test_fma_rounds_once():
    assert exact_fma(1 + 2.0 ** -52, 1 + 2.0 ** -52, -1.0) == 2.0 ** -51 + 2.0 ** -104
    assert math.isclose(exact_fma(2, 3, 4), 10)
