"""Our geometry, light and renderer give the numbers of one run of the released code."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn import camera, geometry, lighting
from facegcn.morphable import MorphableModel
from facegcn.rasterizer import rasterize
from facegcn.renderer import render_colors

FIRST_INNER_LANDMARK = 17  # the released code leaves out the 17 points of the jaw line


@pytest.fixture(scope="module")
def face(released_case):
    """The case's model, and the two faces of its coefficients: world vertices, normals, colours."""
    arrays = {name.removeprefix("model/"): value for name, value in released_case.items() if name.startswith("model/")}
    for name in ("id_basis", "exp_basis", "albedo_basis"):
        arrays[name] = arrays[name].reshape(len(arrays["mean_shape"]), 3, -1)
    model = MorphableModel(**arrays)
    part = model.split(released_case["out/coeff"])
    shape, albedo = model.vertices(part.id, part.exp), model.albedo(part.tex)
    normals = geometry.rotate(geometry.vertex_normals(shape, model.triangles), part.angles)
    world = geometry.rotate(shape, part.angles) + part.translation[:, None]
    colors = lighting.illuminate(albedo / 255.0, normals, part.gamma)
    return dict(model=model, shape=shape, albedo=albedo, world=world, colors=colors)


def assert_close(ours, theirs):
    """Equal to 1e-5 of the largest magnitude."""
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_vertices(released_case, face):
    assert_close(face["shape"], released_case["out/vert"])


def test_albedo(released_case, face):
    assert_close(face["albedo"] / 127.5 - 1, released_case["out/pca_tex"])


def test_lit_colours(released_case, face):
    assert_close(face["colors"] * 2 - 1, released_case["out/pca_color"])


def test_projected_landmarks(released_case, face):
    landmarks = face["model"].landmarks[FIRST_INNER_LANDMARK:]
    assert_close(tf.gather(camera.project(face["world"]), landmarks, axis=1), released_case["out/lm"])


@pytest.mark.parametrize("backend", ("numba", "tensorflow"))
@pytest.mark.parametrize("texture", ("pca", "gcn"))
def test_renders(released_case, face, texture, backend):
    """Colours on every pixel to 2 of 255 levels but for 0.1%, coverage exactly."""
    triangles, expected = face["model"].triangles, released_case[f"out/{texture}_render"]
    height, width = expected.shape[1:3]
    clip = camera.clip_coordinates(face["world"], height, width)
    colors = (released_case[f"out/{texture}_color"] + 1) / 2
    image = render_colors(rasterize(clip, triangles, height, width, backend), triangles, colors).numpy()
    levels = np.abs(image[..., :3] * 2 - 1 - expected[..., :3]).max(axis=-1) * 127.5
    assert (levels <= 2).mean() >= 0.999
    np.testing.assert_array_equal(image[..., 3], expected[..., 3])
