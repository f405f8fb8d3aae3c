"""The inside of an open mouth: gums, two rows of teeth on their arches, a tongue in the dark.

Lengths are decimetres of a face whose outer eye corners are 0.9 dm apart. The proportions were judged by eye.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.portraits import looks
from facegcn.portraits.overlay import SHIFT, Overlay

_EYE_CORNER_DISTANCE = 0.9
_ARCH, _ARCH_DEPTH, _ARCH_ANGLE = 0.27, 0.26, 1.2  # half width and depth; half of the angle that it spans
_TOOTH_HEIGHT, _GUM_HEIGHT = 0.1, 0.12
_TEETH = 12  # of each row


def add_mouth(overlay: Overlay, marks, pose, light: float, hair_mask, rng) -> None:
    """Draws what open lips show of the mouth and clears alpha there; nothing where they are closed.

    Args:
        overlay: the picture.
        marks: (68, 3) landmarks of the unposed face, decimetre.
        pose: function from unposed points (M, 3) to pixels (M, 2).
        light: brightness of the light on the lips, 1 = as it is.
        hair_mask: (H, W) float coverage by hair, which stays in front.
        rng: random generator.
    """
    inner = pose(marks[60:68])
    opening = np.linalg.norm(inner[[7, 6, 5]] - inner[[1, 2, 3]], axis=1).max()
    size = overlay.alpha.shape[0]
    if opening < looks.MOUTH.least_opening * size:
        return
    mask = np.zeros((size, size), np.uint8)
    _fill(mask, np.concatenate([_curve(inner[:5]), _curve(inner[[4, 5, 6, 7, 0]])]), 255)
    mask[hair_mask > 0] = 0
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    corner = np.float32((columns.min(), rows.min()))
    canvas = np.zeros((*mask[window].shape, 3), np.uint8)
    _paint(canvas, marks, lambda points: pose(np.float32(points)) - corner, light, rng)
    Overlay(overlay.image[window], overlay.alpha[window]).blend(mask[window], canvas / np.float32(255), 1.0)


def _paint(canvas, marks, to_pixels, light, rng):
    """The mouth's inside on a picture (h, w, 3) uint8."""
    mouth = looks.MOUTH
    scale = np.linalg.norm(marks[45] - marks[36]) / _EYE_CORNER_DISTANCE
    light = light * rng.uniform(*mouth.light)
    color = {name: _between(getattr(mouth, name), rng) * light for name in ("dark", "gum", "tooth", "tongue")}
    canvas[:] = _level(color["dark"])
    inner = marks[60:68]
    middle = np.append(inner[:, :2].mean(axis=0), inner[[2, 6], 2].min() - mouth.behind * scale)
    upper, lower = inner[[1, 2, 3], 1].mean(), inner[[5, 6, 7], 1].mean()
    if upper - lower > mouth.tongue_opening * scale:
        around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        center = (middle[0], lower + rng.uniform(*mouth.tongue_height) * scale, middle[2] - 0.1 * scale)
        radii = scale * np.float32((0.19, rng.uniform(*mouth.tongue_thickness)))
        for share in (1.0, 0.6):
            ring = np.stack([np.cos(around), np.sin(around), 0 * around], axis=1) * (*radii * share, 0)
            _fill(canvas, to_pixels(center + ring), _level(color["tongue"] * (1.25 - 0.35 * share)))
    edge = upper - rng.uniform(*mouth.upper_teeth) * scale
    _row(canvas, to_pixels, middle, edge, scale, color, rng)
    edge = min(lower + rng.uniform(*mouth.lower_teeth) * scale, edge - 0.01 * scale)
    _row(canvas, to_pixels, middle - (0, 0, 0.02 * scale), edge, -scale, color, rng)


def _row(canvas, to_pixels, middle, edge, scale, color, rng):
    """Gum and teeth on an arch; the teeth end at height ``edge``; scale is negative for the lower row."""
    def arch(place, height):
        angle = np.asarray(place) * _ARCH_ANGLE
        x = middle[0] + abs(scale) * _ARCH * np.sin(angle) / np.sin(_ARCH_ANGLE)
        z = middle[2] - abs(scale) * _ARCH_DEPTH * (1 - np.cos(angle))
        return np.stack([x, np.broadcast_to(height, x.shape), z], axis=1)

    places = np.linspace(-1, 1, 25)
    root, gum = edge + scale * _TOOTH_HEIGHT, edge + scale * (_TOOTH_HEIGHT + _GUM_HEIGHT)
    short = scale * rng.uniform(0.0, 0.012)
    for low, high, shade in ((edge + 2 * short, root, color["tooth"] * 0.6), (root, gum, color["gum"])):
        band = np.concatenate([arch(places, low), arch(places[::-1], high)])
        _fill(canvas, to_pixels(band), _level(shade))
    borders = np.linspace(-1, 1, _TEETH + 1)
    for left, right in zip(borders[:-1], borders[1:]):
        middle_place, half = (left + right) / 2, 0.47 * (right - left)
        place = middle_place + half * np.array((-1, -1, -0.6, 0.6, 1, 1, 0))
        height = np.array((root, edge + short, edge, edge, edge + short, root, root + 0.012 * scale))
        shade = (1 - 0.55 * abs(middle_place) ** 1.5) * rng.uniform(0.95, 1.03)
        _fill(canvas, to_pixels(arch(place, height + short * rng.uniform(0, 1))), _level(color["tooth"] * shade))


def _between(ends, rng):
    """A colour (3,) between two, float."""
    first, second = np.float32(ends)
    return first + np.float32(rng.random()) * (second - first)


def _level(color):
    return tuple(float(value) for value in np.clip(np.asarray(color) * 255, 0, 255))


def _fill(canvas, outline, color):
    cv2.fillPoly(canvas, [np.round((outline - 0.5) * (1 << SHIFT)).astype(np.int32)], color, cv2.LINE_AA, SHIFT)


def _curve(points):
    """A smooth curve (17, 2) through five points (5, 2): cubic Hermite pieces with central differences."""
    slopes = np.gradient(points, axis=0)
    place = np.linspace(0, 4, 17)
    piece = np.minimum(place.astype(int), 3)
    t = (place - piece)[:, None]
    return ((1 + 2 * t) * (1 - t) ** 2 * points[piece] + t * (1 - t) ** 2 * slopes[piece]
            + t * t * (3 - 2 * t) * points[piece + 1] + t * t * (t - 1) * slopes[piece + 1])
