"""Identities of the procedural face, as displacements of its template.

Every face has the template's vertices, so they are registered by construction. Spreads are
standard deviations as in Farkas, "Anthropometry of the Head and Face" (1994): bizygomatic width
5 mm, nose height 3, nose width 2.5, mouth width 3.5, intercanthal width 2.5, face height 6.
Millimetres, see ``demo.surface``.
"""

from __future__ import annotations

import numpy as np

from facegcn.demo import parts, surface

LID_STEPS = np.linspace(0, 1, 6)  # of the lids' path over the eyeball

# The spreads below were chosen by eye on preview sheets (``--preview``) of random faces: as wide as they stay human.
# The last number of each is how men differ from women, as in ``Rig.identity``: added per unit of a common factor.

#: How much each feature of ``surface.relief_fields`` varies: share of its height per standard deviation.
FEATURE_SPREADS = {
    "nose": (.11, .2), "socket": (.12, .3), "brow ridge": (.5, .7), "glabella": (.5, .4), "forehead": (.8, -.3),
    "temple": (.5, 0), "cheekbone": (.4, -.1), "cheek": (.8, -.3), "cheek hollow": (.8, .2), "muzzle": (.5, 0),
    "nasolabial fold": (.6, .2), "philtrum": (.4, 0), "upper lip": (.22, -.4), "lower lip": (.2, -.4),
    "mouth corner": (.5, 0), "chin fold": (.4, .1), "chin": (.35, .4), "jaw": (.9, .4), "tear trough": (.5, .1)}

#: Bulges that the mean face has not: height in mm per standard deviation, below 0 a hollow; centre |x|, y and radii
#: in mm, as for ``surface.bump``.
BULGES = {
    "bridge of the nose": (0.9, (0, -12, 6, 9), .3), "tip of the nose": (1.1, (0, -37, 9, 9), .1),
    "root of the nose": (-0.8, (0, 4, 8, 8), 0), "wings of the nose": (0.7, (12, -41, 6, 7), .1),
    "angles of the jaw": (1.7, (52, -82, 26, 24), .5), "cheeks": (2.0, (40, -52, 20, 20), -.2),
    "under the chin": (2.5, (0, -122, 40, 18), 0), "sides of the chin": (1.0, (20, -98, 14, 14), .2),
    "cheekbone arches": (1.3, (62, -14, 14, 10), 0), "under the brows": (1.0, (30, 14, 16, 6), .2),
    "under the eyes": (0.7, (31, -13, 13, 5), 0), "middle of the forehead": (1.2, (0, 48, 26, 20), -.2),
    "over the upper lip": (1.0, (0, -57, 14, 8), 0), "beside the mouth": (1.2, (33, -78, 14, 14), -.2),
    "point of the chin": (1.2, (0, -106, 8, 7), .2)}


class Rig:
    """Displacement fields over a template, and how its eyes and mouth follow them."""

    def __init__(self, template):
        """Precomputes the fields of ``template`` (``demo.mesh.Template``)."""
        self.template = template
        self.s, self.t = template.st.T
        self.weights = surface.row_weights(self.t)
        self.x, self.y = surface.feature_coordinates(self.s, self.t)
        self.sign = np.where(self.s < 0, -1.0, 1.0)
        self.head, self.outward = surface.head(self.s, self.t, weights=self.weights)
        part = template.part
        self.eye_mask = 1 - surface.smooth_step(
            np.hypot((self.x - 31) / 18.0, self.y / 11.0), 1.0, 1.75)
        self.eye_mask[(part == parts.EYE) | (part == parts.LID)] = 1.0
        self.bag = part == parts.MOUTH
        self.lips = (part == parts.LIP) & (template.depth == 1)
        self.lids = [(part == parts.LID) & (template.depth == 1) & (self.sign == side) for side in (-1, 1)]
        # +1 on the upper lip, -1 on the lower, meeting smoothly beside the mouth.
        self.side = np.tanh((self.t - surface.mouth_line(self.x)) / (1.6 + 0.9 * np.clip(self.x - 18, 0, None)))
        self.jaw = (1 - self.side) / 2 * surface.smooth_step(self.t, -170, -125)
        self.jaw[self.bag] = parts.MOUTH_ROWS[template.depth[self.bag].astype(int), 2]
        self.odd = np.tanh(self.sign * self.x / 8)
        self._lid_path = np.stack([self._lids_at(amount) for amount in LID_STEPS])
        self.lid_motion = self._lid_path[-1]

    # -------------------------------------------------------------- helpers
    def bump(self, *args, **kwargs):
        """``surface.bump`` at every vertex."""
        return surface.bump(self.x, self.y, *args, **kwargs)

    def vector(self, field, x=0.0, y=0.0, z=0.0):
        """(N, 3) displacement: a scalar field times (x, y, z), x away from the midline."""
        return field[:, None] * np.column_stack([self.sign * x, y + 0 * self.s, z + 0 * self.s])

    def carry(self, offsets):
        """Lets eyes and mouth bag move as a whole with the skin around them; changes ``offsets``."""
        for lids, side in zip(self.lids, (-1, 1)):
            rigid = offsets[lids].mean(axis=0)
            mask = (self.eye_mask * (self.sign == side))[:, None]
            offsets += mask * (rigid - offsets)
        rim = offsets[self.lips]
        offsets[self.bag] = rim.mean(axis=0)
        return offsets

    def blink(self, left, right):
        """(N, 3) motion of the lids over the eyeballs; 0 as they are, 1 closed."""
        offsets = np.zeros_like(self.template.points)
        for amount, side in ((left, -1), (right, 1)):
            place = np.clip(amount, 0, 1) * (len(LID_STEPS) - 1)
            low = min(int(place), len(LID_STEPS) - 2)
            path = self._lid_path[low] + (place - low) * (self._lid_path[low + 1] - self._lid_path[low])
            offsets += path * (self.sign == side)[:, None]
        return offsets

    def _lids_at(self, amount):
        """Offsets (N, 3) of both eyes' lids when they have closed by ``amount``."""
        x, y = self.x, self.y
        upper, lower = surface.upper_lid(x), surface.lower_lid(x)
        meet = 0.85 * lower + 0.15 * upper
        step = surface.smooth_step
        fall = np.where(y > meet, (meet - upper) * (1 - step(y - upper, 0, 12)),
                        (meet - lower) * (1 - step(lower - y, 0, 7)))
        near = (self.eye_mask > 0) & (self.template.part != parts.EYE)
        offsets = np.zeros_like(self.template.points)
        s, t = self.s[near], self.t[near]
        moved = surface.skin(s, t + amount * fall[near], crease=0.0)[0]
        offsets[near] = moved - surface.skin(s, t, crease=0.0)[0]
        crease = amount * surface.crease_relief(x, y) * near
        offsets[:, 2] -= 0.8 * np.where(self.template.part == parts.SKIN, crease, 0)
        return offsets

    # -------------------------------------------------------------- identity
    def identity_fields(self):
        """(fields (K, N, 3), male (K,)): displacement per standard deviation, and how it differs
        between the sexes (added per unit of a common factor)."""
        along = self.outward[:, None, :]
        relief = surface.relief_fields(self.x, self.y)
        rows = []

        def add(field, male=0.0):
            rows.append((field, male))

        for name, (share, male) in FEATURE_SPREADS.items():
            add(share * relief[name][:, None] * along[:, 0], male)
        for height, place, male in BULGES.values():
            add((height * self.bump(*place))[:, None] * along[:, 0], male)
        for field, male in self._warp_fields():
            add(field, male)
        return np.array([f for f, _ in rows]), np.array([m for _, m in rows])

    def _warp_fields(self):
        """Shifts and stretches of the features per standard deviation."""
        x, y, b, v = self.x, self.y, self.bump, self.vector
        step = surface.smooth_step
        one = np.ones_like(x)
        nose = step(y, -66, -50) * (1 - step(y, -12, 6)) * np.exp(-(x / 24) ** 4)
        mouth = b(0, -71, 38, 20, power=1.5)
        eyes = b(31, 0, 26, 22, power=1.5)
        lips = b(0, -71, 32, 14, power=1.5)
        return [
            (v(1 - step(y, -50, 8), y=-2.4), .3),  # nose height
            (v(1 - step(y, -66, -46), y=-1.2), .2),  # upper lip height
            (v(1 - step(y, -112, -68), y=-2.4), .4),  # chin height
            (v(step(y, 8, 80), y=3.5), 0),  # forehead height
            (v(nose, x=0.065 * x), .2),  # nose width
            (v(b(0, -38, 12, 11), y=1.6), -.2),  # tip up
            (v(b(0, -15, 14, 18), x=0.10 * x), .1),  # bridge width
            (v(mouth, x=0.05 * x), .2),  # mouth width
            (v(lips, y=0.08 * (y - surface.mouth_line(x))), -.4),  # lip height
            (v(b(26, -70, 10, 10), y=0.9), 0),  # corners up
            (v(b(0, -71, 34, 18, power=1.5), y=1.0), 0),  # mouth height
            (v(eyes, x=1.1 * one), .1),  # eye spacing
            (v(eyes, y=0.9 * one), 0),  # eye height
            (v(eyes, z=1.0 * one), -.1),  # eye depth
            (v(b(31, 21, 28, 10), y=1.5), -.5),  # brow height
            (v(b(46, 17, 14, 10), y=1.3), -.2),  # brow slant
            (v(b(0, -104, 26, 16), x=0.06 * x), .3),  # chin width
            (v(b(0, -40, 22, 12), z=0.9), 0),  # nose base forward
            # Small asymmetries: nose, mouth, chin to a side; mouth, eyes, brows aslant.
            (v(b(0, -38, 18, 22), x=0.5 * self.sign), 0),
            (v(mouth, x=0.6 * self.sign), 0),
            (v(b(0, -100, 45, 30), x=0.8 * self.sign), 0),
            (v(mouth, y=0.02 * x * self.sign), 0),
            (v(eyes, y=0.4 * self.odd), 0),
            (v(b(31, 21, 28, 10), y=0.6 * self.odd), 0),
        ]

    def identity(self, fields, male, rng):
        """One random face: (N, 3) offsets from the template, millimetres."""
        sex = rng.uniform(-1.0, 1.0)
        draw = np.clip(rng.normal(size=len(fields)), -2.5, 2.5) * 0.9 + sex * male
        offsets = np.tensordot(draw, fields, axes=1)
        rows = surface.ROWS + _row_changes(rng, sex)
        offsets += surface.head(self.s, self.t, rows, self.weights)[0] - self.head
        offsets += self._unevenness(rng)
        offsets = self.carry(offsets)
        size, tilt = 0.035 * rng.normal(), np.radians(2.0) * rng.normal()
        opening = 0.10 * rng.normal()
        for side in (-1, 1):
            mask = (self.eye_mask * (self.sign == side))[:, None]
            arm = self.template.points - surface.EYE * (side, 1, 1)
            turned = np.stack([-arm[:, 1], arm[:, 0], 0 * arm[:, 0]], axis=1)
            offsets += mask * (size * arm + side * tilt * turned)
        return offsets + opening * self.lid_motion

    def _unevenness(self, rng):
        """Smooth random relief, mostly symmetric."""
        field = np.zeros(len(self.x))
        for _ in range(14):
            cx, cy, radius = rng.uniform(0, 70), rng.uniform(-115, 75), rng.uniform(14, 28)
            both, left, right = rng.normal(size=3) * (0.6, 0.2, 0.2)
            for side, height in ((-1, both + left), (1, both + right)):
                field += height * np.exp(-((self.sign * self.x - side * cx) ** 2 + (self.y - cy) ** 2) / radius ** 2)
        return field[:, None] * self.outward


def _row_changes(rng, sex):
    """Random changes of the head's rows, smooth from row to row."""
    t = surface.ROW_T
    step = surface.smooth_step
    low, top = 1 - step(t, -110, -45), step(t, -5, 60)
    middle = 1 - low - top
    draw = np.clip(rng.normal(size=9), -2.5, 2.5)
    changes = np.zeros_like(surface.ROWS)
    width = 1.8 * draw[0] + low * (1.9 * draw[1] + 1.2 * sex) + top * 1.3 * draw[2] + middle * 0.9 * draw[3]
    changes[:, 2] = width
    changes[:, 1] = (top * (2.2 * draw[4] - 0.9 * sex) + low * (1.9 * draw[5] + 0.4 * sex) + middle * 0.9 * draw[6])
    changes[:, 4] = low * 2.0 * draw[7]
    changes[:, 5] = 0.05 * draw[8] + low * 0.04 * sex
    return changes
