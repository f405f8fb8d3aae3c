"""Light that nine harmonics and an albedo cannot explain: shining skin, and shadows with borders.

Neither hides the face, so alpha stays as it is; both are absent from the true albedo.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn import lighting
from facegcn.portraits import looks


def gloss(normals: np.ndarray, gamma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What shining skin adds to the lit colour of each vertex: a highlight of the main light.

    The main light's direction and strength are those of the first-order harmonics; the highlight is Blinn's (1977),
    for a camera straight ahead.

    Args:
        normals: (N, 3) unit, posed.
        gamma: (27,) lighting coefficients.
        rng: random generator.

    Returns:
        (N, 1) float32, 0 or more.
    """
    kinds = looks.GLOSS
    power, strength = np.exp(rng.uniform(*np.log(kinds.power))), rng.uniform(*kinds.strength)
    first = gamma.reshape(3, lighting.HARMONICS).mean(axis=0)[1:4]
    direction = np.array((-first[2], -first[0], first[1])) + (0, 0, 1e-3)  # of the harmonics -y, z, -x
    brightness = np.linalg.norm(direction)
    half = direction / brightness + (0, 0, 1)
    half /= max(np.linalg.norm(half), 1e-6)
    shine = np.maximum(normals @ np.float32(half), 0) ** np.float32(power)
    return (strength * min(brightness / kinds.usual, 1.5) * shine)[:, None].astype(np.float32)


def cast_shadow(image: np.ndarray, subject: np.ndarray, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """Darkens a part of the person as by something between it and the light, in place.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1].
        subject: (H, W) bool, where the person is.
        pixels: (68, 2) landmarks.
        rng: random generator.
    """
    kinds, size = looks.SHADOW, image.shape[0]
    shade = np.zeros((size, size), np.uint8)
    through = pixels[list(kinds.places[rng.integers(len(kinds.places))])].mean(axis=0)
    angle = rng.uniform(0, 2 * np.pi)
    along, out = np.array((np.cos(angle), np.sin(angle))), np.array((-np.sin(angle), np.cos(angle)))
    kind = looks.choice(kinds.kinds, rng)
    if kind == "border":
        place = np.linspace(-2, 2, 33)[:, None]
        wave = rng.uniform(0, kinds.wave) * np.sin(place * rng.uniform(1, 12) + rng.uniform(0, 6))
        edge = through + size * (place * along + wave * out)
        _dark(shade, [np.vstack([edge, edge[-1] + 2 * size * out, edge[0] + 2 * size * out])])
    elif kind == "bars":
        width, period = rng.uniform(*kinds.bar) * size, rng.uniform(*kinds.period) * size
        corners = np.array([(-2, 0), (2, 0), (2, 1), (-2, 1)]) * (size, width)
        _dark(shade, [through + corners[:, :1] * along + (corners[:, 1:] + k * (width + period)) * out
                      for k in range(*rng.integers((-5, 0), (0, 5)))])
    else:
        around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([np.cos(around), np.sin(around)], axis=1)
        _dark(shade, [through + size * (rng.normal(0, 0.25, 2) + ring * rng.uniform(0.02, 0.12, 2))
                      for _ in range(rng.integers(3, 25))])
    soft = np.exp(rng.uniform(*np.log(kinds.soft))) * size / 224
    cover = cv2.GaussianBlur(np.float32(shade) / 255, (0, 0), soft) * subject
    tint = rng.uniform(*kinds.depth) * np.array((1 + kinds.blue, 1, 1 - kinds.blue))
    image *= 1 - cover[..., None] * np.float32(np.minimum(tint, 1))


def _dark(shade, outlines):
    """Fills outlines (M, 2) each, one after the other, where they may overlap."""
    for outline in outlines:
        cv2.fillPoly(shade, [np.round(outline).astype(np.int32)], 255)
