"""One identity and albedo of several photos: nearer than photos by themselves, and nobody else's."""

import numpy as np
import pytest

from facegcn import camera
from facegcn.errors import UserError
from facegcn.fitting import CoefficientFitter
from facegcn.person_fitting import HABIT, PersonFitter
from facegcn.surface_points import target_points
from tests.faces import half_ellipsoid
from tests.test_photometric_fitting import LIGHT, beard, faces, photos, posed, shape_errors

COUNT = 4


@pytest.fixture(scope="module")
def model():
    return half_ellipsoid(33, 41)


@pytest.fixture(scope="module")
def fitter(model):
    return CoefficientFitter(model, LIGHT)


def pictures_of(model, seed, count=COUNT):
    """Coefficients of one person's pictures, the pictures and landmarks with an error of two pixels."""
    coeff = faces(model, count, seed)
    parts = model.split(coeff)
    parts.id[:], parts.tex[:] = parts.id[0], parts.tex[0]
    surface = target_points(model)
    points = np.stack([camera.to_pixels(camera.project(np.float32(surface.of(one)[None])), 224)[0]
                       for one in posed(model, coeff).numpy()])
    return coeff, photos(model, coeff), points + np.random.default_rng(seed).normal(0, 2.0, points.shape)


@pytest.fixture(scope="module")
def people(model):
    return [pictures_of(model, seed) for seed in (1, 2, 5)]


def regressed(model, count):
    return np.zeros((count, model.coefficient_count), np.float32)


def test_a_person_is_nearer_to_the_truth_than_the_photos(model, fitter, people):
    alone, together = [], []
    for coeff, rgba, points in people:
        single = fitter(rgba, regressed(model, COUNT), points)
        found = PersonFitter(fitter)(list(rgba), regressed(model, COUNT), points)
        parts = model.split(found.fit.coefficients)
        assert found.used.all() and not any(found.reasons)
        assert np.ptp(parts.id, axis=0).max() == 0 and np.ptp(parts.tex, axis=0).max() == 0
        assert np.ptp(parts.angles, axis=0).max() > 0.1
        alone.append(shape_errors(model, single.coefficients, coeff).mean())
        together.append(shape_errors(model, found.fit.coefficients, coeff).mean())
    assert np.mean(together) < 0.7 * np.mean(alone)


def test_one_photo_gives_its_own_fit_and_equal_photos_count_once(model, fitter, people):
    _, rgba, points = people[0]
    single = fitter(rgba[:1], regressed(model, 1), points[:1])
    one = PersonFitter(fitter)(rgba[:1], regressed(model, 1), points[:1])
    np.testing.assert_array_equal(one.fit.coefficients, single.coefficients)
    assert one.weights[0] == pytest.approx(1.0, abs=1e-4) and np.isnan(one.distances[0])
    equal = PersonFitter(fitter)([rgba[0]] * 3, regressed(model, 3), np.stack([points[0]] * 3))
    assert equal.weights.sum() == pytest.approx(1.0, abs=1e-4)
    assert shape_errors(model, equal.fit.coefficients, single.coefficients).max() < 0.02  # decimetre; the mean is 0.2


def test_with_details_a_person_has_one_albedo_and_another_keeps_their_own(model, people):
    fitter = CoefficientFitter(model, LIGHT, details=beard(model))
    (_, rgba, points), (_, other, others_points) = people[0], people[1]
    found = PersonFitter(fitter)([*rgba[:3], other[0]], regressed(model, 4), np.stack([*points[:3], others_points[0]]))
    np.testing.assert_array_equal(found.used, [True, True, True, False])
    tex = model.split(found.fit.coefficients).tex
    assert np.ptp(tex[:3], axis=0).max() == 0 and np.abs(tex[3] - tex[0]).max() > 0.1
    single = fitter(other[:1], regressed(model, 1), others_points[:1]).coefficients
    np.testing.assert_allclose(tex[3], model.split(single).tex[0], atol=1e-5)


def test_the_person_has_the_coarse_albedo_of_all_photos_by_their_weights(model, people, monkeypatch):
    fitter, heard = CoefficientFitter(model, LIGHT, details=beard(model)), []
    usual = fitter.colors.coarse_albedo

    def listen(photos):
        photos = list(photos)
        heard.append([weight for *_, weight in photos])
        return usual(photos) + 0.5  # so that it shows in the result

    _, rgba, points = people[2]
    plain = PersonFitter(fitter)(list(rgba), regressed(model, COUNT), points)
    monkeypatch.setattr(fitter.colors, "coarse_albedo", listen)
    found = PersonFitter(fitter)(list(rgba), regressed(model, COUNT), points)
    np.testing.assert_allclose(heard, [found.weights])
    np.testing.assert_allclose(model.split(found.fit.coefficients).tex, model.split(plain.fit.coefficients).tex + 0.5,
                               atol=1e-5)


def test_a_model_without_expressions(people):
    model = half_ellipsoid(33, 41, (6, 0, 5))
    coeff, rgba, points = pictures_of(model, 3, 2)
    found = PersonFitter(CoefficientFitter(model, LIGHT))(list(rgba), regressed(model, 2), points)
    assert found.used.all() and np.isfinite(found.fit.coefficients).all()


def test_another_person_is_named_and_changes_nothing(model, fitter, people):
    (_, rgba, points), (_, other, others_points) = people[0], people[1]
    alone = PersonFitter(fitter)(list(rgba), regressed(model, COUNT), points)
    mixed = PersonFitter(fitter)([*rgba[:2], other[0], *rgba[2:]], regressed(model, COUNT + 1),
                                 np.stack([*points[:2], others_points[0], *points[2:]]))
    np.testing.assert_array_equal(mixed.used, [True, True, False, True, True])
    assert "another person" in mixed.reasons[2] and mixed.weights[2] == 0
    assert mixed.distances[2] > 2 * np.delete(mixed.distances, 2).max()
    np.testing.assert_allclose(mixed.fit.coefficients[mixed.used], alone.fit.coefficients, atol=1e-4)


def test_weights_of_photos_that_have_only_habits_in_common(model, fitter):
    person = PersonFitter(fitter)
    unknowns = np.zeros((3, fitter.colors.unknowns))
    turn = model.part_sizes[0] + model.part_sizes[1]
    unknowns[:, turn + 1] = (-5, 0, 5)
    np.testing.assert_allclose(person._shares(list(unknowns)), 1 / (1 + 2 * HABIT), rtol=1e-4)
    unknowns[2] = unknowns[1]
    first, *pair = person._shares(list(unknowns))
    assert first == pytest.approx(sum(pair), rel=1e-4)  # the equal two are one


def test_a_step_is_that_of_the_whole_system(model, fitter, rng):
    """The shared unknowns' step from Schur complements equals that of all unknowns' normal equations at once."""
    person, size = PersonFitter(fitter), fitter.colors.unknowns
    shared, own = person._shared, person._own
    weights, matrices, slopes = np.array([0.6, 1.0]), [], []
    for _ in range(2):
        root = rng.normal(size=(2 * size, size))
        matrices.append(root.T @ root + np.eye(size))
        slopes.append(rng.normal(size=size))
    s, p = len(shared), len(own)
    whole, slope = np.zeros((s + 2 * p,) * 2), np.zeros(s + 2 * p)
    at = rng.normal(size=s)
    whole[:s, :s], slope[:s] = np.eye(s) * 1.001, at
    for b, (t, matrix, vector) in enumerate(zip(weights, matrices, slopes)):
        place = np.concatenate([np.arange(s), s + b * p + np.arange(p)])
        order = np.concatenate([shared, own])
        whole[np.ix_(place, place)] += t * matrix[np.ix_(order, order)]
        slope[place] += t * vector[order]
    wanted = -np.linalg.solve(whole, slope)
    found = [person._without_own(matrix, vector) for matrix, vector in zip(matrices, slopes)]
    step = person._step(at, weights, found)
    np.testing.assert_allclose(step, wanted[:s], atol=1e-8)
    for b, one in enumerate(found):
        np.testing.assert_allclose(-(one[3] + one[2] @ step), wanted[s + b * p:s + (b + 1) * p], atol=1e-8)


def test_photos_that_show_nothing_are_left_out_and_bad_input_is_told(model, fitter, people):
    _, rgba, points = people[0]
    hidden = np.concatenate([rgba[..., :3], np.zeros_like(rgba[..., 3:])], axis=-1)
    found = PersonFitter(fitter)([*rgba[:2], hidden[2]], regressed(model, 3), points[:3])
    np.testing.assert_array_equal(found.used, [True, True, False])
    assert found.reasons[2] == "too little of the face is seen"
    np.testing.assert_array_equal(found.fit.coefficients[2], 0)
    with pytest.raises(UserError, match="none of the 2 photos"):
        PersonFitter(fitter)(list(hidden[:2]), regressed(model, 2), points[:2])
    for count, targets in ((1, points[:2]), (2, points[:1])):
        with pytest.raises(ValueError, match="do not fit"):
            PersonFitter(fitter)(list(rgba[:2]), regressed(model, count), targets)
    with pytest.raises(ValueError, match="do not fit"):
        PersonFitter(fitter)([], regressed(model, 0), points[:0])
