"""Smoothing in time, without lag: as strongly as the measurements are noisy, and less where something moves fast.

A channel is measured at T moments, y_t = x_t + noise, and x is likely to move evenly: minimised is

    sum_t w_t (y_t - x_t)^2 + strength sum_t v_t (second difference of x)_t^2        (Whittaker 1923; Henderson 1924)

a linear system of five diagonals. It looks as far ahead as back, so nothing lags, and moments that are not measured
(w = 0) are filled in. The strength is the most likely one (restricted maximum likelihood of the equal state-space
model, Wahba 1985; Kimeldorf and Wahba 1970), so it follows the noise of the channel itself. A lid shuts within three
frames though, in a channel that rests for seconds: v_t is found by iteratively reweighted least squares, as for a
process noise with heavy tails (Lange, Little and Taylor 1989).

Letters: T moments, C channels.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

_STRENGTHS = np.geomspace(1e-2, 1e7, 28)
_FIRST_STRENGTH = 3.0  # so little that no movement is lost before it is seen
_ROUNDS = 6
_TAIL = 1.0  # degrees of freedom of the heavy tail
_STIFF = 1e-12  # share added to the diagonal, so that rounding does not make the system singular
_STILL = 1e-9  # standard deviation of a channel that does not move
_FEWEST = 5  # measured moments, below which nothing is smoothed


def smoothed(times: np.ndarray, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Channels smoothed together.

    They are first turned into principal components in units of their noise: what moves many channels at once stands
    out there from noise that is in all of them.

    Args:
        times: (T,) seconds, strictly rising.
        values: (T, C) measurements; what stands where the weight is 0 does not matter.
        weights: (T,) relative precision of the moments, 0 = not measured; None = equal.

    Returns:
        (T, C) float64, filled in where nothing was measured. Fewer than five measured moments stay as they are.

    Raises:
        ValueError: shapes do not fit, times do not rise, or nothing is measured.
    """
    times, values = np.asarray(times, np.float64), np.asarray(values, np.float64)
    weights = np.ones(len(times)) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 2 or times.shape != values.shape[:1] or weights.shape != times.shape:
        raise ValueError(f"times {times.shape}, values {values.shape} and weights {weights.shape} do not fit")
    measured = weights > 0
    if not (np.diff(times) > 0).all() or not measured.any():
        raise ValueError("times must rise, and something must be measured")
    filled = np.stack([np.interp(times, times[measured], values[measured, c]) for c in range(values.shape[1])],
                      axis=1) if values.shape[1] else values
    if measured.sum() < _FEWEST:
        return filled
    weights = weights / weights[measured].mean()
    unit = np.maximum(noise(filled[measured]), _STILL)
    middle = filled[measured].mean(axis=0)
    scaled = (filled - middle) / unit
    axes = np.linalg.svd(scaled[measured], full_matrices=False)[2].T
    differences = second_differences(times)
    moved = np.stack([_channel(component, weights, differences) for component in (scaled @ axes).T], axis=1)
    # What the components do not span is nothing but rounding: there are as many as channels, or as moments.
    return moved @ axes.T * unit + middle


def noise(values: np.ndarray) -> np.ndarray:
    """Standard deviation (C,) of the noise in each channel (T, C), from its fourth differences, in which movements all
    but vanish; the median, so that the rest counts for nothing. T is at least 5."""
    fourth = np.diff(np.asarray(values, np.float64), 4, axis=0)
    return np.median(np.abs(fourth), axis=0) / (0.6745 * np.sqrt(70.0))


def second_differences(times: np.ndarray) -> np.ndarray:
    """(T - 2, 3) weights of each three neighbours in the second difference around the middle one, per square of the
    usual step; of even times 1, -2, 1."""
    steps = np.diff(times) / np.median(np.diff(times))
    before, after = steps[:-1], steps[1:]
    rows = np.stack([2.0 / (before * (before + after)), -2.0 / (before * after), 2.0 / (after * (before + after))],
                    axis=1)
    return rows * np.sqrt((before + after) / 2.0)[:, None]  # each stands for the time around it


def _channel(measured, weights, differences):
    """One channel (T,), smoothed with the most likely strength."""
    bent = _bends(_solved(measured, weights, differences, np.ones(len(differences)), _FIRST_STRENGTH)[1], differences)
    quiet = (_TAIL + 1.0) / (_TAIL + (bent / max(np.median(np.abs(bent)) / 0.6745, _STILL)) ** 2)
    for _ in range(_ROUNDS):
        candidates = [_solved(measured, weights, differences, quiet, strength) for strength in _STRENGTHS]
        best = int(np.argmin([unlikely for unlikely, _, _ in candidates]))
        _, found, variance = candidates[best]
        bent = _bends(found, differences)
        # One second difference has the variance of the noise over the strength, times 1 / v.
        quiet = (_TAIL + 1.0) / (_TAIL + bent ** 2 * _STRENGTHS[best] / variance)
        quiet = np.minimum(quiet / np.median(quiet), 1.0)
    return found


def _bends(found, differences):
    """Second differences (T - 2,) of a channel."""
    return differences[:, 0] * found[:-2] + differences[:, 1] * found[1:-1] + differences[:, 2] * found[2:]


def _solved(measured, weights, differences, quiet, strength):
    """Twice the negative logarithm of the restricted likelihood, the minimum (T,), and the noise's variance."""
    bands = strength * _penalty(differences, quiet)
    bands[0] += weights
    bands[0] *= 1.0 + _STIFF
    root = scipy.linalg.cholesky_banded(bands, lower=True)
    found = scipy.linalg.cho_solve_banded((root, True), weights * measured)
    free = np.count_nonzero(weights) - 2
    left = weights @ (measured - found) ** 2 + strength * (quiet @ _bends(found, differences) ** 2)
    variance = max(left / free, _STILL ** 2)
    unlikely = free * np.log(variance) + 2.0 * np.log(root[0]).sum() - len(quiet) * np.log(strength) - np.log(
        quiet).sum()
    return unlikely, found, variance


def _penalty(differences, quiet):
    """(3, T) lower bands of D' V D."""
    count = len(differences) + 2
    bands = np.zeros((3, count))
    for i in range(3):
        for j in range(i, 3):
            bands[j - i, i:i + len(differences)] += quiet * differences[:, i] * differences[:, j]
    return bands
