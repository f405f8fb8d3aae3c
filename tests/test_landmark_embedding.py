"""Learning where landmarks lie: a detector of known places and errors is found out, and the result is kept."""

import dataclasses

import numpy as np
import pytest

from facegcn import config as settings
from facegcn.assets import __main__ as program
from facegcn.assets import landmark_embedding
from facegcn.assets.landmark_embedding import embedding_from, ensure_embedding, learn_embedding
from facegcn.errors import UserError
from facegcn.landmark_fitting import LandmarkFitter, parameter_columns, project
from facegcn.landmarks import DENSE_COUNT
from facegcn.morphable import MorphableModel
from facegcn.surface_points import dense_points
from tests.faces import half_ellipsoid
from tests.test_landmark_fitting import embedded

SHARED = 1.5  # crop pixels


@pytest.fixture(scope="module")
def detected():
    """A model whose true embedding is known, 240 faces' parameters, and what a detector with its errors names."""
    model = embedded(noise=0.5, shared=SHARED, bias=3.0)
    rng = np.random.default_rng(8)
    fitter = LandmarkFitter(model, dense_points(model))
    parameters = rng.normal(size=(240, fitter.unknowns)) * np.repeat((1.0, 0.2, 0.1), (10, 3, 3))
    rows = fitter._surface.rows
    points = np.full((240, DENSE_COUNT, 2), -50.0)  # those on no surface are named far outside
    for x, place in zip(parameters, points):
        errors = (model.embedding.bias + model.embedding.factors @ rng.normal(size=5)
                  + 0.5 * rng.normal(size=(DENSE_COUNT, 2)))[rows]
        c, s = np.cos(x[-4]), np.sin(x[-4])
        place[rows] = project(fitter._mean, fitter._basis, x, False)[0] + errors @ np.array([[c, -s], [s, c]])
    return model, parameters, points


def test_known_places_and_errors_are_found(detected):
    model, parameters, points = detected
    true, found = model.embedding, embedding_from(model, parameters, points)
    held = found.triangles >= 0
    assert (true.triangles[held] >= 0).all()
    assert held.sum() > 0.9 * (true.triangles >= 0).sum(), "but for some on the rim, which are named beside the face"
    place = [np.einsum("lc,lcd->ld", e.barycentrics[held], model.mean_shape[model.triangles[e.triangles[held]]])
             for e in (found, true)]
    # The bias moves a landmark on the surface: place and bias together say where the detector names it.
    learnt = LandmarkFitter(model, dense_points(dataclasses.replace(model, embedding=found)))
    known = LandmarkFitter(model, dense_points(model))
    named = [np.full((DENSE_COUNT, 2), np.nan) for _ in range(2)]
    for places, fitter, bias in zip(named, (learnt, known), (found.bias, true.bias)):
        rows = fitter._surface.rows
        places[rows] = project(fitter._mean, fitter._basis, np.zeros(fitter.unknowns), False)[0] + bias[rows]
    named = [places[held] for places in named]
    off = np.linalg.norm(named[0] - named[1], axis=1)
    assert np.median(off) < 0.6 and np.quantile(off, 0.95) < 2.0
    assert np.median(np.linalg.norm(place[0] - place[1], axis=1)) < 0.08
    wanted = np.sqrt(np.square(true.factors[held]).sum(-1).mean(1) + 0.5 ** 2)
    shared = np.sqrt(np.square(found.factors[held]).sum(-1).mean(1) + found.noise[held] ** 2 - 1)
    assert 0.8 < np.median(shared / wanted) < 1.3
    assert (found.noise[held] >= landmark_embedding.ADDED_NOISE).all()


def test_shared_errors_span_those_of_the_detector(detected):
    model, parameters, points = detected
    found = embedding_from(model, parameters, points)
    held = np.flatnonzero(found.triangles >= 0)
    true, learnt = (e.factors[held].reshape(2 * len(held), -1) for e in (model.embedding, found))
    directions = np.linalg.svd(learnt, full_matrices=False)[0][:, :5]
    captured = np.square(directions.T @ true).sum() / np.square(true).sum()
    assert captured > 0.7


def test_a_detector_that_never_hits_the_face_is_refused(detected):
    model, parameters, points = detected
    with pytest.raises(UserError, match="no landmark lies on the model's surface"):
        embedding_from(model, parameters[:40], np.full((40, DENSE_COUNT, 2), -10.0))


def test_a_detector_that_finds_no_face_is_refused():
    with pytest.raises(UserError, match="only 0 of 30"):
        learn_embedding(half_ellipsoid(), lambda image: None, count=30)
    with pytest.raises(UserError, match="at least 30, got 3"):
        learn_embedding(half_ellipsoid(), lambda image: None, count=3)


# ---------------------------------------------------------------- keeping it
def test_it_is_learnt_once_and_kept(tmp_path, monkeypatch):
    config, wanted, learnt = settings.Config(root_dir=str(tmp_path)), embedded().embedding, []
    monkeypatch.setattr(landmark_embedding, "learn_embedding", lambda *given, **more: learnt.append(1) or wanted)
    model = half_ellipsoid()
    for _ in range(2):
        known = ensure_embedding(config, model)
        np.testing.assert_array_equal(known.embedding.triangles, wanted.triangles)
        np.testing.assert_allclose(known.embedding.noise, wanted.noise, rtol=1e-6)
        assert known.digest == model.digest and model.embedding is None
    assert ensure_embedding(config, known) is known and len(learnt) == 1
    other = dataclasses.replace(model, mean_shape=model.mean_shape * 1.01)
    ensure_embedding(config, other)
    assert len(learnt) == 2


def test_the_command_writes_it_into_the_models_file(tmp_path, monkeypatch, capsys):
    path = str(tmp_path / "model.npz")
    half_ellipsoid().save(path)
    asked = {}
    monkeypatch.setattr(landmark_embedding, "learn_embedding",
                        lambda morphable, **given: asked.update(given) or embedded().embedding)
    assert program.main(["landmarks", "--model", path, "--count", "40"]) == 0
    assert asked["count"] == 40 and "428 of 468" in capsys.readouterr().out
    assert MorphableModel.load(path).embedding is not None
    assert program.main(["landmarks", "--model", str(tmp_path / "absent.npz")]) == 2


def test_the_demo_face_from_its_portraits():
    """Eyes, nose and mouth of the detector lie where the iBUG landmarks of the model say."""
    from facegcn.demo.face import make_demo_face

    pytest.importorskip("ai_edge_litert")
    model = make_demo_face(vertices=2500, seed=0)
    found = learn_embedding(model, count=60)
    known = dataclasses.replace(model, embedding=found)
    assert (found.triangles >= 0).sum() > 420
    surface = dense_points(known)
    place = np.full((DENSE_COUNT, 3), np.nan)
    place[surface.rows] = surface.of(model.mean_shape)
    marks = model.mean_shape[model.landmarks]
    for dense, mark in ((4, 30), (33, 36), (263, 45), (61, 48), (291, 54)):
        assert np.linalg.norm(place[dense, :2] - marks[mark, :2]) < 0.15
    coefficients = np.zeros((1, model.coefficient_count))
    fitter = LandmarkFitter(known, surface)
    zero = project(fitter._mean, fitter._basis, coefficients[0, parameter_columns(model)], False)[0] + surface.bias
    points = np.full((1, DENSE_COUNT, 2), np.nan)
    points[0, surface.rows] = zero
    fit = fitter.fit(points)
    assert fit.converged[0] and np.degrees(np.abs(fit.angles)).max() < 0.5 and fit.residual[0] < 0.3
