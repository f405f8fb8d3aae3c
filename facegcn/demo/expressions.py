"""Expressions of the procedural face, as displacements of its template.

The movements follow the action units of P. Ekman and W. Friesen, "Facial Action Coding System"
(1978); the jaw turns about the temporomandibular joint. Millimetres, see ``demo.surface``. How far each movement goes
and how often a face has it was chosen by eye on preview sheets.
"""

from __future__ import annotations

import numpy as np

from facegcn.demo import surface
from facegcn.demo.shapes import Rig

JAW_AXIS = (-15.0, -85.0)  # y, z of the hinge
JAW_ANGLE = np.radians(14.0)  # wide open

#: Movements and how often a random expression has them. "left" is x < 0, left in the picture.
MOVEMENTS = {
    "jaw open": 0.35, "jaw left": 0.08, "jaw right": 0.08, "mouth left": 0.12, "mouth right": 0.12, "pucker": 0.2,
    "funnel": 0.15, "lip press": 0.15, "upper lip raise": 0.15, "lower lip down": 0.15, "chin raise": 0.15,
    "nose wrinkle": 0.2, "inner brow raise": 0.25,
    **{f"{name} {side}": chance for side in ("left", "right") for name, chance in (
        ("blink", 0.16), ("squint", 0.2), ("smile", 0.4), ("frown", 0.2), ("stretch", 0.2),
        ("outer brow raise", 0.25), ("brow lower", 0.25), ("cheek puff", 0.12), ("dimple", 0.12))}}


def movement_fields(rig: Rig) -> dict[str, np.ndarray]:
    """Linear movements: (N, 3) displacement at full strength, by name (all but jaw and blinks)."""
    fields = {}
    for side, sign in (("left", -1), ("right", 1)):
        # A soft cut, so that one-sided movements fade over the middle of the face.
        half = (1 + np.tanh(sign * rig.sign * rig.x / 7.0)) / 2
        for name, field in _one_sided(rig).items():
            fields[f"{name} {side}"] = field * half[:, None]
    fields.update(_both_sided(rig))
    for field in fields.values():
        # Lids stay on the eyeball, eyeballs in the skull; the teeth keep still.
        field *= 1 - rig.eye_mask[:, None]
        field[rig.bag] = 0
    for name, field in _lid_fields(rig).items():
        fields[name] += field
    return fields


def _one_sided(rig):
    """Movements that each side of the face can make alone."""
    b, v = rig.bump, rig.vector
    corner = b(27, -71, 15, 14, power=1.2)
    upper, lower = (1 + rig.side) / 2, (1 - rig.side) / 2
    return {
        "smile": v(corner, x=5.5, y=5.0, z=-4.0) + v(b(14, -66, 12, 12) * upper, x=2.0, y=1.8, z=-1.5)
        + v(b(13, -78, 12, 12) * lower, x=2.0, y=1.2, z=-1.5)
        + v(b(40, -36, 17, 15), y=2.5, z=2.5) + v(b(31, -57, 6, 13, -25), z=-1.2) + v(b(14, -42, 8, 8), x=1.0, y=.6),
        "frown": v(corner, x=1.5, y=-5.0, z=-1.5) + v(b(24, -86, 13, 10), y=-1.5, z=0.8),
        "stretch": v(corner, x=6.0, y=-1.5, z=-3.5) + v(b(45, -75, 18, 20), x=2.0),
        "dimple": v(corner, x=2.5, y=0.5, z=-3.5) + v(b(33, -70, 6, 7), z=-1.5),
        "cheek puff": v(b(42, -58, 20, 20), x=6.0, z=5.0) + v(b(20, -66, 14, 12), z=1.5),
        "outer brow raise": v(b(43, 21, 15, 13), y=6.0) + v(b(40, 40, 20, 18), y=2.5, z=-0.4),
        "brow lower": v(b(16, 17, 14, 10), x=-2.2, y=-3.8, z=1.0) + v(b(38, 20, 14, 9), y=-3.2)
        + v(b(5, 18, 4, 10), z=-0.8),
        "squint": v(b(33, -17, 18, 9), y=2.0, z=1.2),
    }


def _lid_fields(rig):
    """What squints do to the lids themselves, a share of a blink."""
    return {f"squint {side}": 0.35 * rig.blink(*(float(side == s) for s in ("left", "right")))
            for side in ("left", "right")}


def _both_sided(rig):
    """Movements of the whole mouth, nose and middle brow."""
    b, v, x, y = rig.bump, rig.vector, rig.x, rig.y
    upper, lower = (1 + rig.side) / 2, (1 - rig.side) / 2
    lips = b(0, -71, 31, 15, power=1.4)
    mouth = b(0, -72, 36, 20, power=1.3)
    red = b(0, -71, 28, 10, power=2.0)
    height = y - surface.mouth_line(x)
    return {
        "pucker": v(lips, x=-0.36 * x, z=5.0) + v(red, y=0.10 * height),
        "funnel": v(lips, x=-0.20 * x, z=4.0) + v(red, y=3.0 * rig.side),
        "lip press": v(red, y=-0.42 * height, z=-2.2),
        "mouth left": v(mouth, x=-5.5 * rig.sign), "mouth right": v(mouth, x=5.5 * rig.sign),
        "upper lip raise": v(b(0, -64, 22, 11, power=1.3) * upper, y=4.5, z=0.5) + v(b(20, -50, 10, 12), y=1.5, z=1.0),
        "lower lip down": v(b(0, -78, 20, 11, power=1.3) * lower, y=-4.5, z=0.5),
        "chin raise": v(b(0, -88, 26, 18) * lower, y=3.0, z=1.5) + v(b(0, -72, 22, 8), y=1.8),
        "nose wrinkle": v(b(13, -41, 9, 9), y=2.6, x=0.6) + v(b(9, 3, 9, 10), y=-1.5, z=1.0)
        + v(b(0, -62, 20, 8) * upper, y=1.8) + v(b(24, -30, 12, 14), y=1.5, z=1.2),
        "inner brow raise": v(b(15, 20, 13, 12), y=5.5) + v(b(10, 40, 25, 18), y=2.5, z=0.4),
    }


def expression(rig: Rig, fields: dict[str, np.ndarray], strengths: dict[str, float]) -> np.ndarray:
    """One expression of the mean face: (N, 3) offsets, millimetres.

    Args:
        rig: the template's rig.
        fields: ``movement_fields(rig)``.
        strengths: 0 to 1 by name of ``MOVEMENTS``; a missing one is 0.

    Raises:
        KeyError: a name is unknown.
    """
    points = rig.template.points.copy()
    for name, strength in strengths.items():
        if name in fields:
            points += strength * fields[name]
        elif name not in MOVEMENTS:
            raise KeyError(name)
    points += rig.blink(strengths.get("blink left", 0.0), strengths.get("blink right", 0.0))
    sideways = strengths.get("jaw right", 0.0) - strengths.get("jaw left", 0.0)
    return _move_jaw(points, rig.jaw, strengths.get("jaw open", 0.0), sideways) - rig.template.points


def _move_jaw(points, weight, opening, sideways):
    """Turns the points about the jaw's hinge by their weight; the condyles also glide forward."""
    angle = weight * opening * JAW_ANGLE
    y, z = points[:, 1] - JAW_AXIS[0], points[:, 2] - JAW_AXIS[1]
    c, s = np.cos(angle), np.sin(angle)
    return np.column_stack([points[:, 0] + weight * sideways * 6.0,
                            JAW_AXIS[0] + c * y - s * z,
                            JAW_AXIS[1] + s * y + c * z + weight * opening * 4.0])


def random_strengths(rng) -> dict[str, float]:
    """Strengths of a random expression: few movements at once, mostly alike on both sides."""
    strengths = {}
    for name, chance in MOVEMENTS.items():
        partner = name.replace(" right", " left")
        if name.endswith("right") and partner in strengths and rng.random() < 0.75 and "mouth" not in name:
            strengths[name] = min(1.0, strengths[partner] * rng.uniform(0.85, 1.15))
        else:
            strengths[name] = rng.uniform(0, 0.9) if rng.random() < chance else 0.0
    if rng.random() < 0.75:
        strengths["jaw left"] = strengths["jaw right"] = 0.0
    return strengths
