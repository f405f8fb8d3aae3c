"""Albedo details outside any albedo basis: brows, eyes, beard shadow, freckles, make-up, wrinkles.

Every region comes from the 68 iBUG landmarks of the mean shape seen from the front, so it works
with any morphable model. Lengths are decimetres of a face whose outer eye corners are 0.9 dm apart
(a model of another size is scaled to it). Colours are RGB levels in [0, 255]. What differs between people is in
``looks``; places and widths of the regions, here, were judged by eye on the mean face.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import scipy.spatial
from skimage.measure import points_in_poly

from facegcn.portraits import looks

_EYE_CORNER_DISTANCE = 0.9
_NOISE_FIELDS = 24
_NOISE_CELLS = (0.55, 0.25, 0.12, 0.05)  # decimetre between the knots of the noise, coarse to fine


class AlbedoDetails:
    """Paints details over the albedo of one morphable model; regions are computed once.

    Attributes:
        forehead: skin vertices above the brows (all skin if there are none), int.
        crown: vertices above the eyes, int, about 200: what a skull has to reach.
        beard: vertices where a beard can grow, int.
    """

    def __init__(self, morphable, seed: int = 0):
        """Args: morphable, a MorphableModel; seed of the noise fields."""
        shape = morphable.mean_shape
        landmarks = shape[morphable.landmarks]
        self._scale = _EYE_CORNER_DISTANCE / max(np.linalg.norm(landmarks[45] - landmarks[36]), 1e-6)
        middle = landmarks[[36, 45]].mean(axis=0)
        points = (shape - middle) * self._scale
        self._points, self._xy = points, np.ascontiguousarray(points[:, :2])
        self._marks = (landmarks - middle) * self._scale
        self._tree = scipy.spatial.cKDTree(points)
        skin = np.zeros(len(shape), bool)
        skin[morphable.skin_index] = True
        self._skin = skin.astype(np.float32)
        self._noise = _noise_fields(points, np.random.default_rng([seed, 1]))
        self._face = skin & (points[:, 2] > self._marks[0, 2])  # skin in front of the ears
        self._make_regions(skin)
        self._make_lines()
        high = self._face & (self._xy[:, 1] > self._marks[17:27, 1].max() + 0.15)
        self.forehead = np.flatnonzero(high if high.any() else self._skin)
        above = np.flatnonzero(self._xy[:, 1] > self._marks[17:27, 1].max())
        self.crown = above[::max(above.size // 200, 1)]
        self.beard = np.flatnonzero(self._beard_mask > 0.5)

    def paint(self, albedo: np.ndarray, hair: np.ndarray, rng: np.random.Generator) -> tuple:
        """Adds a random set of details.

        Args:
            albedo: (N, 3) float32 levels from the albedo basis.
            hair: (3,) colour of hair and brows.
            rng: random generator.

        Returns:
            albedo (N, 3) float32 in [0, 255]; beard: how much of a beard there is, 0 to 1.
        """
        albedo = albedo.astype(np.float32, copy=True)
        feminine = rng.random() < looks.FEMININE_CHANCE
        self._skin_texture(albedo, rng)
        self._lines(albedo, rng)
        self._spots(albedo, rng)
        # Light hardly gets into nostrils, which harmonics do not know; in photos they are as dark as a colour.
        albedo *= 1 - rng.uniform(*looks.NOSTRILS) * self._nostrils[:, None]
        self._lips(albedo, rng, feminine)
        self._lids(albedo, rng, feminine)
        beard = 0.0 if feminine else self._beard(albedo, hair, rng)
        self._brows(albedo, hair, rng)
        self._eyes(albedo, rng)
        return np.clip(albedo, 0.0, 255.0), beard

    # ---------------------------------------------------------------- regions
    def _make_regions(self, skin):
        marks, xy = self._marks[:, :2], self._xy
        front = self._points[:, 2] > self._marks[0, 2] - 0.1
        self._eye_ids, self._eye_centers = [], []
        for first in (36, 42):
            eye = marks[first:first + 6]
            distance, _ = _polyline_distance(xy, np.vstack([eye, eye[:1]]))
            inside = points_in_poly(xy, eye)
            here = (inside | (distance < 0.06)) & ~skin & front
            self._eye_ids.append(np.flatnonzero(here))
            self._eye_centers.append(eye.mean(axis=0))
        outer, inner = marks[48:60], marks[60:68]
        lip_distance = _signed_distance(xy, outer)
        self._lip_mask = _step(0.03, -0.03, lip_distance) * front
        self._lip_mask *= 1 - 0.6 * _step(0.01, -0.01, _signed_distance(xy, inner))
        self._cheeks = [np.exp(-(((xy - c) / (0.24, 0.19)) ** 2).sum(axis=1)) * self._skin * front
                        for c in (0.45 * marks[41] + 0.25 * marks[48] + 0.3 * marks[2],
                                  0.45 * marks[46] + 0.25 * marks[54] + 0.3 * marks[14])]
        self._nose = np.exp(-(((xy - marks[30]) / (0.2, 0.17)) ** 2).sum(axis=1)) * self._skin * front
        self._make_nostrils()
        self._make_beard(lip_distance, front)

    def _make_nostrils(self):
        """What lies behind the skin of the nose's underside."""
        marks, points = self._marks, self._points
        self._nostrils = np.zeros(len(points), np.float32)
        beside = [np.exp(-((self._xy[:, 0] - marks[k, 0]) / 0.08) ** 2) for k in (32, 34)]
        above = self._xy[:, 1] - marks[33, 1]
        beside = np.maximum(*beside)
        ids = np.flatnonzero((above > -0.05) & (above < 0.18) & (beside > 0.2) & (points[:, 2] > marks[33, 2] - 0.5))
        if not ids.size:
            return
        around = scipy.spatial.cKDTree(self._xy[ids]).query_ball_point(self._xy[ids], 0.035)
        behind = np.array([points[ids[near], 2].max() for near in around]) - points[ids, 2]
        under = _step(-0.05, -0.02, above[ids]) * _step(0.18, 0.13, above[ids])
        self._nostrils[ids] = _step(0.07, 0.12, behind) * under * beside[ids]

    def _make_beard(self, lip_distance, front):
        """Beard and moustache masks: below the line ear - mouth corner - nose, off the lips."""
        marks, xy = self._marks[:, :2], self._xy
        corner = [0.45 * marks[48] + 0.4 * marks[31] + 0.15 * marks[3],
                  0.45 * marks[54] + 0.4 * marks[35] + 0.15 * marks[13]]
        cheek = 0.55 * marks[[3, 13], 0] + 0.45 * marks[[48, 54], 0]
        top_x = np.array([marks[0, 0] - 9, marks[1, 0], cheek[0], corner[0][0], marks[33, 0], corner[1][0],
                          cheek[1], marks[15, 0], marks[16, 0] + 9])
        low = 0.5 * (marks[33, 1] + marks[51, 1])
        top_y = np.array([marks[1, 1], marks[1, 1], marks[48, 1], corner[0][1], low + 0.06, corner[1][1],
                          marks[54, 1], marks[15, 1], marks[15, 1]])
        below = _step(0.04, -0.1, xy[:, 1] - np.interp(xy[:, 0], top_x, top_y))
        off_lips = _step(0.01, 0.05, lip_distance)
        neck = _step(-0.3, -0.1, xy[:, 1] - marks[8, 1])
        mask = below * off_lips * neck * front * self._skin
        moustache = _step(1.1, 0.8, np.abs(xy[:, 0] - marks[33, 0]) / abs(marks[54, 0] - marks[33, 0]))
        moustache *= _step(marks[48, 1] - 0.08, marks[48, 1], xy[:, 1])
        self._beard_mask = mask.astype(np.float32)
        self._moustache = (mask * moustache).astype(np.float32)
        chin = np.exp(-(((xy - (marks[57] + marks[8]) / 2) / (0.24, 0.3)) ** 2).sum(axis=1))
        self._chin_mask = (mask * chin).astype(np.float32)

    def _make_lines(self):
        """Lines of an ageing face, each as (vertex ids, distance to the line)."""
        marks = self._marks[:, :2]
        lines = []
        for side, wing, mouth, brow in ((-1, 31, 48, slice(17, 22)), (1, 35, 54, slice(22, 27))):
            lines.append(np.array([marks[wing] + (0.07 * side, 0.05), marks[mouth] + (0.13 * side, 0.12),
                                   marks[mouth] + (0.12 * side, -0.08)]))
            eye = marks[36:42] if side < 0 else marks[42:48]
            under = eye[[0, 5, 4, 3]] if side < 0 else eye[[3, 4, 5, 0]]
            lines.append(under + np.array([(0, -0.03), (0, -0.1), (0, -0.11), (0, -0.06)]))
            tip = eye[0] if side < 0 else eye[3]
            lines += [np.array([tip + (0.07 * side, d), tip + (0.24 * side, 3 * d)])
                      for d in (0.035, -0.005, -0.045)]
            lines.append(np.array([marks[brow][-1 if side < 0 else 0] + (0.03 * side, 0.04),
                                   marks[brow][-1 if side < 0 else 0] + (0.03 * side, -0.12)]))
        brows = marks[17:27]
        lines += [np.stack([brows[:, 0] * 0.85, brows[:, 1].mean() + 0.3 * (brows[:, 1] - brows[:, 1].mean())
                            + height], axis=1) for height in (0.17, 0.26, 0.36)]
        self._line_fields = []
        for line in lines:
            distance, _ = _polyline_distance(self._xy, line)
            ids = np.flatnonzero((distance < 0.09) & self._face)
            self._line_fields.append((ids, distance[ids]))
        self._brow_fields = [self._brow_field(marks[21:16:-1]), self._brow_field(marks[22:27])]
        self._lid_fields = [self._lid_field(marks[36:42]), self._lid_field(marks[42:48])]

    def _brow_field(self, line):
        """Ids near a brow (landmarks from the nose outwards), place along it, height above it."""
        distance, along = _polyline_distance(self._xy, line)
        ids = np.flatnonzero((distance < 0.22) & self._face)
        order = np.argsort(line[:, 0])
        height = self._xy[ids, 1] - np.interp(self._xy[ids, 0], line[order, 0], line[order, 1])
        outward = np.sign(line[-1, 0] - line[0, 0])
        beyond = np.where(along[ids] < 0.5, (self._xy[ids, 0] - line[0, 0]) * outward,
                          (line[-1, 0] - self._xy[ids, 0]) * outward)  # negative past an end
        return ids, along[ids], height, np.minimum(beyond, 0.0)

    def _lid_field(self, eye):
        """Skin around an eye: ids, distance to the eye, how far above its middle line, sideways place."""
        distance = _signed_distance(self._xy, eye)
        ids = np.flatnonzero((distance < 0.28) & self._face)
        corner_y = np.interp(self._xy[ids, 0], eye[[0, 3], 0], eye[[0, 3], 1])
        return ids, np.maximum(distance[ids], 0.0), self._xy[ids, 1] - corner_y

    # ---------------------------------------------------------------- painting
    def _field(self, rng, level):
        """One smooth random field (N,), mean 0 and deviation 1; level 0 coarse to 3 fine."""
        fields = self._noise[level]
        pick = rng.integers(len(fields), size=2)
        weights = rng.normal(size=2).astype(np.float32)
        return (fields[pick[0]] * weights[0] + fields[pick[1]] * weights[1]) / max(np.hypot(*weights), 0.3)

    def _skin_texture(self, albedo, rng):
        """Mottling, flushed cheeks and nose, uneven tone, patches of other pigment."""
        strength = rng.uniform(*looks.SKIN.strength)
        light = sum(share * self._field(rng, level) for level, share in enumerate(looks.SKIN.mottling)) * strength
        red = sum(share * self._field(rng, level) for level, share in looks.SKIN.redness) * strength
        flush = rng.uniform(*looks.SKIN.flush) * (self._cheeks[0] + self._cheeks[1] + self._nose * rng.uniform(0, 1))
        tint = (red + flush) * self._skin
        albedo *= (1 + light * self._skin)[:, None]
        albedo *= np.stack([1 + share * tint for share in looks.SKIN.tint], axis=1)
        patches = looks.PATCHES
        if rng.random() < patches.chance:
            least = rng.uniform(*patches.least)
            cover = _step(least, least + rng.uniform(*patches.edge), self._field(rng, rng.integers(1, 3)))
            tint = np.float32(patches.pale if rng.random() < patches.pale_chance else patches.dark)
            albedo *= 1 + (cover * self._skin * rng.uniform(*patches.cover))[:, None].astype(np.float32) * (tint - 1)
        if rng.random() < looks.BLUSH.chance:
            color = np.float32(looks.BLUSH.color) * rng.uniform(*looks.BLUSH.brightness)
            cover = rng.uniform(*looks.BLUSH.cover)
            _mix(albedo, slice(None), color, cover * (self._cheeks[0] + self._cheeks[1]))

    def _lines(self, albedo, rng):
        """Darker lines; with age more of them and deeper."""
        age = rng.beta(*looks.LINES.age)
        for ids, distance in self._line_fields:
            if rng.random() > looks.LINES.chance + age:
                continue
            depth = rng.uniform(*looks.LINES.depth) + looks.LINES.aged * age * rng.random()
            width = rng.uniform(*looks.LINES.width)
            albedo[ids] *= (1 - depth * np.exp(-(distance / width) ** 2))[:, None]

    def _spots(self, albedo, rng):
        """Freckles, moles and scars."""
        skin_ids = np.flatnonzero(self._face)
        if not skin_ids.size:
            return
        spots = [(rng.integers(*kind.count), looks.between(kind.cover, rng), kind) for kind in looks.SPOTS
                 if rng.random() < kind.chance]
        for count, opacity, kind in spots:
            centers = skin_ids[rng.integers(skin_ids.size, size=count)]
            radii = rng.uniform(*kind.radius, count)
            near = self._tree.query_ball_point(self._points[centers], radii + 0.02)
            sizes = [len(ids) for ids in near]
            near = np.concatenate(near).astype(np.int64)
            offset = self._points[near] - np.repeat(self._points[centers], sizes, axis=0)
            distance = np.linalg.norm(offset, axis=1)
            radius = np.repeat(radii, sizes)
            cover = np.zeros(len(albedo), np.float32)
            np.maximum.at(cover, near, opacity * _step(*looks.SPOT_EDGE, distance - radius).astype(np.float32))
            albedo *= 1 - cover[:, None] * (1 - np.float32(kind.tint))
        scar = looks.SCAR
        if rng.random() < scar.chance:
            start = self._xy[rng.choice(skin_ids)]
            line = np.cumsum(np.vstack([start, rng.normal(0, scar.step, (3, 2))]), axis=0)
            distance, _ = _polyline_distance(self._xy, line)
            tint = np.float32(scar.pale if rng.random() < scar.pale_chance else scar.dark)
            albedo *= 1 + (np.exp(-(distance / scar.width) ** 2) * self._skin * scar.cover)[:, None] * (tint - 1)

    def _lips(self, albedo, rng, feminine):
        """Natural lips differ in redness and depth; some wear lipstick."""
        natural = np.float32(rng.uniform(*looks.LIPS.tint))
        albedo *= 1 + self._lip_mask[:, None] * (natural - 1)
        stick = looks.LIPSTICK
        if feminine and rng.random() < stick.chance:
            color = np.float32(stick.colors[rng.integers(len(stick.colors))]) + rng.normal(0, stick.spread, 3)
            _mix(albedo, slice(None), color, rng.uniform(*stick.cover) * self._lip_mask)

    def _lids(self, albedo, rng, feminine):
        """Lashes, eyeliner, eye shadow, dark rings under the eyes."""
        rings, lashes, eyeliner, shadow = looks.EYE_RINGS, looks.LASHES, looks.EYELINER, looks.EYE_SHADOW
        lash, ring_depth = rng.uniform(*lashes.cover), rng.uniform(*rings.depth)
        liner = rng.uniform(*eyeliner.cover) if feminine and rng.random() < eyeliner.chance else 0.0
        cover = rng.uniform(*shadow.cover) if feminine and rng.random() < shadow.chance else 0.0
        color = np.float32(shadow.colors[rng.integers(len(shadow.colors))])
        reach = rng.uniform(*shadow.reach)
        for ids, distance, height in self._lid_fields:
            upper, lower = _step(-0.01, 0.03, height), _step(0.0, -0.04, height)
            _mix(albedo, ids, color, cover * upper * np.exp(-(distance / reach) ** 2))
            ring = np.exp(-((distance - rings.distance) / rings.width) ** 2)
            albedo[ids] *= 1 - (ring_depth * lower * ring)[:, None]
            line = np.maximum(lash * upper, liner * (upper + eyeliner.lower * lower))
            _mix(albedo, ids, np.float32(lashes.color), line * np.exp(-(distance / lashes.width) ** 2))

    def _beard(self, albedo, hair, rng):
        """Shaven shadow, stubble or a short beard. Returns the beard's fullness in 0..1."""
        beard = looks.BEARD
        kind = rng.random()
        if kind < beard.none:
            return 0.0
        has_stubble = kind < beard.none + beard.stubble_chance
        fullness = rng.uniform(*beard.stubble) if has_stubble else rng.uniform(*beard.beard)
        style = rng.random()
        mask, whole = self._beard_mask, beard.moustache_chance + beard.goatee_chance
        if style < beard.moustache_chance:
            mask = self._moustache
        elif style < whole:
            mask = np.maximum(self._chin_mask, self._moustache)
        mean, deviation, noise = beard.grain
        grain = np.clip(mean + deviation * rng.normal(size=len(mask)).astype(np.float32)
                        + noise * self._field(rng, 2), *beard.grain_limits)
        color = hair * beard.darkness
        if has_stubble:
            color = beard.stubble_hair * hair + (1 - beard.stubble_hair) * np.float32(beard.stubble_color)
        least, more = beard.cover
        _mix(albedo, slice(None), color, np.minimum(mask * grain * (least + more * fullness), beard.greatest_cover))
        return float(fullness) if style >= whole else 0.0

    def _brows(self, albedo, hair, rng):
        """Brows of hair-like strokes, steep near the nose and flatter outwards."""
        brows = looks.BROWS
        thickness, lift = rng.uniform(*brows.thickness), rng.normal(*brows.lift)
        density, arch = rng.uniform(*brows.density), rng.normal(*brows.arch)
        gap, tail = rng.uniform(*brows.gap), rng.uniform(*brows.tail)
        color = hair * rng.uniform(*brows.brightness)
        hairs = rng.random(brows.strokes).astype(np.float32)
        for ids, along, height, beyond in self._brow_fields:
            middle = lift + arch * np.sin(np.pi * along) + rng.normal(0, brows.uneven)
            offset = height - middle
            width = thickness * np.clip(brows.taper[0] - brows.taper[1] * along, brows.least_width, 1.0)
            body = _step(1.25, 0.45, np.abs(offset) / width)
            ends = _step(-0.03, 0.01, beyond + np.where(along < 0.5, -gap, -tail))
            place = (along * brows.along + offset * (1 - along) * brows.across) % brows.strokes
            strokes = np.interp(place, np.arange(brows.strokes), hairs)
            least, more = brows.stroke_cover
            cover = body * ends * np.clip(density * (least + more * strokes), 0, brows.greatest_cover)
            _mix(albedo, ids, color, cover)

    def _eyes(self, albedo, rng):
        """White, iris and pupil with a random gaze and colour (leaves some portraits' eyes as they are)."""
        eyes = looks.EYES
        if rng.random() < eyes.kept_chance:
            return
        gaze = rng.normal(0, eyes.gaze)
        iris_radius, pupil_radius = rng.uniform(*eyes.iris), rng.uniform(*eyes.pupil)
        white = np.float32(eyes.white) * rng.uniform(*eyes.white_brightness) + rng.normal(0, eyes.white_spread, 3)
        iris = np.float32(eyes.colors[rng.integers(len(eyes.colors))]) * rng.uniform(*eyes.iris_brightness)
        for ids, center in zip(self._eye_ids, self._eye_centers):
            if not ids.size:
                continue
            distance = np.linalg.norm(self._xy[ids] - center - gaze, axis=1)
            shade = 1 - eyes.lid_shadow * _step(0.0, eyes.lid_shadow_reach, self._xy[ids, 1] - center[1])
            color = np.repeat(white[None], ids.size, axis=0)
            limbus = 1 - eyes.limbus * _step(0.6 * iris_radius, iris_radius, distance)
            color += _step(iris_radius + 0.01, iris_radius - eyes.edge, distance)[:, None] * (
                iris * limbus[:, None] - color)
            color += _step(pupil_radius + eyes.edge, pupil_radius - eyes.edge, distance)[:, None] * (
                eyes.pupil_level - color)
            albedo[ids] = color * shade[:, None]


# -------------------------------------------------------------------- geometry of masks
def _mix(albedo, ids, color, cover):
    """Moves the albedo of these vertices towards a colour by ``cover`` in [0, 1]."""
    albedo[ids] += np.minimum(cover, 1.0)[:, None].astype(np.float32) * (color - albedo[ids])


def _step(zero, one, value):
    """Smooth step: 0 at ``zero``, 1 at ``one`` (either may be the larger)."""
    ramp = np.clip((value - zero) / (one - zero), 0.0, 1.0)
    return ramp * ramp * (3 - 2 * ramp)


def _polyline_distance(points, line):
    """Distance (N,) of points (N, 2) to a polyline (M, 2), and the place along it in [0, 1]."""
    start, step = line[:-1], np.diff(line, axis=0)
    lengths = np.maximum((step ** 2).sum(axis=1), 1e-12)
    place = np.clip(((points[:, None] - start) * step).sum(axis=2) / lengths, 0, 1)
    distance = np.linalg.norm(points[:, None] - start - place[..., None] * step, axis=2)
    nearest = distance.argmin(axis=1)
    rows = np.arange(len(points))
    before = np.concatenate([[0.0], np.cumsum(np.sqrt(lengths))])
    along = (before[nearest] + place[rows, nearest] * np.sqrt(lengths)[nearest]) / before[-1]
    return distance[rows, nearest].astype(np.float32), along.astype(np.float32)


def _signed_distance(points, polygon):
    """Distance to a polygon's outline, negative inside."""
    distance, _ = _polyline_distance(points, np.vstack([polygon, polygon[:1]]))
    return np.where(points_in_poly(points, polygon), -distance, distance)


def _noise_fields(points, rng):
    """Smooth random fields over the face: a list of (K, N) float32 arrays, coarse to fine."""
    low = points.min(axis=0)
    levels = []
    for cell in _NOISE_CELLS:
        place = ((points - low) / cell + 1).T
        shape = tuple(np.ceil(place.max(axis=1)).astype(int) + 3)
        fields = []
        for _ in range(_NOISE_FIELDS // len(_NOISE_CELLS)):
            knots = rng.normal(size=shape).astype(np.float32)
            field = scipy.ndimage.map_coordinates(knots, place, order=1, mode="nearest")
            fields.append((field - field.mean()) / max(field.std(), 1e-6))
        levels.append(np.stack(fields).astype(np.float32))
    return levels
