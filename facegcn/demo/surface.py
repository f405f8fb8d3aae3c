"""The skin of the procedural face as one smooth function of two template coordinates.

Template coordinates (s, t): s runs sideways, about a millimetre each near the midline, -100..100
from ear to ear; t runs upwards, the height in millimetres on the front of the face, and goes on
as length under the chin. Everything here is in millimetres; y = 0 is the height of the pupils,
z = 0 the depth of the nasion. Only ``demo_face`` turns millimetres into decimetres.

Proportions are means of young adults, both sexes pooled, from L. G. Farkas, "Anthropometry of
the Head and Face" (Raven, 1994): face height nasion-gnathion 118, forehead trichion-nasion 65,
bizygomatic width 134, intercanthal width 32, biocular width 90, nose height nasion-subnasale 52,
nose width 34, nose protrusion 20, mouth width 52, upper / lower vermilion 8 / 10. Diameter of the
eyeball 24 and of the iris 11.7: Forrester et al., "The Eye" (Saunders, 2002).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

S_MAX = 100.0  # template coordinate s of the borders before the ears
SWEEP = 1.50  # angle of the cross-section at S_MAX, radians

# The head without features, as rows of constant t: height and depth on the midline, half width,
# depth and height at the ear, exponent of the super-ellipse between them.
ROW_T = np.array([96., 70., 45., 18., 0., -25., -48., -70., -90., -103., -114., -126., -146., -168.])
ROWS = np.array([
    # y_mid  z_mid  width  z_side  y_side  power
    [90.0, -26.0, 57.0, -82.0, 84.0, 2.10],  # above the hairline
    [69.0, -11.0, 64.0, -86.0, 67.0, 2.16],  # trichion
    [45.0, 0.0, 68.5, -88.0, 45.0, 2.22],  # forehead
    [18.0, 3.0, 69.5, -90.0, 18.0, 2.25],  # brows
    [0.0, 1.0, 69.5, -92.0, 0.0, 2.20],  # eyes
    [-25.0, 1.5, 68.5, -93.0, -24.0, 2.14],  # cheekbones
    [-48.0, 3.5, 65.0, -92.0, -45.0, 2.06],  # subnasale
    [-70.0, 4.0, 61.0, -89.0, -64.0, 1.95],  # mouth line
    [-90.0, 1.5, 56.0, -85.0, -79.0, 1.82],
    [-103.0, 0.5, 52.5, -82.0, -88.0, 1.70],  # pogonion
    [-114.0, -5.0, 49.5, -79.0, -95.0, 1.66],  # jaw line, gnathion
    [-120.5, -16.0, 47.0, -79.0, -103.0, 1.80],  # under the chin
    [-125.0, -34.0, 45.0, -81.0, -113.0, 1.92],
    [-136.0, -50.0, 43.5, -84.0, -126.0, 2.00],  # front of the neck
])

# ---- curves of the features, as functions of |x|
EYE = np.array([31.0, 0.0, -18.5])  # centre of the right-hand eyeball
EYE_RADII = np.array([15.0, 13.0, 12.5])  # wider than high, so that it fills the corners
LID_THICKNESS = 1.6
INNER_CANTHUS, OUTER_CANTHUS = 16.0, 45.5
MOUTH_Y, MOUTH_HALF_WIDTH, MOUTH_OPENING = -70.0, 26.0, 3.0

_upper_lid = PchipInterpolator([16, 17.5, 20, 24, 29, 34, 39, 43, 45.5],
                               [-1.9, -0.3, 1.6, 3.7, 4.9, 4.8, 3.7, 1.8, 0.2])
_lower_lid = PchipInterpolator([16, 17.5, 20, 24, 29, 34, 39, 43, 45.5],
                               [-1.9, -2.5, -3.2, -4.2, -5.0, -5.2, -4.4, -2.4, 0.2])
_upper_lip = PchipInterpolator([0, 2, 5.5, 10, 16, 22, 26, 30],
                               [-62.7, -62.2, -60.9, -61.8, -64.5, -67.7, -70.2, -71.0])
_lower_lip = PchipInterpolator([0, 6, 12, 18, 23, 26, 30],
                               [-80.6, -80.3, -78.8, -75.7, -72.5, -70.6, -71.0])
_mouth_line = PchipInterpolator([0, 3, 8, 14, 20, 26, 30],
                                [-70.9, -70.7, -69.9, -70.0, -70.4, -70.6, -71.0])


#: The fold over the upper lid: (x, y) at 0, inner, to 1, outer end.
CREASE = CubicSpline(np.linspace(0, 1, 7),
                     [(18, 3), (22, 7.5), (27, 10.2), (33, 10.8), (39, 9.2), (44.5, 5.0), (48, 1.0)])


def upper_lid(x):
    """Height of the upper lid's margin at |x|."""
    return _upper_lid(np.clip(x, INNER_CANTHUS, OUTER_CANTHUS))


def lower_lid(x):
    """Height of the lower lid's margin at |x|."""
    return _lower_lid(np.clip(x, INNER_CANTHUS, OUTER_CANTHUS))


def upper_lip(x):
    """Height of the upper vermilion border at |x| (cupid's bow)."""
    return _upper_lip(np.clip(x, 0, 30))


def lower_lip(x):
    """Height of the lower vermilion border at |x|."""
    return _lower_lip(np.clip(x, 0, 30))


def mouth_line(x):
    """Height at |x| of the line where the closed lips meet."""
    return _mouth_line(np.clip(x, 0, 30))


def mouth_opening(x):
    """Half height at |x| of the slit by which the template's mouth is open; the face's is closed."""
    return MOUTH_OPENING * np.clip(1 - (x / MOUTH_HALF_WIDTH) ** 2, 0, None)


def smooth_max(a, b, radius):
    """Maximum of two heights, rounded where they differ by less than ``radius`` (C1)."""
    gap = np.clip(1 - np.abs(a - b) / radius, 0, None)
    return np.maximum(a, b) + radius * gap * gap / 4


def smooth_step(x, low, high):
    """0 below ``low``, 1 above ``high``, C2 between (quintic)."""
    u = np.clip((x - low) / (high - low), 0, 1)
    return u * u * u * (u * (6 * u - 15) + 10)


def bump(x, y, cx, cy, rx, ry, tilt=0.0, power=1.0):
    """exp(-q^power), q the squared elliptic distance to (cx, cy); tilt in degrees.

    With power 1 a Gaussian (q = 1 at 37 %); above 1 it gets a flat top and steep sides.
    """
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))

    def one_side(x):
        u, v = c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)
        return np.exp(-((u / rx) ** 2 + (v / ry) ** 2) ** power)

    # The other side's bump reaches over the midline; leaving it out would make a kink there.
    return one_side(x) if cx == 0 else one_side(x) + one_side(-x)


def ridge(x, y, points, radius):
    """exp(-(d/radius)^2), d the distance to the smooth curve through ``points`` (soft ends)."""
    curve = _smooth_curve(tuple(map(tuple, points)))
    squared = np.full((2,) + np.shape(x), np.inf)
    for px, py in curve:  # and its mirror image, as in ``bump``
        for side, sign in enumerate((1, -1)):
            squared[side] = np.minimum(squared[side], (sign * x - px) ** 2 + (y - py) ** 2)
    return np.exp(-squared / radius ** 2).sum(axis=0)


@cache
def _smooth_curve(points):
    return CubicSpline(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, 40))


# ------------------------------------------------------------------ the head without features
_row_spline = CubicSpline(ROW_T[::-1], np.eye(len(ROW_T)), bc_type="natural")


def row_weights(t):
    """(n, rows) weights that interpolate per-row numbers at t by a cubic spline."""
    return _row_spline(t)[..., ::-1]


def head(s, t, rows=None, weights=None):
    """Points and outward directions of the head without features.

    Args:
        s, t: template coordinates (n,).
        rows: (rows, 6) table like ``ROWS``; the mean head by default.
        weights: ``row_weights(t)`` where the caller has it already.

    Returns:
        points (n, 3), directions (n, 3) of unit length; the relief is raised along them.
    """
    weights = row_weights(t) if weights is None else weights
    y_mid, z_mid, width, z_side, y_side, power = (weights @ (ROWS if rows is None else rows)).T
    across = np.sin(np.abs(s) / S_MAX * SWEEP)
    along = (1 - across ** power) ** (1 / power)
    depth = z_mid - z_side
    points = np.stack([np.sign(s) * width * across, y_mid + (y_side - y_mid) * (1 - along),
                       z_side + depth * along], axis=1)
    # A cubed ellipse's gradient: straight ahead over the whole front, sideways only at the sides.
    directions = np.stack([np.sign(s) * across ** 2.2 / width, np.zeros_like(s), along ** 2 / depth], axis=1)
    return points, directions / np.linalg.norm(directions, axis=1, keepdims=True)


def feature_coordinates(s, t):
    """Template (s, t) -> (|x|, y) in which features are placed: the mean head's, mouth closed."""
    x = row_weights(t) @ ROWS[:, 2] * np.sin(np.abs(s) / S_MAX * SWEEP)
    opening, line = mouth_opening(x), mouth_line(x)
    gap = np.abs(t - line)
    # The slit closes; its pull fades over 9 mm, slower than it would take for points to overtake.
    pull = opening * (1 - smooth_step(gap - opening, 0.0, 9.0))
    return x, t - np.sign(t - line) * np.minimum(pull, gap)


def template_coordinates(x, y, side=0):
    """(x, y) on the front of the mean face -> (s, t); ``side`` +1 / -1: lip above / below the slit."""
    t = y + side * mouth_opening(np.abs(x))
    width = row_weights(t) @ ROWS[:, 2]
    return np.sign(x) * np.arcsin(np.clip(np.abs(x) / width, 0, 1)) / SWEEP * S_MAX, t


# ------------------------------------------------------------------ relief
_upper_roll = PchipInterpolator([0, .08, .22, .45, .8, 1, 1.15, 1.5, 2.4, 3.5],
                                [-.65, -.15, .5, 1, .82, .66, .56, .33, .08, 0])
_lower_roll = PchipInterpolator([0, .08, .22, .48, .8, 1, 1.25, 1.6, 2.2],
                                [-.58, -.05, .55, 1, .74, .44, .18, .05, 0])


def lip_relief(x, y):
    """(upper, lower): the rolls of the two lips, 1 at their crests, below 0 where they meet."""
    line = mouth_line(x)
    envelope = np.clip(1 - (x / 27.5) ** 2, 0, 1) ** 0.7
    upper = (y - line) / np.maximum(upper_lip(x) - line, 2.5)
    lower = (line - y) / np.maximum(line - lower_lip(x), 2.5)
    lobes = 1 - 0.10 * bump(x, y, 0, -76, 2.5, 8) + 0.05 * bump(x, y, 7, -76, 5, 8)
    return (envelope * _upper_roll(np.clip(upper, 0, 3.5)) * (y >= line),
            envelope * lobes * _lower_roll(np.clip(lower, 0, 2.2)) * (y < line))


def _nose_profile(heights, depths):
    order = np.argsort(heights)
    return PchipInterpolator(np.asarray(heights, float)[order], np.asarray(depths, float)[order])


_bridge_height = _nose_profile([30, 16, 8, 3, -4, -12, -20, -28, -34, -38, -42, -46, -50, -60],
                               [0, 0, .8, 2.6, 5.6, 9.4, 13.2, 16.6, 17.8, 16.8, 11.0, 4.0, 0, 0])
_bridge_width = _nose_profile([30, 10, 3, -6, -14, -22, -30, -38, -60], [12, 8, 6.6, 7.0, 8.2, 9.8, 10.8, 10, 7])


def nose_relief(x, y):
    """Height of the nose over the face: bridge, tip, wings, columella."""
    y_in = np.clip(y, -60, 30)
    bridge = _bridge_height(y_in) / (1 + (x / _bridge_width(y_in)) ** 2.8) ** 1.1
    tip = 20.3 * bump(x, y, 0, -36.5, 11.5, 9.2, power=1.25)
    wing = 9.6 * bump(x, y, 10.8, -41.0, 7.8, 8.0, -15, power=1.8)
    column = 12.0 * bump(x, y, 0, -42.0, 4.2, 6.4, power=1.6)
    nose = smooth_max(bridge, tip, 6.0)
    nose = smooth_max(nose, wing, 6.0)
    nose = smooth_max(nose, column, 3.5)
    return nose - 0.9 * ridge(x, y, [(10, -33), (13, -33.5), (17, -36), (18.8, -41), (18.5, -46)], 2.2)


def socket_relief(x, y):
    """Depth (below 0) of the eye sockets: deepest at the nose, open towards the temple."""
    return (-7.5 * bump(x, y, 29.0, -0.5, 18.0, 13.5, 4, power=1.6)
            - 4.0 * bump(x, y, 17.0, 2.0, 7.0, 9.0))


def lid_surface(x, y):
    """Absolute depth z of the lids' outer surface over the eyeball."""
    radii = EYE_RADII + LID_THICKNESS
    q = ((x - EYE[0]) / radii[0]) ** 2 + ((y - EYE[1]) / radii[1]) ** 2
    return EYE[2] + radii[2] * np.where(q < 0.9, np.sqrt(np.clip(1 - q, 0, None)),
                                        np.sqrt(0.1) - (q - 0.9) * 0.5 / np.sqrt(0.1))


def crease_relief(x, y):
    """The fold over the upper lid, and the faint one under the lower."""
    upper = ridge(x, y, CREASE(np.linspace(0, 1, 9)), 2.0)
    lower = ridge(x, y, [(19, -6.5), (24, -10), (30, -11.5), (37, -10.5)], 2.0)
    return -1.3 * upper - 0.5 * lower


def relief_fields(x, y):
    """The mean face's relief as named fields (n,), millimetres along the outward direction."""
    upper, lower = lip_relief(x, y)
    return {
        "nose": 1.1 * nose_relief(x, y),
        "socket": socket_relief(x, y),
        "brow ridge": 2.6 * ridge(x, y, [(12, 15), (20, 17.5), (32, 19.5), (43, 17), (50, 10)], 8.5),
        "glabella": 2.0 * bump(x, y, 0, 17, 9, 9),
        "forehead": 1.5 * bump(x, y, 24, 48, 20, 15),
        "temple": -3.0 * bump(x, y, 64, 24, 14, 24),
        "cheekbone": 4.2 * bump(x, y, 46, -21, 17, 13, -25) + 1.0 * bump(x, y, 62, -12, 12, 10),
        "cheek": 2.5 * bump(x, y, 38, -46, 16, 16),
        "cheek hollow": -2.5 * bump(x, y, 54, -58, 16, 22, 20),
        "muzzle": 3.0 * bump(x, y, 0, -64, 24, 17, power=1.2),
        "nasolabial fold": -1.3 * ridge(x, y, [(19, -44), (24, -51), (29, -60), (32, -69)], 3.2),
        "philtrum": -1.1 * bump(x, y, 0, -56, 2.6, 5.5) + 0.8 * ridge(x, y, [(3.6, -51), (5.2, -60)], 2.3),
        "upper lip": 4.6 * upper,
        "lower lip": 5.6 * lower,
        "mouth corner": -1.3 * bump(x, y, 28, -71, 5, 5),
        "chin fold": -3.6 * bump(x, y, 0, -87.5, 17, 5.0, power=1.2),
        "chin": 5.5 * bump(x, y, 0, -101.5, 15, 10.5, power=1.2) + 1.0 * bump(x, y, 9, -103, 7, 7),
        "jaw": 1.5 * ridge(x, y, [(14, -113), (38, -111), (48, -100)], 9.0),
        "tear trough": -1.2 * ridge(x, y, [(15, -8), (20, -14), (28, -18)], 5.0),
    }


def skin(s, t, crease=1.0):
    """The mean skin: points (n, 3), outward directions (n, 3); ``crease`` 0 leaves out the lids' folds."""
    points, directions = head(s, t)
    x, y = feature_coordinates(s, t)
    points[:, 1] += y - t  # the mouth closes
    points = points + sum(relief_fields(x, y).values())[:, None] * directions
    lids = smooth_max(points[:, 2], lid_surface(x, y), 5.0) - points[:, 2]
    points[:, 2] += lids + crease * crease_relief(x, y)
    return points, directions
