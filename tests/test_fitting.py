"""Photo losses and coefficient fitting, with a face model that knows nothing but geometry."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from facegcn import camera, fitting, lighting, surface_points
from facegcn.errors import UserError
from facegcn.landmark_fitting import parameter_columns
from facegcn.landmarks import DENSE_COUNT, landmark_targets
from facegcn.networks.regressor import build_regressor, load_weights, save_weights
from facegcn.photometric_terms import DetailPrior
from model import FaceModel
from tests.faces import embedded, half_ellipsoid
from tests.test_photometric_fitting import LIGHT, faces, photos, posed, shape_errors

SIZE = 64


@pytest.fixture(scope="module")
def face_model():
    return FaceModel(half_ellipsoid(), image_size=SIZE)


@pytest.fixture(scope="module")
def portrait(face_model):
    """A render of known coefficients as a photo whose skin is what is covered."""
    rng = np.random.default_rng(3)
    coeff = np.zeros((2, face_model.morphable.coefficient_count), np.float32)
    parts = face_model.morphable.split(coeff)
    parts.id[:], parts.tex[:] = rng.normal(size=parts.id.shape), rng.normal(size=parts.tex.shape)
    parts.angles[:] = [[0.1, -0.2, 0.05], [0.0, 0.25, 0.0]]
    parts.translation[:] = [[0.05, -0.03, 0.1], [0.0, 0.05, 0.0]]
    parts.gamma[:, [0, 9, 18]] = 0.1
    rgba = face_model.reconstruct(np.zeros((2, SIZE, SIZE, 4), np.float32), coeff)["coarse_render"]
    geometry = face_model.geometry(coeff)
    pixels = (geometry["landmarks"].numpy() + 1) * SIZE / 2
    targets = np.stack([landmark_targets(None, p) for p in pixels])
    return rgba, coeff, targets


def test_truth_has_no_photo_or_landmark_loss(face_model, portrait):
    rgba, coeff, targets = portrait
    terms = fitting.photo_losses(face_model, rgba, coeff, targets)
    assert terms["photo"] < 2e-3 and terms["landmark"] < 1e-6
    mean = fitting.photo_losses(face_model, rgba, np.zeros_like(coeff), targets)
    assert mean["photo"] > 0.02 and mean["landmark"] > 1.0


def test_losses_add_up_as_the_paper_weighs_them(face_model, portrait):
    rgba, coeff, targets = portrait
    other = 0.5 * coeff
    face_model.morphable.split(other).gamma[:, 0] += 0.1  # reddish
    terms = {name: float(value) for name, value in fitting.photo_losses(face_model, rgba, other, targets).items()}
    projected = face_model.geometry(other)["landmarks"]
    np.testing.assert_allclose(terms["landmark"], (224.0 / SIZE) ** 2 * fitting.landmark_distance(
        projected, targets, SIZE), rtol=1e-5)  # in pixels of a 224 crop, whatever its own are
    weights = {"photo": 1.92, "landmark": 1.6e-3, "prior": 3e-4, "grey_light": 2.0, "exposure": 1.0}
    assert min(terms[name] * weight for name, weight in weights.items()) > 1e-4, "all of them count"
    np.testing.assert_allclose(terms["total"], sum(terms[name] * weight for name, weight in weights.items()), rtol=1e-5)


def test_photometric_distance_is_its_formula(rng):
    rgba, render = rng.uniform(-1, 1, (2, 2, 5, 6, 4)).astype(np.float32)
    rgba[..., 3], render[..., 3] = rng.random((2, 5, 6)), rng.integers(0, 2, (2, 5, 6))
    distance = np.linalg.norm((rgba - render)[..., :3] / 2.0, axis=-1)
    weight = rgba[..., 3] * render[..., 3]
    wanted = np.mean((distance * weight).sum(axis=(1, 2)) / (weight.sum(axis=(1, 2)) + 1.0))
    np.testing.assert_allclose(fitting.photometric_distance(rgba, render), wanted, rtol=1e-4)


def test_points_of_the_jaw_count_a_tenth(rng):
    projected = rng.uniform(-0.5, 0.5, (1, 68, 2)).astype(np.float32)
    at = landmark_targets(None, (projected[0] + 1) * SIZE / 2)[None]
    for shifted, wanted in ((slice(0, 17), 25 * 1.7), (slice(17, 68), 25 * 51)):
        off = at.copy()
        off[:, shifted] += (3.0, -4.0)
        np.testing.assert_allclose(fitting.landmark_distance(projected, off, SIZE), wanted / 52.7, rtol=1e-3)


def test_unknown_landmarks_cost_nothing(face_model, portrait):
    rgba, coeff, _ = portrait
    none = np.stack([landmark_targets(None)] * 2)
    assert fitting.photo_losses(face_model, rgba, coeff, none)["landmark"] == 0.0


def test_five_points_are_used_where_68_are_unknown(face_model):
    projected = face_model.geometry(np.zeros((1, face_model.morphable.coefficient_count), np.float32))["landmarks"]
    pixels = (projected.numpy()[0] + 1) * SIZE / 2
    five = np.stack([pixels[36:42].mean(0), pixels[42:48].mean(0), pixels[30], pixels[48], pixels[54]])
    at = landmark_targets(five)[None]
    assert fitting.landmark_distance(projected, at, SIZE) < 1e-8
    off = landmark_targets(five + np.float32([3, 4]))[None]
    np.testing.assert_allclose(fitting.landmark_distance(projected, off, SIZE), 25.0, rtol=1e-4)


def test_priors_are_what_they_say(face_model):
    rng = np.random.default_rng(0)
    coeff = rng.normal(size=(3, face_model.morphable.coefficient_count)).astype(np.float32) * 0.2
    parts = face_model.morphable.split(coeff)
    terms = fitting.coefficient_priors(face_model.morphable, coeff)
    wanted = sum(w * np.mean((getattr(parts, n) ** 2).sum(1)) for n, w in (("id", 1.0), ("exp", 0.8), ("tex", 0.1)))
    np.testing.assert_allclose(terms["prior"], wanted, rtol=1e-5)
    model = face_model.morphable
    skin = [(model.mean_albedo + model.albedo_basis @ tex).mean() / 255 for tex in parts.tex]
    usual = 0.9 * (0.5 / np.array(skin)) ** 0.1
    exposure = np.log(lighting.frontal_brightness(parts.gamma).numpy() / usual)
    np.testing.assert_allclose(terms["exposure"], np.mean(exposure ** 2), rtol=1e-4)
    gamma = parts.gamma.reshape(3, 3, 9)
    np.testing.assert_allclose(terms["grey_light"], np.mean((gamma - gamma.mean(1, keepdims=True)) ** 2), rtol=1e-5)


def test_trust_scales_a_photos_landmarks(face_model, portrait):
    _, coeff, targets = portrait
    projected = face_model.geometry(np.zeros_like(coeff))["landmarks"]
    whole = fitting.landmark_distance(projected, targets, SIZE)
    first = fitting.landmark_distance(projected, targets, SIZE, np.float32([1.0, 0.0]))
    second = fitting.landmark_distance(projected, targets, SIZE, np.float32([0.0, 1.0]))
    np.testing.assert_allclose(first + second, whole, rtol=1e-5)
    assert first > 0.0 and second > 0.0


# ---------------------------------------------------------------- coefficients of photos
@pytest.fixture(scope="module")
def dense_model():
    return embedded(half_ellipsoid(33, 41))


@pytest.fixture(scope="module")
def fitter(dense_model):
    return fitting.CoefficientFitter(dense_model, LIGHT)


def exposed(model, coeff, size=224):
    """Pictures as a camera keeps them: no brighter than white."""
    return np.clip(photos(model, coeff, size), -1.0, 1.0)


@pytest.fixture(scope="module")
def known(dense_model):
    """Coefficients (3, K), photos, targets and dense landmarks of three faces, as exact as a detector is."""
    coeff = faces(dense_model, 3)
    world, rng = posed(dense_model, coeff).numpy(), np.random.default_rng(4)
    surface = surface_points.dense_points(dense_model)

    def named(points):
        pixels = camera.to_pixels(camera.project(np.float32(points)), 224).numpy()
        return pixels + rng.normal(0, 0.3, pixels.shape)
    dense = np.full((3, DENSE_COUNT, 3), np.nan, np.float32)
    dense[:, surface.rows, :2] = named(np.stack([surface.of(one) for one in world]))
    dense[..., 2] = 1.0
    targets = np.stack([landmark_targets(None, points) for points in named(world[:, dense_model.landmarks])])
    return coeff, exposed(dense_model, coeff), targets, dense


NO_TARGETS = np.stack([landmark_targets(None)] * 3)


def explained(model, rgba, coeff):
    """Mean absolute difference (B,) of photos from the faces' pictures, where both show skin."""
    drawn = exposed(model, coeff)
    both = (drawn[..., 3] * rgba[..., 3])[..., None]
    return (np.abs(drawn - rgba) * both).sum(axis=(1, 2, 3)) / both.sum(axis=(1, 2, 3))


def test_fitting_finds_the_face_by_dense_landmarks_and_colours(dense_model, fitter, known):
    coeff, rgba, _, dense = known
    fit = fitter(rgba, np.zeros_like(coeff), NO_TARGETS, dense)
    assert fit.coefficients.dtype == np.float32
    start = shape_errors(dense_model, np.zeros_like(coeff), coeff)
    assert (shape_errors(dense_model, fit.coefficients, coeff) < 0.4 * start).all()
    assert (explained(dense_model, rgba, fit.coefficients) < 0.2 * explained(dense_model, rgba, 0 * coeff)).all()
    assert (fit.landmark_residual < 0.6).all() and (fit.unexplained < 0.1).all() and (fit.seen > 0.4).all()
    albedo = [dense_model.albedo(dense_model.split(c).tex) for c in (fit.coefficients, 0 * coeff, coeff)]
    off = [np.abs(a - albedo[2]).mean(axis=(1, 2)) for a in albedo[:2]]
    assert (off[0] < 0.6 * off[1]).all()


def test_large_and_small_crops_are_fitted_in_their_own_pixels(dense_model, fitter, known):
    coeff, _, targets, dense = known
    for size in (112, 448):
        scale = np.float32([size / 224, size / 224, 1.0])
        fit = fitter(exposed(dense_model, coeff, size), np.zeros_like(coeff), targets * scale[0], dense * scale)
        assert (fit.landmark_residual < 0.6).all(), "counted in pixels of a 224 crop"
        at = [camera.to_pixels(camera.project(posed(dense_model, c)), 224) for c in (fit.coefficients, coeff)]
        assert np.linalg.norm(at[0] - at[1], axis=-1).mean() < 1.0


def test_points_of_the_users_count_beside_dense_ones_but_five_made_of_these_do_not(fitter, known):
    coeff, rgba, targets, dense = known
    start = np.zeros_like(coeff)
    alone = fitter(rgba, start, NO_TARGETS, dense).coefficients
    five = np.stack([landmark_targets(np.full((5, 2), 50.0))] * 3)
    np.testing.assert_array_equal(fitter(rgba, start, five, dense).coefficients, alone)
    both = fitter(rgba, start, targets, dense).coefficients
    assert (np.abs(both - alone).max(axis=1) > 1e-4).all() and np.abs(both - alone).mean() < 0.05
    assert np.isfinite(both).all()


def test_without_dense_landmarks_or_an_embedding_the_68_points_decide(fitter, known):
    coeff, rgba, targets, dense = known
    plain = half_ellipsoid(33, 41)
    wanted = fitting.CoefficientFitter(plain, LIGHT)(rgba, np.zeros_like(coeff), targets, dense)
    nowhere = np.full_like(dense, np.nan)
    for given in (None, nowhere, np.concatenate([dense[..., :2], 0 * dense[..., 2:]], axis=-1)):
        found = fitter(rgba, np.zeros_like(coeff), targets, given)
        np.testing.assert_allclose(found.coefficients, wanted.coefficients, atol=1e-4)
    assert (wanted.landmark_residual < 3.0).all() and (wanted.landmark_residual > 0.1).all()


@pytest.mark.parametrize("count", [0, 2])
def test_without_landmarks_shape_and_pose_are_those_of_the_start(dense_model, fitter, known, count):
    """Nor with fewer than any face can be fitted to; what the colours say of albedo and light is heard."""
    coeff, rgba, targets, _ = known
    few = NO_TARGETS.copy()
    few[:, 30:30 + count] = targets[:, 30:30 + count]
    start = coeff + np.random.default_rng(5).normal(0, 0.05, coeff.shape).astype(np.float32)
    dense_model.split(start).tex[:] = 0.0
    fit = fitter(rgba, start, few)
    held = parameter_columns(dense_model)
    np.testing.assert_allclose(fit.coefficients[:, held], start[:, held], atol=1e-3)
    assert np.isnan(fit.landmark_residual).all() and (fit.seen > 0.4).all()
    assert (explained(dense_model, rgba, fit.coefficients) < 0.6 * explained(dense_model, rgba, start)).all()


def test_a_photo_that_is_not_finite_or_without_skin_has_the_face_of_its_landmarks(dense_model, fitter, known):
    coeff, rgba, _, dense = known
    spoilt = np.array(rgba)
    spoilt[0, 90:120, 90:120] = np.nan
    spoilt[1, ..., 3] = 0.0
    fit = fitter(spoilt, np.zeros_like(coeff), NO_TARGETS, dense)
    sound = fitter(rgba, np.zeros_like(coeff), NO_TARGETS, dense)
    assert np.isfinite(fit.coefficients).all()
    np.testing.assert_array_equal(fit.coefficients[2], sound.coefficients[2])
    parts = dense_model.split(fit.coefficients)
    assert not parts.tex[:2].any()
    np.testing.assert_allclose(parts.gamma[:2], np.stack([LIGHT.mean] * 2), rtol=1e-6)
    assert (fit.landmark_residual[:2] < 0.6).all()
    np.testing.assert_array_equal(fit.unexplained[:2], 1.0)
    np.testing.assert_array_equal(fit.seen[:2], 0.0)


def test_a_fit_does_not_depend_on_the_batch(fitter, known):
    coeff, rgba, targets, dense = known
    dense = dense.copy()
    dense[1] = np.nan
    whole = fitter(rgba, np.zeros_like(coeff), targets, dense)
    for row in (2, 1, 0):
        one = slice(row, row + 1)
        for part, of_all in zip(fitter(rgba[one], np.zeros_like(coeff[one]), targets[one], dense[one]), whole):
            np.testing.assert_allclose(part, of_all[one], atol=1e-6)
    assert fitter(rgba[:0], coeff[:0], targets[:0], dense[:0]).coefficients.shape == (0, coeff.shape[1])


def test_the_digest_tells_fitters_apart(dense_model):
    other_light = dataclasses.replace(LIGHT, mean=LIGHT.mean + 1e-3)
    wider = dataclasses.replace(dense_model.embedding, noise=dense_model.embedding.noise * 2)
    models = [(dense_model, LIGHT), (dense_model, other_light), (half_ellipsoid(33, 41), LIGHT),
              (dataclasses.replace(dense_model, embedding=wider), LIGHT), (half_ellipsoid(33, 43), LIGHT)]
    digests = [fitting.CoefficientFitter(*model).digest for model in models]
    details = DetailPrior(np.zeros((dense_model.vertex_count, 3)), np.ones((dense_model.vertex_count, 3, 1)))
    for prior in (details, dataclasses.replace(details, modes=2 * details.modes)):
        digests.append(fitting.CoefficientFitter(dense_model, LIGHT, details=prior).digest)
    assert len(set(digests)) == len(digests)
    assert fitting.CoefficientFitter(embedded(half_ellipsoid(33, 41)), LIGHT).digest == digests[0]


# ---------------------------------------------------------------- the regressor
@pytest.mark.parametrize("kind", ["small", "resnet50"])
def test_untrained_regressors_give_the_mean_face(face_model, kind):
    network = build_regressor(kind, face_model.morphable, SIZE, 32)
    coeff, features = network(tf.random.normal((2, SIZE, SIZE, 3)))
    np.testing.assert_array_equal(coeff, np.zeros((2, face_model.morphable.coefficient_count)))
    assert features.shape == (2, 2048 if kind == "resnet50" else 160) and np.isfinite(features).all()


def test_regressor_weights_round_trip_and_misfits(face_model, tmp_path):
    network = build_regressor("small", face_model.morphable, SIZE, 32)
    for weight in network.weights:
        weight.assign(tf.random.uniform(weight.shape, 0.1, 1.0))
    image = tf.random.normal((1, SIZE, SIZE, 3))
    path = str(tmp_path / "weights.npz")
    save_weights(network, path)
    other = build_regressor("small", face_model.morphable, SIZE, 32)
    load_weights(other, path)
    np.testing.assert_allclose(other(image)[0], network(image)[0], rtol=0.05, atol=1e-2)
    with pytest.raises(UserError, match="does not fit this regressor: .* needs shape"):
        load_weights(build_regressor("small", half_ellipsoid(components=(3, 4, 5)), SIZE, 32), path)
    with pytest.raises(UserError, match="absent.npz"):
        load_weights(other, str(tmp_path / "absent.npz"))
    with pytest.raises(UserError, match="must divide"):
        build_regressor("small", face_model.morphable, SIZE, 30)
