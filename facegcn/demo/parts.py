"""Pieces of the procedural face's template: rims and folds of its holes, eyeballs, mouth bag.

All of the half with x >= 0 and in millimetres, see ``demo.surface``; ``demo.mesh`` joins them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegcn.demo import surface

SKIN, LID, EYE, NOSTRIL, LIP, MOUTH = range(6)

TOP, BOTTOM = 80.0, -152.0  # template coordinate t of the skin's upper and lower border
PUPIL, IRIS = 1.9, 5.85  # radii, mm
MIDLINE_KNOTS = (2.0, -11.0, -23.5, -35.5, -50.5)  # landmarks 27 to 30 and 33
NOSTRIL_CENTRE, NOSTRIL_RADII, NOSTRIL_TILT = (6.6, -43.6), (3.7, 2.1), -22.0
TEETH_BACK, TEETH_ARCH = 7.5, 15.0  # depth of the incisors behind the lips' line, bend of the arch
# Rows of the mouth bag: height over the mouth line, depth behind the teeth, share of the jaw's motion.
MOUTH_ROWS = np.array([[15, 3, 0], [9, 1, 0], [5, 0, 0], [1, 0, 0], [-1.2, .6, 0], [-.6, 9, .1],
                       [-.8, 16, .5], [-1.4, 9, .9], [-1.6, .9, 1], [-5, .6, 1], [-10, 1.4, 1], [-16, 3, 1]])


@dataclass
class Half:
    """Vertices with x >= 0 and their triangles; fields as in ``demo.mesh.Template``."""

    points: np.ndarray
    st: np.ndarray
    part: np.ndarray
    depth: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    middle: np.ndarray  # (n,) bool: on the midline


def plane_uv(st):
    """Texture coordinates of template coordinates."""
    return np.stack([0.5 + st[:, 0] / 200.0, 0.005 + 0.99 * (st[:, 1] - BOTTOM) / (TOP - BOTTOM)], axis=1)


def join(pieces) -> Half:
    """Pieces that share no vertex, as one."""
    starts = np.cumsum([0] + [len(p.points) for p in pieces])
    triangles = np.concatenate([p.triangles + start for p, start in zip(pieces, starts)])
    rest = {name: np.concatenate([getattr(p, name) for p in pieces])
            for name in ("points", "st", "part", "depth", "uv", "middle")}
    return Half(triangles=triangles, **rest)


def resample(pieces, edge, length):
    """Points along polylines joined end to end, spaced by about ``edge``; joints are kept.

    Args:
        pieces: dense polylines (m, 2), each starting where the one before ends.
        edge: wanted spacing.
        length: function of a polyline, length of its steps.
    """
    out = [pieces[0][:1]]
    for curve in pieces:
        along = np.concatenate([[0], np.cumsum(length(curve))])
        count = max(1, round(along[-1] / edge))
        at = np.linspace(0, along[-1], count + 1)[1:]
        out.append(np.stack([np.interp(at, along, curve[:, 0]), np.interp(at, along, curve[:, 1])], axis=1))
    return np.concatenate(out)


# ------------------------------------------------------------------ rims and lines on the skin
def _to_plane(x, y, side=0):
    return np.stack(surface.template_coordinates(np.asarray(x, float), np.asarray(y, float), side), axis=1)


def column(heights):
    """Polylines down the midline between given t."""
    return [np.stack([np.zeros(40), np.linspace(a, b, 40)], axis=1) for a, b in zip(heights, heights[1:])]


def eye_rim():
    """Margins of the lids, upper from the inner to the outer corner, lower back."""
    x = surface.INNER_CANTHUS + (surface.OUTER_CANTHUS - surface.INNER_CANTHUS) * (
        1 - np.cos(np.linspace(0, np.pi, 120))) / 2
    back = x[::-1]
    return [_to_plane(x, surface.upper_lid(x)), _to_plane(back, surface.lower_lid(back))]


def mouth_rim():
    """Line of the upper lip from the middle to the corner, that of the lower lip back."""
    x = surface.MOUTH_HALF_WIDTH * np.sin(np.linspace(0, np.pi / 2, 120))
    back = x[::-1]
    return [_to_plane(x, surface.mouth_line(x), 1), _to_plane(back, surface.mouth_line(back), -1)]


def vermilion():
    """Upper and lower vermilion border, from the middle almost to the corner of the mouth."""
    x = np.linspace(0, 23.0, 80)
    upper, lower = surface.upper_lip(x), surface.lower_lip(x)
    return {"upper lip": [_opened(x, upper)], "lower lip": [_opened(x, lower)]}


def guides():
    """Lines along which vertices are laid so that lids and lips stay smooth: no raggedness where
    the surface bends sharply."""
    x = np.linspace(surface.INNER_CANTHUS - 1.0, surface.OUTER_CANTHUS + 1.0, 90)
    arch = np.sqrt(np.clip(1 - ((x - x.mean()) / (x[-1] - x.mean())) ** 2, 0, 1)) ** 0.7
    lips = np.linspace(0, 21.0, 80)
    line = surface.mouth_line(lips)
    curves = {"upper lid": [_to_plane(x, surface.upper_lid(x) + 0.4 + 1.1 * arch)],
              "lower lid": [_to_plane(x, surface.lower_lid(x) - 0.4 - 1.1 * arch)],
              "lid crease": [_to_plane(*surface.CREASE(np.linspace(0.08, 0.92, 80)).T)]}
    for name, border in (("upper roll", surface.upper_lip(lips)), ("lower roll", surface.lower_lip(lips))):
        for share in (0.22, 0.55):
            curves[f"{name} {share}"] = [_opened(lips, line + share * (border - line))]
    return curves


def _opened(x, y):
    """Template coordinates of closed-mouth feature coordinates: inverts ``feature_coordinates``."""
    t = y.copy()
    for _ in range(60):
        s, _ = surface.template_coordinates(x, t)
        t = t + 0.7 * (y - surface.feature_coordinates(s, t)[1])
    return np.stack([surface.template_coordinates(x, t)[0], t], axis=1)


def _nostril_frame(x, y):
    c, s = np.cos(np.radians(NOSTRIL_TILT)), np.sin(np.radians(NOSTRIL_TILT))
    dx, dy = x - NOSTRIL_CENTRE[0], y - NOSTRIL_CENTRE[1]
    return (c * dx + s * dy) / NOSTRIL_RADII[0], (c * dy - s * dx) / NOSTRIL_RADII[1]


def nostril_distance(x, y):
    """Elliptic distance to the nostril's centre, 1 on its rim."""
    return np.hypot(*_nostril_frame(x, y))


def nostril_rim():
    """The nostril's rim, an ellipse seen from the front, counter-clockwise."""
    a = np.linspace(0, 2 * np.pi, 120)
    c, s = np.cos(np.radians(NOSTRIL_TILT)), np.sin(np.radians(NOSTRIL_TILT))
    u, v = NOSTRIL_RADII[0] * np.cos(a), NOSTRIL_RADII[1] * np.sin(a)
    return [_to_plane(NOSTRIL_CENTRE[0] + c * u - s * v, NOSTRIL_CENTRE[1] + s * u + c * v)]


def skin_landmarks():
    """Landmarks off the midline that lie on no rim: jaw 9-16, brow 22-26, nose 34-35."""
    t = np.array([-112., -112, -110, -104, -94, -80, -62, -42, -22, -2])
    s = np.array([0., 14, 32, 52, 68, 79, 86, 89.5, 92, 94.5])
    jaw = resample([np.stack([np.interp(np.linspace(0, 9, 200), np.arange(10), v) for v in (s, t)], axis=1)],
                   1.0, lambda c: np.linalg.norm(np.diff(surface.skin(*c.T)[0], axis=0), axis=1) / 20.0)
    at = np.linspace(0, len(jaw) - 1, 9)[1:]
    jaw = np.stack([np.interp(at, np.arange(len(jaw)), v) for v in jaw.T], axis=1)
    brow = _to_plane([13.0, 22.0, 31.5, 40.5, 48.5], [17.0, 21.5, 23.5, 22.0, 16.5])
    nose = _to_plane([5.5, 11.5], [-48.2, -47.6])
    return np.concatenate([jaw, brow, nose])


# ------------------------------------------------------------------ folds
def lid_rings(rim):
    """Inner edge of the lids, and a ring under them: (points, uv) from the rim's st."""
    x, y = surface.feature_coordinates(*rim.T)
    centre = np.array([(surface.INNER_CANTHUS + surface.OUTER_CANTHUS) / 2, 0.0])
    out = np.stack([x, y], axis=1) - centre
    out /= np.linalg.norm(out / (15.0, 5.5), axis=1, keepdims=True) * (15.0, 5.5)
    rings = []
    for shift, lift, scale in ((-0.25, 0.15, 0.93), (2.2, -0.8, 0.88)):
        xy = np.stack([x, y], axis=1) + shift * out / np.linalg.norm(out, axis=1, keepdims=True)
        points = np.column_stack([xy, eye_depth(*xy.T) + lift])
        rings.append((points, plane_uv(rim.mean(axis=0) + scale * (rim - rim.mean(axis=0)))))
    return rings


def nostril_rings(rim):
    """The nostril's pit, up and back into the nose; the last ring is its bottom."""
    points = surface.skin(*rim.T)[0]
    centre = points.mean(axis=0)
    inwards = np.array([0.05, 0.72, -0.70])
    rings = []
    for shift, scale in ((1.2, 0.93), (3.0, 0.82), (5.5, 0.55), (6.5, 0.12)):
        uv = plane_uv(rim.mean(axis=0) + scale * 0.95 * (rim - rim.mean(axis=0)))
        rings.append((centre + scale * (points - centre) + shift * inwards, uv))
    return rings


def lip_rings(rim):
    """Inner side of the lips, back to the mouth bag."""
    points = surface.skin(*rim.T)[0]
    x, _ = surface.feature_coordinates(*rim.T)
    line = surface.mouth_line(x)
    side = np.tanh((rim[:, 1] - line) / 0.6)  # +1 upper lip, -1 lower, 0 in the corner
    back = teeth_depth(x) - points[:, 2]
    rings = []
    for share, rise, scale in ((0.3, 0.5, 0.85), (0.65, 2.5, 0.7), (1.0, 8.5, 0.55)):
        ring = points + np.column_stack([0 * x, side * rise, share * (back + 0.8)])
        middle = np.stack([rim[:, 0], line], axis=1)
        rings.append((ring, plane_uv(middle + scale * (rim - middle))))
    return rings


def add_fold(half, rim, rings, part, closed):
    """Hangs rings of vertices on a rim of the half; returns the extended half."""
    forward = bool(((half.triangles == rim[0]) & (np.roll(half.triangles, -1, axis=1) == rim[1])).any())
    count, previous, triangles = len(rim), np.asarray(rim), [half.triangles]
    pieces = [half]
    for number, (points, uv) in enumerate(rings):
        start = sum(len(p.points) for p in pieces)
        ring = np.arange(start, start + count)
        a, b = previous, ring
        nexts = (np.roll(a, -1), np.roll(b, -1)) if closed else (a[1:], b[1:])
        a, b = (a, b) if closed else (a[:-1], b[:-1])
        strip = np.concatenate([np.stack([nexts[0], a, b], 1), np.stack([nexts[0], b, nexts[1]], 1)])
        triangles.append(strip if forward else strip[:, ::-1])
        pieces.append(Half(points, half.st[rim], np.full(count, part), np.full(count, number + 1.0),
                           np.zeros((0, 3), int), uv, half.middle[rim]))
        previous = ring
    whole = join(pieces)
    whole.triangles = np.concatenate(triangles)
    return whole


# ------------------------------------------------------------------ eyeball and mouth
def eye_depth(x, y):
    """Depth of the eyeball's surface; in the corners a membrane just under the lids."""
    radii = surface.EYE_RADII
    q = ((x - surface.EYE[0]) / radii[0]) ** 2 + ((y - surface.EYE[1]) / radii[1]) ** 2
    ball = surface.EYE[2] + radii[2] * np.sqrt(np.clip(1 - q, 0, None))
    ball = ball + 0.5 * surface.bump(x, y, surface.EYE[0], 0, 5.5, 5.5, power=2.0)  # the cornea
    lids = surface.skin(*surface.template_coordinates(x, y), crease=0.0)[0][:, 2]
    under = surface.smooth_step(np.hypot((x - 30.75) / 15.0, y / 6.5), 0.95, 1.6)  # away from the lids
    return surface.smooth_max(ball, lids - 2.0, 0.5) - 1.5 * under


def eyeball(edge) -> Half:
    """The eye's front in rings about the pupil, sharp at the iris, reaching under the lids."""
    count = 2 * max(8, round(np.pi * IRIS / (1.05 * edge)))
    steps = max(1, round((IRIS - PUPIL) / edge) - 1)
    inner = [0.5 * PUPIL, PUPIL - 0.15, PUPIL + 0.15, *np.linspace(PUPIL, IRIS - 0.25, steps + 1)[1:], IRIS + 0.2]
    angle = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centre = surface.EYE[:2]
    # The outermost ring is the opening of the lids, widened: nearly an ellipse.
    outer = np.array([30.75, 0.0]) + circle * (16.3, 11.5)
    rings = [centre + radius * circle for radius in inner]
    steps = max(2, round(7.0 / edge))
    rings += [rings[-1] + share * (outer - rings[-1]) for share in (np.arange(steps) + 1) / steps]
    xy = np.concatenate([centre[None], *rings])
    radii = np.concatenate([[0.0], np.hypot(*(xy[1:] - centre).T)])
    start = 1 + count * np.arange(len(rings))
    i, j = np.arange(count), np.roll(np.arange(count), -1)
    triangles = [np.stack([0 * i, 1 + i, 1 + j], 1)]
    for a, b in zip(start, start[1:]):
        triangles += [np.stack([a + i, b + i, b + j], 1), np.stack([a + i, b + j, a + j], 1)]
    st = np.stack(surface.template_coordinates(*xy.T), axis=1)
    middle = np.array([st[:, 0].mean(), 0.0])
    return Half(np.column_stack([xy, eye_depth(*xy.T)]), st, np.full(len(xy), EYE), radii,
                np.concatenate(triangles), plane_uv(middle + (0.6, 0.38) * (st - middle)), np.zeros(len(xy), bool))


def teeth_depth(x):
    """Depth of the front of the teeth."""
    front = surface.skin(*surface.template_coordinates(np.zeros(1), surface.mouth_line(np.zeros(1)), 1))[0][0, 2]
    return front - TEETH_BACK - TEETH_ARCH * (x / surface.MOUTH_HALF_WIDTH) ** 2


def mouth_bag(edge) -> Half:
    """Teeth, gums and the dark between them: a grid behind the lips."""
    columns = max(6, round(28.0 / (2.0 * edge)))
    x, row = np.meshgrid(np.linspace(0, 28.0, columns + 1), np.arange(len(MOUTH_ROWS)))
    x, row = x.ravel(), row.ravel()
    rise, back, _ = MOUTH_ROWS[row].T
    y = surface.mouth_line(np.zeros_like(x)) + rise
    points = np.column_stack([x, y, teeth_depth(x) - back])
    grid = np.arange(len(x)).reshape(len(MOUTH_ROWS), -1)
    a, b, c, d = (g.ravel() for g in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]))
    st = np.column_stack([0 * x, y])
    uv = np.column_stack([0.90 + 0.09 * x / 28.0, 0.08 - 0.07 * row / (len(MOUTH_ROWS) - 1)])
    return Half(points, st, np.full(len(x), MOUTH), row.astype(float),
                np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]), uv, x == 0)
