"""Things in front of the face in made portraits: hands, microphones, face masks, scarfs, whatever.

They clear alpha where they are; the soft shadow that they cast beside them darkens the face and leaves it in sight.
Shapes come from the landmarks; their proportions were judged by eye.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.portraits import looks
from facegcn.portraits.overlay import SHIFT, Overlay

_DECIMETRE = 102.0 / 224  # share of an aligned picture
_OUTSIDE = 4.0  # decimetre, beyond the picture's border


def add_occluder(overlay: Overlay, kind: str, marks, pose, skin, rng) -> None:
    """Draws one thing of a kind that ``looks.OCCLUDERS`` names; "none" draws nothing.

    Args:
        overlay: the picture.
        kind: a key of ``looks.OCCLUDERS``.
        marks: (68, 3) landmarks of the unposed face, decimetre.
        pose: function from unposed points (M, 3) to pixels (M, 2).
        skin: (3,) lit colour of the person's skin in [0, 1].
        rng: random generator.
    """
    drawing = _Drawing(overlay.alpha.shape[0])
    if kind == "thing":
        _thing(overlay, rng)
    elif kind == "hand":
        _hand(drawing, pose(marks), skin, rng)
    elif kind == "microphone":
        _microphone(drawing, pose(marks), rng)
    elif kind == "mask":
        _mask(drawing, marks, pose, rng)
    elif kind == "scarf":
        _scarf(drawing, marks, pose, rng)
    drawing.put_on(overlay, rng)


class _Drawing:
    """Colours (S, S, 3) and cover (S, S) of a thing, uint8; lengths in decimetre, places in pixels."""

    def __init__(self, size):
        self.unit = _DECIMETRE * size
        self.canvas, self.cover = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)

    def stroke(self, path, width, color):
        """A round-ended line along (M, 2)."""
        points = [np.round((np.asarray(path) - 0.5) * (1 << SHIFT)).astype(np.int32)]
        for picture, value in ((self.canvas, _level(color)), (self.cover, 255)):
            cv2.polylines(picture, points, False, value, max(int(round(width * self.unit)), 1), cv2.LINE_AA, SHIFT)

    def fill(self, outline, color):
        """A filled outline (M, 2)."""
        points = [np.round((np.asarray(outline) - 0.5) * (1 << SHIFT)).astype(np.int32)]
        for picture, value in ((self.canvas, _level(color)), (self.cover, 255)):
            cv2.fillPoly(picture, points, value, cv2.LINE_AA, SHIFT)

    def put_on(self, overlay, rng):
        """Blurs the colours a little, grains them, casts a shadow beside the thing and draws it."""
        if not self.cover.any():
            return
        things, size = looks.OCCLUDER, self.cover.shape[0]
        # The canvas is black beside the thing: a blur divided by that of the cover does not darken its rim.
        sigma = max(rng.uniform(*things.blur) * self.unit, 0.3)
        weight = cv2.GaussianBlur(np.float32(self.cover), (0, 0), sigma)
        colors = cv2.GaussianBlur(np.float32(self.canvas), (0, 0), sigma) / np.maximum(weight, 8.0)[..., None]
        grain = cv2.resize(np.float32(rng.normal(1, rng.uniform(*things.grain), (17, 17))), (size, size),
                           interpolation=cv2.INTER_CUBIC)
        shift = np.float32([(1, 0, rng.normal(0, things.shadow_shift) * self.unit),
                            (0, 1, abs(rng.normal(0, things.shadow_shift)) * self.unit)])
        shadow = cv2.GaussianBlur(cv2.warpAffine(self.cover, shift, (size, size)), (0, 0),
                                  rng.uniform(*things.shadow_blur) * self.unit)
        overlay.image *= 1 - rng.uniform(*things.shadow) * (np.float32(shadow) / 255)[..., None]
        overlay.blend(self.cover, np.clip(colors * grain[..., None], 0, 1), 1.0)


def _level(color):
    return tuple(float(value) for value in np.clip(np.asarray(color) * 255, 0, 255))


def _color(rng):
    """A colour of cloth: black, white, grey, and one in three of any."""
    kind = rng.random()
    grey = rng.uniform(0.02, 0.15) if kind < 0.3 else rng.uniform(0.7, 1.0) if kind < 0.5 else rng.uniform(0.1, 0.9)
    return np.float32(rng.uniform(0.05, 0.95, 3) if kind > 0.67 else np.full(3, grey))


# -------------------------------------------------------------------- the things
def _thing(overlay, rng):
    """A flat shape before the face or at the picture's edge: a phone, a leaf, somebody's shoulder."""
    size, thing = overlay.alpha.shape[0], looks.THING
    angle = rng.uniform(0, 2 * np.pi)
    center = size / 2 + size * rng.uniform(*thing.distance) * np.array([np.cos(angle), np.sin(angle)])
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 1 + thing.wave * np.sin(turn * rng.integers(*thing.waves) + rng.uniform(0, 6))
    radius = (radius * size * rng.uniform(*thing.size))[:, None]
    outline = center + radius * np.stack([np.cos(turn), np.sin(turn) * rng.uniform(*thing.aspect)], axis=1)
    skin = np.float32(thing.skin) * rng.uniform(*thing.brightness)
    color = skin if rng.random() < thing.skin_chance else rng.uniform(0, 1, 3)
    overlay.fill(outline, np.clip(color, 0, 1), 1.0, soft=rng.uniform(*thing.soft))


def _hand(drawing, pixels, skin, rng):
    """Fingers side by side that reach in from the face's border, a palm and an arm behind them."""
    hand, unit = looks.HAND, drawing.unit
    place = pixels[list(hand.places[rng.integers(len(hand.places))])].mean(axis=0)
    outwards = place - pixels[27:36].mean(axis=0)
    heading = np.arctan2(outwards[1], outwards[0]) + rng.normal(0, hand.turn)
    out = np.array((np.cos(heading), np.sin(heading)))
    across = np.array((-out[1], out[0]))
    place = place + out * rng.normal(0, hand.reach) * unit
    color = skin * rng.uniform(*hand.tone)
    count, width = rng.integers(*hand.fingers), rng.uniform(*hand.width)
    offsets = (np.arange(count) - (count - 1) / 2) * width * 1.06
    knuckles = place + unit * (0.6 * out + offsets[:, None] * across + 0.05 * (offsets[:, None] / width) ** 2 * out)
    wrist = place + unit * 1.5 * out
    arm = wrist + unit * _OUTSIDE * (out + (0, rng.uniform(0, 0.8)))
    broad = 0.5 * count * width
    drawing.stroke([wrist, arm], 1.3 * broad, color * 0.85)
    drawing.fill([knuckles[0] - across * 0.4 * width * unit, knuckles[-1] + across * 0.4 * width * unit,
                  wrist + across * broad * unit, wrist - across * broad * unit], color * 0.95)
    bend, nails = rng.normal(0, 0.35), rng.random() < hand.nails_chance
    nail = np.float32(rng.uniform(*hand.nail, 3)) if rng.random() < hand.varnish_chance else color * (1.15, 1.0, 1.0)
    for k in rng.permutation(count):
        heads = heading + np.pi + rng.normal(0, 0.06) + 0.1 * offsets[k] / width + np.linspace(0, bend, 4)
        length = unit * rng.uniform(*hand.length) * (1 - 0.06 * abs(k - 0.4 * count))
        steps = np.stack([np.cos(heads), np.sin(heads)], axis=1) * length / 4
        path = np.vstack([knuckles[k], knuckles[k] + np.cumsum(steps, axis=0)])
        for share, shade in ((1.0, 0.62), (0.82, 0.9), (0.45, 1.06)):
            drawing.stroke(path, share * width, color * shade)
        if nails:
            drawing.stroke(path[-1] + np.outer((-0.1, 0.25), steps[-1]), 0.5 * width, nail)


def _microphone(drawing, pixels, rng):
    """A round head before the mouth and a handle that leaves the picture below."""
    kinds, unit = looks.MICROPHONE, drawing.unit
    side = rng.normal(0, 0.5)
    center = pixels[48:68].mean(axis=0) + unit * np.array((side * 0.5, rng.uniform(*kinds.below)))
    handle = center + unit * _OUTSIDE * np.array((side, 1.0))
    color, radius = np.full(3, rng.uniform(*kinds.grey)), rng.uniform(*kinds.radius)
    for share, shade in ((1.0, 0.5), (0.6, 1.0), (0.2, 1.6)):
        drawing.stroke([center, handle], 1.3 * radius * share, color * shade)
    head = np.full(3, rng.uniform(*kinds.grey))
    for share, shade in ((1.0, 0.6), (0.8, 1.0), (0.45, 1.5)):
        drawing.stroke([center, center + 1e-3], 2 * radius * share, head * shade)
    for step in np.linspace(-0.7, 0.7, 7) * radius * unit:
        half = np.sqrt(max((radius * unit) ** 2 - step ** 2, 0)) * 0.9
        drawing.stroke([center + (step, -half), center + (step, half)], 0.01, head * 0.5)
        drawing.stroke([center + (-half, step), center + (half, step)], 0.01, head * 0.5)


def _mask(drawing, marks, pose, rng):
    """A face mask from the nose to below the chin, with folds and bands to the ears."""
    base = _color(rng) if rng.random() < 0.5 else np.float32(looks.MASK.colors[rng.integers(len(looks.MASK.colors))])
    first, before = rng.integers(2, 4), np.float32((0, 0, 0.06))
    jaw = marks[first:17 - first] * (1.02, 1.0, 1.0)
    jaw[3:-3, 1] -= rng.uniform(*looks.MASK.below_chin)
    jaw += before
    nose = [marks[28] + rng.uniform(0, 1) * (marks[30] - marks[28]) + before, marks[30] + 2 * before,
            marks[33] + 2.5 * before]
    ridge = np.array([marks[31], marks[35]]) * 0.55 + 0.45 * marks[[40, 47]]
    hull = cv2.convexHull(np.float32(pose(np.float32([*jaw, *nose, *ridge]))))[:, 0]
    for side, ear, edge in ((-1, marks[0], jaw[0]), (1, marks[16], jaw[-1])):
        band = pose(np.float32([edge, ear]))
        if side * (band[1, 0] - hull[:, 0].mean()) > 0 and side * (band[1, 0] - band[0, 0]) > -0.1 * drawing.unit:
            drawing.stroke(band, 0.02, base)  # the band on the far side is hidden by the head
    drawing.fill(hull, base)
    middle = hull.mean(axis=0)
    drawing.fill(middle + 0.75 * (hull - middle), base * 1.06)
    for share in np.linspace(0.2, 0.8, rng.integers(2, 6)):
        centre = nose[2] * (1 - share) + (marks[8] + 2 * before) * share
        ends = jaw[[1, -2]] * (1 - 0.5 * share) + jaw[[3, -4]] * 0.5 * share
        drawing.stroke(pose(np.float32([ends[0], 0.45 * ends[0] + 0.55 * centre, centre, 0.45 * ends[1] + 0.55 * centre,
                                        ends[1]])), 0.015, base * rng.uniform(0.75, 0.95))


def _scarf(drawing, marks, pose, rng):
    """Cloth from below the mouth, or from over it, down to the chest."""
    base, high = _color(rng), rng.uniform(*looks.SCARF.high)
    middle = marks[8] + high * (marks[33] - marks[8]) + (0, 0, 0.12)
    left, right = marks[[3, 13]] * (1.08, 1.0, 1.0) + (0, rng.normal(0, 0.08), 0.05)
    top = [left, 0.4 * left + 0.6 * middle + (0, 0, 0.1), middle, 0.4 * right + 0.6 * middle + (0, 0, 0.1), right]
    top = pose(np.float32(top)) + rng.normal(0, 0.02 * drawing.unit, (5, 2))
    side = np.array((0.5, 0.0)) * drawing.unit
    down = np.array((0.0, _OUTSIDE)) * drawing.unit
    drawing.fill(np.vstack([top, top[-1] + side + down, top[0] - side + down]), base)
    for _ in range(rng.integers(4, 10)):
        fall = np.array((0.0, rng.uniform(0.05, 1.5))) * drawing.unit
        sag = np.array([0, 0.5, 1, 0.5, 0])[:, None] * (0, rng.uniform(-0.1, 0.3) * drawing.unit)
        drawing.stroke(top + fall + sag, rng.uniform(0.02, 0.1), base * rng.uniform(0.6, 1.25))
