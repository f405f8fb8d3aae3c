"""The loss of a texture in the pose and light of a second picture: an oracle pixel by pixel, gradients, photos."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn import camera, geometry, lighting
from facegcn.face_model import FaceModel
from facegcn.losses import second_view_loss
from facegcn.rasterizer import rasterize_numpy
from tests.faces import half_ellipsoid
from tests.test_photometric_fitting import faces, posed

SIZE = 48


@pytest.fixture(scope="module")
def model():
    return FaceModel(half_ellipsoid(), image_size=SIZE)


@pytest.fixture
def case(model, rng):
    """Textures, truths (3, N, 3) and coefficients of second pictures (3, K)."""
    texture, truth = rng.uniform(-1, 1, (2, 3, model.morphable.vertex_count, 3)).astype(np.float32)
    return texture, truth, faces(model.morphable, 3)


def drawn_distance(morphable, texture, truth, second):
    """Sum of |colour differences| in [-1, 1] and number of pixels of one face, two pictures pixel by pixel."""
    world = posed(morphable, second[None])
    normals = geometry.vertex_normals(world, morphable.triangles)
    light = np.maximum(lighting.shading(normals, morphable.split(second[None]).gamma)[0].numpy(), 0.0)
    clip = camera.clip_coordinates(world, SIZE, SIZE).numpy()[0]
    drawn = rasterize_numpy(clip, morphable.triangles, SIZE, SIZE)
    colors = [(albedo * 0.5 + 0.5) * light * 2.0 - 1.0 for albedo in (texture, truth)]
    total, pixels = 0.0, 0
    for ids, weights in zip(np.ravel(drawn[0]), np.reshape(drawn[1], (-1, 3))):
        if ids >= 0:
            first, other = (weights @ color[morphable.triangles[ids]] for color in colors)
            total, pixels = total + np.abs(first - other).sum(), pixels + 1
    return total, pixels


def test_the_loss_is_that_of_pictures_drawn_one_by_one(model, case):
    found = [drawn_distance(model.morphable, *one) for one in zip(*case)]
    total, pixels = np.sum(found, axis=0)
    assert pixels > 1000
    np.testing.assert_allclose(second_view_loss(model, *case), total / (3 * pixels), rtol=1e-4)


def test_the_truth_costs_nothing(model, case):
    _, truth, second = case
    np.testing.assert_allclose(second_view_loss(model, truth, truth, second), 0.0, atol=1e-6)
    half = truth.astype(np.float16)  # as made portraits keep it
    np.testing.assert_allclose(second_view_loss(model, truth, half, second), 0.0, atol=1e-3)


def test_photos_count_nothing_in_loss_and_gradient(model, case):
    texture, truth, second = (array.copy() for array in case)
    truth[1], second[1] = np.nan, np.nan
    both = second_view_loss(model, texture[[0, 2]], truth[[0, 2]], second[[0, 2]])
    np.testing.assert_allclose(second_view_loss(model, texture, truth, second), both, rtol=1e-5)
    for spoilt in ((truth, case[2]), (case[1], second)):  # either is enough
        np.testing.assert_allclose(second_view_loss(model, texture, *spoilt), both, rtol=1e-5)
    given = tf.constant(texture)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = second_view_loss(model, given, truth, second)
    slope = tape.gradient(value, given).numpy()
    assert np.isfinite(slope).all() and not slope[1].any() and slope[0].any() and slope[2].any()


def test_photos_alone_cost_nothing(model, case):
    texture, truth, second = (np.full_like(array, np.nan) if i else array for i, array in enumerate(case))
    given = tf.constant(texture)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = second_view_loss(model, given, truth, second)
    assert value == 0.0 and not tape.gradient(value, given).numpy().any()


def test_gradients_equal_finite_differences(model, case, rng):
    texture, truth, second = (array[:1] for array in case)
    given, truth = tf.constant(truth + np.sign(texture) * 0.3), tf.constant(truth)  # away from where |.| bends
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = second_view_loss(model, given, truth, second)
    slope = tape.gradient(value, given).numpy()
    step = np.float32(rng.normal(size=slope.shape) * 1e-3) + 1e-2 * np.sign(slope)
    ends = [second_view_loss(model, given + sign * step, truth, second).numpy() for sign in (1, -1)]
    np.testing.assert_allclose((slope * step).sum(), (ends[0] - ends[1]) / 2, rtol=0.02)
    assert np.abs(slope).sum() > 0.1


def test_what_the_second_picture_does_not_show_or_leaves_dark_costs_nothing(model, case):
    texture, truth, second = (array[:1].copy() for array in case)
    model.morphable.split(second).gamma[:] = 0.0
    model.morphable.split(second).gamma[:, ::9] = -2.0  # below darkness there is nothing
    assert second_view_loss(model, texture, truth, second) < 1e-6
    outside = case[2][:1].copy()
    model.morphable.split(outside).translation[:] = 9.0, 0.0, 0.0
    assert second_view_loss(model, texture, truth, outside) == 0.0
