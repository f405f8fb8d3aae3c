"""Photo losses and coefficient fitting, with a face model that knows nothing but geometry."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn import fitting, lighting
from facegcn.errors import UserError
from facegcn.landmarks import landmark_targets
from facegcn.networks.regressor import build_regressor, load_weights, save_weights
from model import FaceModel
from tests.faces import half_ellipsoid

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
    wanted = sum(w * np.mean((getattr(parts, n) ** 2).sum(1)) for n, w in fitting.PRIOR_PARTS.items())
    np.testing.assert_allclose(terms["prior"], wanted, rtol=1e-5)
    model = face_model.morphable
    skin = [(model.mean_albedo + model.albedo_basis @ tex).mean() / 255 for tex in parts.tex]
    usual = 0.9 * (0.5 / np.array(skin)) ** 0.1
    exposure = np.log(lighting.frontal_brightness(parts.gamma).numpy() / usual)
    np.testing.assert_allclose(terms["exposure"], np.mean(exposure ** 2), rtol=1e-4)
    gamma = parts.gamma.reshape(3, 3, 9)
    np.testing.assert_allclose(terms["grey_light"], np.mean((gamma - gamma.mean(1, keepdims=True)) ** 2), rtol=1e-5)


def test_fitting_finds_the_face(face_model, portrait):
    rgba, coeff, targets = portrait
    start = np.zeros_like(coeff)
    fitted = fitting.CoefficientFitter(face_model, steps=80)(rgba, start, targets)
    before = fitting.photo_losses(face_model, rgba, start, targets)
    after = fitting.photo_losses(face_model, rgba, fitted, targets)
    assert after["photo"] < 0.5 * before["photo"]
    assert after["landmark"] < 0.1 * before["landmark"]


def test_large_crops_are_fitted_in_their_own_pixels(face_model, portrait):
    """A 224 crop is looked at at half its width; targets stay pixels of the crop."""
    _, coeff, targets = portrait
    large = face_model.at_size(224)
    rgba = large.reconstruct(np.zeros((2, 224, 224, 4), np.float32), coeff)["coarse_render"]
    wanted = targets * (224 / SIZE)
    fitted = fitting.CoefficientFitter(large, steps=60)(rgba, np.zeros_like(coeff), wanted)
    found = (large.geometry(fitted)["landmarks"].numpy() + 1) * 112
    assert np.abs(found - wanted[:, :68])[:, 17:].mean() < 1.0


def test_without_landmarks_the_photo_decides_and_the_start_holds(face_model, portrait):
    rgba, coeff, _ = portrait
    none = np.stack([landmark_targets(None)] * 2)
    start = coeff + np.random.default_rng(5).normal(0, 0.05, coeff.shape).astype(np.float32)
    fitted = fitting.CoefficientFitter(face_model, steps=60)(rgba, start, none)
    before, after = (fitting.photo_losses(face_model, rgba, c, none)["photo"] for c in (start, fitted))
    assert after < 0.5 * before
    albedo = slice(*np.cumsum(face_model.morphable.part_sizes)[1:3])
    np.testing.assert_array_equal(fitted[:, albedo], start[:, albedo])
    assert (fitted[:, albedo.stop:] != start[:, albedo.stop:]).any()
    moved = [face_model.geometry(c)["landmarks"].numpy() * SIZE / 2 for c in (start, fitted)]
    assert np.linalg.norm(moved[1] - moved[0], axis=-1).mean() < 3.0


def test_no_photo_without_landmarks_is_explained_worse_than_by_its_start(face_model, portrait):
    """Although the albedo, which the fit may use on its way, is put back."""
    rgba, coeff, _ = portrait
    none = np.stack([landmark_targets(None)] * 2)
    fitter = fitting.CoefficientFitter(face_model, steps=60)
    albedo = slice(*np.cumsum(face_model.morphable.part_sizes)[1:3])
    for seed in range(4):
        start = coeff + np.random.default_rng(seed).normal(0, 0.05, coeff.shape).astype(np.float32)
        start[:, albedo] += np.random.default_rng(seed).normal(0, 1.0, start[:, albedo].shape)
        fitted = fitter(rgba, start, none)
        for i in range(2):
            before, after = (fitting.photo_losses(face_model, rgba[i:i + 1], c[i:i + 1], none[:1])["photo"]
                             for c in (start, fitted))
            assert after <= before


def test_a_photo_whose_fit_is_not_finite_keeps_its_start(face_model, portrait):
    rgba, coeff, targets = portrait
    spoilt = np.array(rgba)
    spoilt[0, 20:40, 20:40] = np.nan
    start = np.zeros_like(coeff)
    fitter = fitting.CoefficientFitter(face_model, steps=10)
    fitted, sound = fitter(spoilt, start, targets), fitter(rgba, start, targets)
    np.testing.assert_array_equal(fitted[0], start[0])
    np.testing.assert_allclose(fitted[1], sound[1], atol=1e-5)
    assert np.abs(sound[1]).max() > 0.01


def test_trust_scales_a_photos_landmarks(face_model, portrait):
    _, coeff, targets = portrait
    projected = face_model.geometry(np.zeros_like(coeff))["landmarks"]
    whole = fitting.landmark_distance(projected, targets, SIZE)
    first = fitting.landmark_distance(projected, targets, SIZE, np.float32([1.0, 0.0]))
    second = fitting.landmark_distance(projected, targets, SIZE, np.float32([0.0, 1.0]))
    np.testing.assert_allclose(first + second, whole, rtol=1e-5)
    assert first > 0.0 and second > 0.0


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
