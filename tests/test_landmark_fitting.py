"""Fitting to landmarks: derivatives, an oracle with the full covariance, and what spoils landmarks of photos."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import least_squares

from facegcn import camera, geometry, landmark_fitting
from facegcn.landmark_fitting import LandmarkFitter, parameter_columns, project, rotation
from facegcn.landmarks import DENSE_COUNT, landmark_targets
from facegcn.surface_points import dense_points, target_points
from tests.faces import embedded as random_landmarks
from tests.faces import half_ellipsoid


def embedded(noise=0.3, shared=0.0, bias=0.0, seed=0):
    """A small model with random dense landmarks."""
    return random_landmarks(half_ellipsoid(), noise, shared, bias, seed)


def faces(model, count, pose=(25, 70, 45), seed=1):
    """Coefficients (count, K) with angles up to ``pose`` degrees, and landmarks (count, 468, 2) by the pipeline's own
    formulas, without errors."""
    rng = np.random.default_rng(seed)
    coeff = np.zeros((count, model.coefficient_count), np.float32)
    parts = model.split(coeff)
    parts.id[:], parts.exp[:] = rng.normal(size=parts.id.shape), rng.normal(size=parts.exp.shape)
    parts.angles[:] = np.radians(rng.uniform(-1, 1, (count, 3)) * pose)
    parts.translation[:] = rng.normal(size=(count, 3)) * 0.2
    world = geometry.rotate(model.vertices(parts.id, parts.exp), parts.angles).numpy() + parts.translation[:, None]
    held = np.maximum(model.embedding.triangles, 0)
    points = np.einsum("lc,blcd->bld", model.embedding.barycentrics, world[:, model.triangles[held]])
    return coeff, camera.to_pixels(camera.project(points), 224).numpy().astype(np.float64)


@pytest.fixture(scope="module")
def plain():
    model = embedded()
    return model, LandmarkFitter(model, dense_points(model))


def truth(model, coeff):
    return coeff[:, parameter_columns(model)]


# ---------------------------------------------------------------- formulas
def test_rotation_is_the_pipelines():
    angles = np.radians([[10.0, -65.0, 40.0], [-20.0, 5.0, 170.0]])
    for one, wanted in zip(angles, geometry.rotation_matrix(np.float32(angles)).numpy()):
        np.testing.assert_allclose(rotation(one)[0], wanted, atol=1e-6)
        np.testing.assert_allclose(landmark_fitting.angles_of(rotation(one)[0]), one, atol=1e-12)


def test_derivatives_equal_finite_differences(plain):
    rng = np.random.default_rng(2)
    mean, basis = rng.normal(size=(7, 3)), 0.1 * rng.normal(size=(7, 3, 4))
    x = np.concatenate([rng.normal(size=4), [0.3, -1.1, 0.7], [0.2, -0.1, 0.4]])
    _, found, _ = project(mean, basis, x)
    for k, step in enumerate(1e-6 * np.eye(10)):
        wanted = (project(mean, basis, x + step, False)[0] - project(mean, basis, x - step, False)[0]) / 2e-6
        np.testing.assert_allclose(found[..., k], wanted, rtol=1e-6, atol=1e-6)


def test_a_similarity_is_its_turn_and_scale(rng):
    points, share = rng.normal(size=(9, 2)), rng.random(9)
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    np.testing.assert_allclose(landmark_fitting._similarity(points, points @ turn.T, share), turn, atol=1e-12)


def test_an_affine_camera_finds_the_pose_but_for_perspective(plain):
    _, fitter = plain
    pose = np.array([0.15, -0.4, 0.3, 0.35, -0.25, 0.6])
    shape = fitter.shape(np.zeros(fitter.unknowns)) + (0.2, 0.1, 0.3)  # off the origin, as some points of a face are
    pixels = project(shape, np.zeros((len(shape), 3, 0)), pose, False)[0]
    found = landmark_fitting._affine_pose(shape, pixels, np.ones(len(shape)))
    np.testing.assert_allclose(found[:5], pose[:5], atol=0.06)
    assert found[5] == pytest.approx(pose[5], abs=0.5), "of the ten decimetres to the camera"


def test_the_most_likely_face_is_that_of_an_oracle_with_the_full_covariance():
    """scipy's dense least squares on errors whitened by the Cholesky factor of the whole 2M x 2M covariance."""
    model = embedded(noise=0.8, shared=0.7, bias=1.5)
    coeff, points = faces(model, 1, pose=(20, 30, 0))
    surface, rng = dense_points(model), np.random.default_rng(5)
    points += model.embedding.bias + 0.3 * rng.normal(size=points.shape) + model.embedding.factors @ rng.normal(size=5)
    fitter = LandmarkFitter(model, surface)
    start = coeff.copy()  # its roll turns bias and shared errors, and is 0 here
    mean = np.zeros(fitter.unknowns)
    mean[:-6] = rng.normal(size=fitter.unknowns - 6)
    fit = fitter.fit(points, start=start, prior_mean=mean)
    roll = fitter._start(points[0][surface.rows], np.ones(len(surface.rows)), truth(model, start)[0].astype(float),
                         np.zeros(fitter.unknowns))[-4]
    upright = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    shared = np.einsum("ij,mjr->mir", upright, surface.factors).reshape(-1, 5)
    covariance = shared @ shared.T + np.diag(np.repeat(surface.noise ** 2, 2))
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    prior = np.sqrt(fitter.prior())

    def errors(x):
        off = project(fitter._mean, fitter._basis, x, False)[0] + surface.bias @ upright.T - points[0][surface.rows]
        return np.concatenate([whiten @ off.ravel(), prior * (x - mean)])

    oracle = least_squares(errors, np.zeros(fitter.unknowns), x_scale="jac", xtol=1e-12, ftol=1e-12, gtol=1e-12)
    deviation = np.sqrt(np.diag(np.linalg.inv(oracle.jac.T @ oracle.jac)))
    assert fit.converged[0]
    assert np.abs((fit.parameters[0] - oracle.x) / deviation).max() < 0.02
    wanted = oracle.jac.T @ oracle.jac
    scale = np.sqrt(np.diag(wanted))
    np.testing.assert_allclose(fit.precision[0] / np.outer(scale, scale), wanted / np.outer(scale, scale), atol=0.02)


# ---------------------------------------------------------------- from the mean face
def test_converges_from_the_mean_face_at_any_pose(plain):
    model, fitter = plain
    coeff, points = faces(model, 40)
    points += 0.3 * np.random.default_rng(3).normal(size=points.shape)
    fit = fitter.fit(points)
    off = np.abs(fit.parameters - truth(model, coeff))
    assert fit.converged.all() and fit.rounds.max() <= 10
    assert np.degrees(off[:, -6:-3]).max() < 2.0
    assert off[:, :10].mean() < 0.15
    np.testing.assert_allclose(fit.residual, 0.3 * np.sqrt(np.pi / 2), rtol=0.15)
    deviations = np.sqrt(np.stack([np.diag(np.linalg.inv(p)) for p in fit.precision]))
    assert 0.6 < np.sqrt(np.mean((off / deviations) ** 2)) < 1.4, "the precision says how far off parameters are"


def test_a_photo_of_another_size_and_turned_by_its_roll(plain):
    model, fitter = plain
    _, points = faces(model, 3, pose=(20, 40, 0))
    upright = fitter.fit(points)
    angle = np.radians(35.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # anticlockwise, y down
    turned = fitter.fit(((points - 112) @ turn.T + 112) * 2.0, image_size=448)
    np.testing.assert_allclose(turned.angles, upright.angles + [0, 0, angle], atol=5e-3)
    np.testing.assert_allclose(turned.id, upright.id, atol=0.02)


def test_known_bias_turns_with_the_head():
    model = embedded(bias=4.0)
    fitter = LandmarkFitter(model, dense_points(model))
    coeff, points = faces(model, 2, pose=(5, 20, 0))
    coeff[:, parameter_columns(model)[-4]] = 0.0
    angle = np.radians(40.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    fit = fitter.fit((points + model.embedding.bias - 112) @ turn.T + 112)
    assert np.abs(fit.id - model.split(coeff).id).max() < 0.3 and fit.residual.max() < 0.2


def test_68_and_five_points_are_fitted_by_the_same_engine():
    model = half_ellipsoid()
    fitter = LandmarkFitter(model, target_points(model))
    model.embedding = embedded().embedding
    coeff, _ = faces(model, 12, pose=(15, 50, 40))
    seen = np.stack([project(fitter._mean, fitter._basis, x, False)[0] for x in truth(model, coeff).astype(float)])
    all68 = fitter.fit(np.stack([landmark_targets(None, points[:68]) for points in seen]))
    five = fitter.fit(np.stack([landmark_targets(points[68:]) for points in seen]))
    assert all68.converged.all() and five.converged.all()
    assert np.degrees(np.abs(all68.angles - model.split(coeff).angles)).max() < 8
    assert np.degrees(np.abs(five.angles - model.split(coeff).angles)).mean() < 6
    assert five.residual.max() < 3 and all68.residual.max() < 3


# ---------------------------------------------------------------- what spoils landmarks
def test_a_hand_over_the_face_hardly_moves_it(plain):
    model, fitter = plain
    coeff, points = faces(model, 6, pose=(10, 30, 10))
    clean = fitter.fit(points)
    hidden = np.random.default_rng(4).permutation(DENSE_COUNT)[:70]
    points[:, hidden] += (25.0, -30.0)
    fit = fitter.fit(points)
    assert np.abs(fit.parameters - clean.parameters).max() < 0.35
    on_surface = hidden[model.embedding.triangles[hidden] >= 0]
    assert fit.weights[:, on_surface].max() < 0.1 < 0.9 < np.median(fit.weights, axis=1).min()
    assert (fit.median_residual < 0.5).all() and (fit.residual > 3).all()


def test_knowing_shared_errors_keeps_identity_nearer_to_the_truth():
    model = embedded(noise=0.5, shared=1.5)
    coeff, points = faces(model, 30, pose=(10, 20, 5))
    rng = np.random.default_rng(6)
    points += 0.5 * rng.normal(size=points.shape) + np.einsum("lcr,br->blc", model.embedding.factors,
                                                              rng.normal(size=(30, 5)))
    surface = dense_points(model)
    alone = dataclasses.replace(surface, factors=surface.factors[..., :0])
    knowing, ignorant = (LandmarkFitter(model, s).fit(points) for s in (surface, alone))
    errors = [np.square(fit.id - model.split(coeff).id).mean() for fit in (knowing, ignorant)]
    assert errors[0] < 0.5 * errors[1]


def test_what_cannot_be_fitted_is_given_back_and_spoils_nothing(plain):
    model, fitter = plain
    coeff, points = faces(model, 6, pose=(10, 30, 10))
    trust = np.ones((6, DENSE_COUNT))
    alone = fitter.fit(points[5:], start=coeff[5:])
    points[0] = np.nan
    points[1, 3:] = np.nan
    points[2] = 50.0
    trust[3] = 0.0
    trust[4] = np.nan
    fit = fitter.fit(points, trust, start=coeff)
    np.testing.assert_array_equal(fit.converged, [False] * 5 + [True])
    np.testing.assert_array_equal(fit.parameters[:5], truth(model, coeff)[:5])
    assert np.isnan(fit.residual[:5]).all() and not fit.weights[:5].any()
    np.testing.assert_allclose(fit.precision[0], np.diag(fitter.prior()))
    np.testing.assert_array_equal(fit.parameters[5], alone.parameters[0])
    assert not fitter.fit(points[:2]).parameters.any()
    assert fitter.fit(points[:0]).parameters.shape == (0, fitter.unknowns)


def test_unknown_points_and_points_without_trust_are_the_same(plain):
    model, fitter = plain
    _, points = faces(model, 1)
    trust = np.ones((1, DENSE_COUNT))
    trust[:, ::3] = 0.0
    unknown = points.copy()
    unknown[:, ::3] = np.nan
    points[:, ::3] += 60.0
    np.testing.assert_array_equal(fitter.fit(points, trust).parameters, fitter.fit(unknown).parameters)


def test_a_quarter_of_the_trust_is_twice_the_noise(plain):
    model, fitter = plain
    _, points = faces(model, 1, pose=(10, 30, 10))
    points += 0.1 * np.random.default_rng(7).normal(size=points.shape)
    surface, quarter = dense_points(model), np.arange(DENSE_COUNT) % 3 == 0
    noise = surface.noise * np.where(quarter[surface.rows], 2.0, 1.0)
    other = LandmarkFitter(model, dataclasses.replace(surface, noise=noise)).fit(points)
    found = fitter.fit(points, np.where(quarter, 0.25, 1.0)[None])
    np.testing.assert_allclose(found.parameters, other.parameters, atol=1e-3)
    np.testing.assert_allclose(found.precision, other.precision, rtol=1e-3, atol=1e-3 * other.precision.max())


def test_few_rounds_are_not_called_converged(plain):
    model, fitter = plain
    _, points = faces(model, 2)
    fit = fitter.fit(points, rounds=1)
    assert not fit.converged.any() and np.isfinite(fit.residual).all()


def test_a_prior_that_is_certain_is_kept(plain):
    model, fitter = plain
    coeff, points = faces(model, 2, pose=(10, 10, 5))
    wanted = np.zeros((2, fitter.unknowns))
    wanted[:, :6] = np.random.default_rng(7).normal(size=(2, 6))
    fit = fitter.fit(points, prior_mean=wanted, prior_precision=fitter.prior(identity=1e9))
    np.testing.assert_allclose(fit.id, wanted[:, :6], atol=1e-3)
    assert np.abs(fit.exp - model.split(coeff).exp).mean() < 1.5


def test_the_usual_prior_is_standard_normal_shapes_and_a_wide_pose(plain):
    _, fitter = plain
    sizes = fitter.fit(np.full((1, DENSE_COUNT, 2), np.nan)).sizes
    np.testing.assert_allclose(fitter.prior(), [1.0] * sum(sizes) + [1 / 0.6 ** 2] * 6)
    np.testing.assert_allclose(fitter.prior(2.0, 3.0)[:-6], [2.0] * sizes[0] + [3.0] * sizes[1])


def test_shapes_are_checked(plain):
    model, fitter = plain
    with pytest.raises(ValueError, match="468"):
        fitter.fit(np.zeros((1, 68, 2)))
    with pytest.raises(ValueError, match="no landmark embedding"):
        dense_points(half_ellipsoid())
