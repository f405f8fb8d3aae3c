"""Smoothing in time: what moves stays where and when it is, noise goes, gaps are filled."""

import numpy as np
import pytest

from facegcn import smoothing
from facegcn.smoothing import noise, second_differences, smoothed
from tests.clips import hump

TIMES = np.arange(240) / 30.0


def acted():
    """A slow turn, lids that shut three times, both, and rest."""
    lids = sum(hump(TIMES, centre, 0.12) for centre in (2.0, 4.1, 6.5))
    turn = np.sin(2 * np.pi * TIMES / 4.0)
    return np.stack([turn, lids, 0.5 * turn + 0.3 * lids, np.zeros_like(TIMES)], axis=1)


@pytest.mark.parametrize("deviation", [0.02, 0.08])
def test_noise_goes_and_movements_stay_in_time(rng, deviation):
    truth = acted()
    measured = truth + deviation * rng.normal(size=truth.shape)
    found = smoothed(TIMES, measured)
    before, after = (np.sqrt(((values - truth) ** 2).mean(axis=0)) for values in (measured, found))
    assert (after < 0.6 * before).all()
    jitter = [np.abs(np.diff(values, 2, axis=0)).mean(axis=0) for values in (measured, found, truth)]
    assert (jitter[1] < 0.5 * jitter[0]).all() and jitter[1][0] < 3.0 * jitter[2][0]
    for centre in (2.0, 4.1, 6.5):  # the lids shut, and when they do
        around = np.abs(TIMES - centre) < 0.15
        assert found[around, 1].max() > 0.8 and found[around, 1].argmax() == pytest.approx(around.sum() // 2, abs=1)


def test_time_has_no_direction(rng):
    measured = acted() + 0.05 * rng.normal(size=(len(TIMES), 4))
    there, back = smoothed(TIMES, measured), smoothed(TIMES, measured[::-1])[::-1]
    np.testing.assert_allclose(there, back, atol=1e-6)


def test_gaps_are_filled_and_what_stands_in_them_does_not_matter(rng):
    truth, weights = acted(), np.ones(len(TIMES))
    weights[100:110] = 0.0
    measured = truth + 0.02 * rng.normal(size=truth.shape)
    measured[100:110] = 1e6
    found = smoothed(TIMES, measured, weights)
    assert np.abs(found[100:110, 0] - truth[100:110, 0]).max() < 0.05
    measured[100:110] = np.nan
    np.testing.assert_array_equal(found, smoothed(TIMES, measured, weights))


def test_a_moment_that_is_worth_little_is_hardly_heard(rng):
    truth, weights = np.sin(TIMES)[:, None], np.ones(len(TIMES))
    measured = truth + 0.02 * rng.normal(size=truth.shape)
    measured[50] += 3.0
    weights[50] = 1e-4
    assert np.abs(smoothed(TIMES, measured, weights) - truth).max() < 0.05


def test_straight_lines_over_uneven_times_have_no_second_difference(rng):
    times = np.cumsum(rng.uniform(0.5, 2.0, 50))
    rows = second_differences(times)
    line = 3.0 * times - 1.0
    np.testing.assert_allclose((rows * np.stack([line[:-2], line[1:-1], line[2:]], axis=1)).sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(second_differences(np.arange(9.0)), np.tile([1, -2, 1], (7, 1)))
    np.testing.assert_allclose(smoothed(times, line[:, None])[:, 0], line, atol=1e-6)


def test_the_bands_are_the_dense_system(rng):
    times, measured = np.cumsum(rng.uniform(0.5, 1.5, 30)), rng.normal(size=30)
    weights, quiet, strength = rng.uniform(0.5, 2, 30), rng.uniform(0.1, 1, 28), 7.0
    rows = second_differences(times)
    dense = np.zeros((28, 30))
    for k, row in enumerate(rows):
        dense[k, k:k + 3] = row
    system = np.diag(weights) + strength * dense.T @ np.diag(quiet) @ dense
    wanted = np.linalg.solve(system, weights * measured)
    unlikely, found, variance = smoothing._solved(measured, weights, rows, quiet, strength)
    np.testing.assert_allclose(found, wanted, atol=1e-8)
    left = weights @ (measured - wanted) ** 2 + strength * quiet @ (dense @ wanted) ** 2
    assert variance == pytest.approx(left / 28)
    likelihood = 28 * np.log(left / 28) + np.linalg.slogdet(system)[1] - 28 * np.log(strength) - np.log(quiet).sum()
    assert unlikely == pytest.approx(likelihood, abs=1e-6)


def test_the_noise_is_measured_beside_a_movement(rng):
    assert noise(acted()[:, :1] + 0.1 * rng.normal(size=(240, 1)))[0] == pytest.approx(0.1, rel=0.3)


def test_what_does_not_move_and_what_is_too_short_stays():
    still = np.full((40, 2), 3.5)
    np.testing.assert_allclose(smoothed(np.arange(40.0), still), still)
    few = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(smoothed(np.arange(4.0), few), few)
    np.testing.assert_array_equal(smoothed(np.zeros(1), few[:1]), few[:1])


@pytest.mark.parametrize(("times", "shape", "weights"), [
    (np.zeros(6), (6, 1), None), (np.arange(5.0), (6, 1), None), (np.arange(6.0), (6, 1), np.zeros(6)),
    (np.arange(6.0), (6,), None)])
def test_what_does_not_fit_is_refused(times, shape, weights):
    with pytest.raises(ValueError, match="times"):
        smoothed(times, np.zeros(shape), weights)
