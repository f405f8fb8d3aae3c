"""facegcn.lighting: known values, a slow oracle, gradients, bad shapes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from facegcn import lighting


def unit_vectors(rng, *shape):
    vectors = rng.normal(size=(*shape, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def basis_oracle(x, y, z):
    """The nine functions at one normal, written as products with the real SH constants."""
    order0, order1, order2 = math.pi, 2 * math.pi / 3, math.pi / 4  # cosine lobe, order by order
    k0, k1, k2 = 1 / (2 * math.sqrt(math.pi)), math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    # the released code scales orders 1 and 2 by sqrt(3) and sqrt(8) against the lobe
    s1, s2 = math.sqrt(3), math.sqrt(8)
    return [order0 * k0, -order1 * s1 * k1 * y, order1 * s1 * k1 * z, -order1 * s1 * k1 * x,
            order2 * s2 * k2 * x * y, -order2 * s2 * k2 * y * z,
            order2 * s2 * k2 * (3 * z * z - 1) / (2 * math.sqrt(3)),
            -order2 * s2 * k2 * x * z, order2 * s2 * k2 * (x * x - y * y) / 2]


def test_basis_matches_the_oracle(rng):
    normals = unit_vectors(rng, 2, 5)
    basis = lighting.sh_basis(normals).numpy()
    assert basis.shape == (2, 5, 9)
    for image, vertex in np.ndindex(2, 5):
        np.testing.assert_allclose(basis[image, vertex], basis_oracle(*normals[image, vertex]), atol=1e-5)


def test_no_coefficients_are_plain_light(rng):
    shading = lighting.shading(unit_vectors(rng, 2, 4), np.zeros((2, 27)))
    np.testing.assert_allclose(shading, np.full((2, 4, 3), 0.8 * math.sqrt(math.pi) / 2), rtol=1e-6)


def test_coefficients_go_channel_by_channel(rng):
    normals = unit_vectors(rng, 1, 6)
    gamma = rng.normal(size=(1, 27)).astype(np.float32)
    basis = lighting.sh_basis(normals).numpy()
    for channel in range(3):
        nine = gamma[0, 9 * channel:9 * channel + 9] + 0.8 * np.eye(9)[0]
        shading = lighting.shading(normals, gamma)[0, :, channel]
        np.testing.assert_allclose(shading, basis[0] @ nine, atol=1e-5)


def test_light_from_above_brightens_what_faces_up():
    gamma = np.zeros((1, 27), np.float32)
    gamma[0, 1::9] = -0.3  # the function of y has a negative sign
    shading = lighting.shading([[[0.0, 1, 0], [0, -1, 0]]], gamma).numpy()[0]
    assert (shading[0] > shading[1] + 0.3).all()


def test_lit_colours_are_clipped():
    normals = [[[0.0, 0, 1]]]
    bright, dark = np.zeros((2, 1, 27), np.float32)
    bright[:, ::9], dark[:, ::9] = 5, -5
    np.testing.assert_array_equal(lighting.illuminate([[[0.5, 0.5, 0.5]]], normals, bright), [[[1, 1, 1]]])
    np.testing.assert_array_equal(lighting.illuminate([[[0.5, 0.5, 0.5]]], normals, dark), [[[0, 0, 0]]])


def test_gradients(rng):
    normals = tf.constant(unit_vectors(rng, 2, 4))
    gamma = tf.constant(rng.normal(scale=0.1, size=(2, 27)), tf.float32)
    albedo = tf.constant(rng.uniform(0.2, 0.5, (2, 4, 3)), tf.float32)
    analytic, numeric = tf.test.compute_gradient(lighting.illuminate, [albedo, normals, gamma], delta=1e-2)
    for a, b in zip(analytic, numeric):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"gamma must have shape \(B, 27\), got \(1, 9\)"):
        lighting.shading(np.zeros((1, 4, 3)), np.zeros((1, 9)))
    with pytest.raises(ValueError, match=r"normals must have shape \(B, N, 3\), got \(1, 4, 2\)"):
        lighting.sh_basis(np.zeros((1, 4, 2)))


def test_fitted_light_is_the_light_of_the_photo():
    rng = np.random.default_rng(5)
    normals = rng.normal(size=(2, 400, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    albedo = rng.uniform(0.2, 0.9, (2, 400, 3)).astype(np.float32)
    truth = rng.normal(0, 0.1, (2, 27)).astype(np.float32)
    start = np.zeros((2, 27), np.float32)
    weight = (rng.random((2, 400)) < 0.7).astype(np.float32)
    seen = albedo * lighting.shading(normals, truth).numpy()
    seen[weight == 0] = 99.0  # what is not seen must not count
    found = lighting.fit_light(albedo, normals, seen, weight, start, ridge=1e-6).numpy()
    np.testing.assert_allclose(found, truth, atol=2e-3)
    pulled = lighting.fit_light(albedo, normals, seen, weight, start, ridge=10.0).numpy()
    assert np.abs(pulled).max() < 0.1 * np.abs(truth).max()
    nothing = lighting.fit_light(albedo, normals, seen, np.zeros_like(weight), start).numpy()
    np.testing.assert_allclose(nothing, start, atol=1e-6)


def test_fitted_light_is_the_ridge_regression_around_the_light_that_is_given(rng):
    normals = rng.normal(size=(1, 50, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    albedo, seen = rng.uniform(0.2, 0.9, (2, 1, 50, 3)).astype(np.float32)
    weight, start = rng.random((1, 50)).astype(np.float32), rng.normal(0, 0.3, (1, 27)).astype(np.float32)
    found = lighting.fit_light(albedo, normals, seen, weight, start, ridge=0.2).numpy()[0]
    basis, off = lighting.sh_basis(normals).numpy()[0], seen - albedo * lighting.shading(normals, start).numpy()
    for channel in range(3):
        design = albedo[0, :, channel, None] * basis
        matrix = (design * weight[0, :, None]).T @ design + 0.2 * weight.sum() * np.eye(9)
        change = np.linalg.solve(matrix, design.T @ (weight[0] * off[0, :, channel]))
        mine = slice(9 * channel, 9 * channel + 9)
        np.testing.assert_allclose(found[mine], start[0, mine] + change, atol=1e-5)


def test_frontal_brightness_is_the_mean_over_a_sphere_seen_from_the_front(rng):
    normals = rng.normal(size=(200_000, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[:, 2] = np.abs(normals[:, 2])
    gamma = rng.normal(size=(2, 27)).astype(np.float32) * 0.3
    for light in gamma:
        shade = lighting.shading(normals[None], light[None]).numpy()[0].mean(axis=1)
        expected = np.sum(shade * normals[:, 2]) / np.sum(normals[:, 2])
        np.testing.assert_allclose(lighting.frontal_brightness(light[None])[0], expected, atol=0.01)


def test_dark_skin_gets_a_little_more_light():
    np.testing.assert_allclose(lighting.metered_exposure(0.5), 0.9)
    np.testing.assert_allclose(lighting.metered_exposure(0.25), 0.9 * 2 ** 0.1)


def test_light_of_a_face_that_is_not_finite_is_not_finite_and_the_others_are_as_before(rng):
    albedo, colors = rng.uniform(0.2, 0.8, (2, 2, 40, 3)).astype(np.float32)
    normals = rng.normal(size=(2, 40, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    weight, gamma = np.ones((2, 40), np.float32), np.zeros((2, 27), np.float32)
    whole = lighting.fit_light(albedo, normals, colors, weight, gamma).numpy()
    normals[1, 3, 2] = np.nan
    found = lighting.fit_light(albedo, normals, colors, weight, gamma).numpy()
    np.testing.assert_allclose(found[0], whole[0], rtol=1e-5, atol=1e-6)
    assert np.isnan(found[1]).all()
