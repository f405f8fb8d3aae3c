"""Points of two detectors as those of one: each keeps its places and errors, and together they say what both say."""

import numpy as np
import pytest

from facegcn import camera
from facegcn.landmark_fitting import LandmarkFitter, parameter_columns
from facegcn.landmarks import DENSE_COUNT, TARGET_COUNT
from facegcn.surface_points import dense_points, joined, target_points
from tests.faces import LOST, embedded, half_ellipsoid
from tests.test_photometric_fitting import faces, posed


@pytest.fixture(scope="module")
def model():
    return embedded(half_ellipsoid(), noise=0.7, shared=0.4)


@pytest.fixture(scope="module")
def sets(model):
    """The dense points, the 73, and both."""
    parts = dense_points(model), target_points(model)
    return *parts, joined(*parts)


def named(model, surface, coeff):
    """What a detector (B, L, 2) without errors names; NaN for what lies on no surface."""
    places = np.full((len(coeff), surface.count, 2), np.nan)
    for row, world in zip(places, posed(model, coeff).numpy()):
        row[surface.rows] = camera.to_pixels(camera.project(np.float32(surface.of(world)[None])), 224)[0]
    return places


def test_each_point_stays_what_it_was(model, sets, rng):
    dense, targets, both = sets
    assert both.count == DENSE_COUNT + TARGET_COUNT
    np.testing.assert_array_equal(both.rows, np.concatenate([dense.rows, DENSE_COUNT + np.arange(TARGET_COUNT)]))
    assert len(both.rows) == DENSE_COUNT - LOST + TARGET_COUNT
    values = rng.normal(size=(model.vertex_count, 3))
    np.testing.assert_allclose(both.of(values), np.concatenate([dense.of(values), targets.of(values)]), atol=1e-12)
    for name in ("bias", "noise"):
        np.testing.assert_array_equal(getattr(both, name), np.concatenate([getattr(p, name) for p in (dense, targets)]))


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (0, 2), (1, 1)])
def test_the_two_share_no_error(sets, pair):
    detectors = [*sets[:2], dense_points(embedded(half_ellipsoid(), shared=0.9, seed=3))]
    first, second = (detectors[number] for number in pair)
    both = joined(first, second)
    spread = np.einsum("mir,njr->mnij", both.factors, both.factors)
    split = len(first.rows)
    for rows, points in ((slice(None, split), first), (slice(split, None), second)):
        np.testing.assert_allclose(spread[rows, rows], np.einsum("mir,njr->mnij", points.factors, points.factors))
    assert not spread[:split, split:].any()


def test_what_one_detector_says_alone_is_what_it_says_beside_a_silent_one(model, sets, rng):
    coeff = faces(model, 3)
    places = [named(model, points, coeff) for points in sets[:2]]
    places = [array + rng.normal(0, 0.5, array.shape) for array in places]
    trust = np.concatenate([np.ones((3, DENSE_COUNT)), np.zeros((3, TARGET_COUNT))], axis=1)
    fitter = LandmarkFitter(model, sets[2])
    for points, own, heard in zip(sets, places, (trust, 1 - trust)):
        alone = LandmarkFitter(model, points).fit(own)
        beside = fitter.fit(np.concatenate(places, axis=1), heard)
        np.testing.assert_allclose(beside.parameters, alone.parameters, atol=1e-5)
        np.testing.assert_allclose(beside.precision, alone.precision, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(beside.residual, alone.residual, rtol=1e-6)


def test_together_they_know_what_each_knows(model, sets):
    """At the same face the information of both, beyond the prior's, is the sum of each one's."""
    coeff = faces(model, 2)
    true = coeff[:, parameter_columns(model)].astype(np.float64)
    fits = [LandmarkFitter(model, points).fit(named(model, points, coeff), prior_mean=true) for points in sets]
    for fit in fits:
        np.testing.assert_allclose(fit.parameters, true, atol=2e-3)
    prior = np.diag(LandmarkFitter(model, sets[0]).prior())
    wanted = fits[0].precision + fits[1].precision - prior
    scale = np.sqrt(np.einsum("bii->bi", wanted))
    scale = scale[:, :, None] * scale[:, None]
    np.testing.assert_allclose(fits[2].precision / scale, wanted / scale, atol=2e-3)
