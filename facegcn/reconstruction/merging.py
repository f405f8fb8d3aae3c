"""One texture of several photos of a person: what they show, weighed, in one tone, without what stands before it.

Each photo tells of each vertex a colour and how far it can be trusted (visible, not at a grazing angle, like what the
coarse face explains; ``completion``). The colours divided by the photo's light are averaged; then each photo's light is
fitted anew to the average, so that photos of different exposure or white, or whose light was taken for skin, agree
before they are averaged again. What is far from the others' colours there (a hand, a reflection, hair) loses its weight
by Tukey's biweight (iteratively reweighted least squares, Beaton and Tukey 1974).

Letters: B photos, N vertices.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from facegcn.lighting import fit_light, shading

ROUNDS = 2  # of tones and average
FOCUS = 2.0  # power of the trust by which photos are averaged: the one that faces a vertex counts most
AREA_POWER = 1.0  # of a vertex's share of the picture beside its greatest
OFF = 0.25  # difference of a photo's albedo, in [0, 1], from the others' from which on it counts for nothing
_DARKEST_SHADING = 0.1
_LEAST = 1e-6


class Looks(NamedTuple):
    """What photos show of one face's vertices.

    Attributes:
        colors: (B, N, 3) lit colours in [0, 1].
        trust: (B, N) in each, in [0, 1]; 0 = not seen.
        normals: (B, N, 3) unit, world axes of each photo.
        gamma: (B, 27) light, see ``lighting.shading``.
        sharpness: (B,) factor of each photo's weight.
        area: (B, N) share of the picture that each vertex takes: where a mouth is closed, none of what is inside.
    """

    colors: np.ndarray
    trust: np.ndarray
    normals: np.ndarray
    gamma: np.ndarray
    sharpness: np.ndarray
    area: np.ndarray


class Merged(NamedTuple):
    """One texture.

    Attributes:
        albedo: (N, 3) in [0, 1]; the coarse one where no photo shows anything.
        trust: (N,) in it, in [0, 1].
        gamma: (B, 27) light of each photo that goes with it.
        weights: (B, N) of each photo, sum 1 or 0.
    """

    albedo: np.ndarray
    trust: np.ndarray
    gamma: np.ndarray
    weights: np.ndarray


def merge(looks: Looks, coarse) -> Merged:
    """The texture that photos share.

    Args:
        looks: of one face.
        coarse: (N, 3) albedo in [0, 1].
    """
    coarse = np.asarray(coarse, np.float32)
    resolution = looks.area / np.maximum(looks.area.max(axis=0), 1e-12)
    given = looks.trust ** FOCUS * resolution ** AREA_POWER * looks.sharpness[:, None]
    gamma, albedo = np.asarray(looks.gamma, np.float32), coarse
    for turn in range(ROUNDS):
        if turn:
            gamma = _fitted_light(looks, albedo, gamma)
        each = np.stack([_delit(looks, gamma, b) for b in range(len(given))])
        albedo, weights = _robust_mean(each, given, coarse)
    agreed = weights / np.maximum(weights.max(axis=0), _LEAST)
    trust = (looks.trust * np.minimum(agreed, 1.0)).max(axis=0)
    return Merged(albedo, trust, gamma, weights)


def _delit(looks, gamma, b):
    """Albedo (N, 3) in [0, 1] of a photo's colours."""
    light = shading(looks.normals[b][None], gamma[b][None])[0].numpy()
    return np.clip(looks.colors[b] / np.maximum(light, _DARKEST_SHADING), 0.0, 1.0)


def _fitted_light(looks, albedo, gamma):
    """Light (B, 27) of each photo that best explains its colours with this albedo."""
    found = [fit_light(albedo[None], looks.normals[b][None], looks.colors[b][None], looks.trust[b][None],
                       tf.constant(gamma[b][None]))[0].numpy() for b in range(len(gamma))]
    return np.stack(found)


def _robust_mean(each, given, coarse):
    """Mean (N, 3) of albedos (B, N, 3) by weights (B, N), far ones left out; the weights that are left, sum 1 or 0."""
    middle, weights = weighted_median(each, given), given
    for _ in range(3):
        off = np.abs(each - middle).mean(axis=2) / OFF
        weights = given * np.maximum(1.0 - off ** 2, 0.0) ** 2 + _LEAST ** 2 * given
        total = weights.sum(axis=0)
        weights = weights / np.maximum(total, _LEAST ** 4)
        middle = np.einsum("bn,bnc->nc", weights, each)
    return np.where((given.sum(axis=0) > 0)[:, None], middle, coarse).astype(np.float32), weights


def weighted_median(values, weights) -> np.ndarray:
    """Median (N, C) of values (B, N, C) by weights (B, N), each channel by itself: the least value at which half of
    the weight is reached."""
    order = np.argsort(values, axis=0)
    run = np.cumsum(np.take_along_axis(np.broadcast_to(weights[..., None], values.shape), order, axis=0), axis=0)
    place = np.argmax(run >= run[-1:] / 2, axis=0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), place[None], axis=0)[0]


def vertex_areas(projected, triangles) -> np.ndarray:
    """Share (N,) of the picture that each vertex takes: a third of those triangles around it that face the camera.

    Args:
        projected: (N, 2) in [-1, 1], x right, y down.
        triangles: (F, 3), counter-clockwise seen from outside.
    """
    first, second, third = (np.asarray(projected)[triangles[:, k]] for k in range(3))
    (ax, ay), (bx, by) = (second - first).T, (third - first).T
    areas = np.maximum(ay * bx - ax * by, 0.0) / 6.0  # y points down
    return np.bincount(triangles.ravel(), np.repeat(areas, 3), len(projected)).astype(np.float32)


def sharpness(rgba, pixel: float = 1.0) -> float:
    """How sharp a photo is inside its mask: the strength of its finest structure beside that of twice as coarse.

    Args:
        rgba: (H, W, 4) uint8 crop with skin alpha.
        pixel: width of a pixel of the crop in the photo's own pixels; below 1 the crop is an enlargement.
    """
    grey = rgba[..., :3].astype(np.float32).mean(axis=2)
    inside = cv2.erode((rgba[..., 3] > 127).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    if not inside.any():
        return 0.0
    levels = [cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (0.7, 1.4, 2.8)]
    fine, coarse = (np.sqrt(np.mean((a - b)[inside] ** 2)) for a, b in zip(levels, levels[1:]))
    return float(fine / max(coarse, 1e-3)) * min(pixel, 1.0)
