"""What surrounds the face in a made portrait: skull, ears, neck, clothes, hair, mouth, background.

The head's parts are coarse surfaces in the axes of the unposed face (decimetre), placed by its
68 landmarks, lit and drawn together with the face, so that hair and clothes cover it and are
covered by it as in a photo. They are not the face: alpha is 0 there. What differs between people is in ``looks``; the
fixed proportions, here, were judged by eye.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from facegcn.geometry import vertex_normals_numpy
from facegcn.portraits import looks

FACE, SKIN, CLOTH, HAIR, MOUTH = range(5)  # groups of triangles; ``resolve`` knows FACE as 0
_SHELL_ROWS, _SHELL_COLUMNS = 33, 81  # of hair, veils and caps


@dataclass
class Surface:
    """A piece of the scene.

    Attributes:
        vertices: (n, 3) decimetre, before the head's pose.
        normals: (n, 3) unit, outwards.
        colors: (n, 3) albedo in [0, 1].
        triangles: (m, 3) int32.
        group: one of FACE, SKIN, CLOTH, HAIR, MOUTH.
        push: decimetre it counts as farther from the camera than it is.
        follows_head: share of the head's rotation it follows.
        closed: its inside is never seen, so triangles that face away need not be drawn.
    """

    vertices: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    triangles: np.ndarray
    group: int
    push: float = 0.0
    follows_head: float = 1.0
    closed: bool = True


@dataclass
class Head:
    """Measures of one unposed face, decimetre: landmarks (68, 3), vertices above the eyes (C, 3)."""

    marks: np.ndarray
    crown: np.ndarray

    def __post_init__(self):
        marks = self.marks
        self.eyes = marks[36:48].mean(axis=0)
        self.chin = marks[8]
        self.height = self.eyes[1] - self.chin[1]  # eyes to chin, about half of the head
        self.width = max(np.ptp(marks[:17, 0]) / 2, 0.3)
        self.ear_z = (marks[0, 2] + marks[16, 2]) / 2
        depth = max(marks[27, 2] - self.ear_z, 0.2)
        self.center = np.array([(marks[0, 0] + marks[16, 0]) / 2, self.eyes[1] + 0.16 * self.height,
                                self.ear_z + 0.05 * depth], np.float32)
        self.radii = np.array([self.width * 1.02, 0.78 * self.height, 0.9 * depth], np.float32)
        self._reach_crown()
        self.back = 1.6 * self.radii[2]

    def _reach_crown(self):
        """Widens the skull to what the model has of it, so that hair lies outside."""
        if not len(self.crown):
            return
        offset = self.crown - self.center
        self.radii[1] = max(self.radii[1], 1.02 * offset[:, 1].max())
        down = np.arccos(np.clip(offset[:, 1] / self.radii[1], -0.9, 0.9))
        reach = np.hypot(offset[:, 0] / self.radii[0], np.maximum(offset[:, 2], 0) / self.radii[2])
        reach = np.percentile(reach / (np.sin(down) * _roundness(down)), 90)
        self.radii[[0, 2]] *= np.clip(reach, 0.95, 1.35)


def hair_color(rng: np.random.Generator) -> np.ndarray:
    """A natural hair colour (3,), RGB levels."""
    kinds = looks.HAIR
    pick = rng.choice(len(kinds.colors), p=np.array(kinds.weights) / sum(kinds.weights))
    color = np.float32(kinds.colors[pick]) * rng.uniform(*kinds.brightness) + rng.normal(0, kinds.spread, 3)
    return np.clip(color, *kinds.limits)


def head_surfaces(marks, crown, skin, hair, rng) -> list[Surface]:
    """Random skull, ears, mouth, neck with clothes, and hair or a head covering.

    Args:
        marks: (68, 3) landmarks of the unposed face, decimetre.
        crown: (C, 3) vertices above the eyes.
        skin: (3,) albedo of the forehead in [0, 1].
        hair: (3,) hair albedo in [0, 1].
        rng: random generator.
    """
    head = Head(marks, crown)
    tone = np.clip(skin * (1 + rng.normal(0, looks.HEAD.tone)) * (1 + rng.normal(0, looks.HEAD.tint, 3)), 0.02, 1)
    style = looks.choice(looks.STYLES, rng)
    surfaces = [_skull(head, tone, hair if style == "short" and rng.random() < looks.HEAD.scalp_chance else tone),
                _mouth(head, rng), _body(head, tone, style == "veil", rng)]
    if style in ("short", "none", "cap") or rng.random() < looks.HEAD.ears_chance:
        surfaces += _ears(head, tone, rng)
    if style != "none":
        surfaces.append(_hair(head, hair, style, rng))
    if style == "cap" and rng.random() < looks.HEAD.brim_chance:
        surfaces.append(_brim(surfaces[-1], rng))
    return surfaces


# -------------------------------------------------------------------- surfaces
def _skull(head, tone, top):
    """An ellipsoid behind the face; ``top`` is the colour of its upper back."""
    across, down = np.meshgrid(np.linspace(-np.pi, np.pi, 33), np.linspace(0.02, np.pi - 0.02, 17))
    shape = np.stack([np.sin(down) * np.sin(across), np.cos(down), np.sin(down) * np.cos(across)], axis=-1)
    vertices = shape * head.radii
    vertices[..., [0, 2]] *= _roundness(down)[..., None]
    vertices[..., 2] *= np.where(shape[..., 2] < 0, head.back / head.radii[2], 1.0)
    colors = np.where((shape[..., 2:] < 0.1) & (shape[..., 1:2] > 0), top, tone)
    skull = _grid(vertices + head.center, colors, SKIN, push=0.4)
    hidden = (shape[..., 1] < 0.2) & (shape[..., 2] > 0.4)  # always behind the face
    skull.triangles = skull.triangles[~hidden.ravel()[skull.triangles].all(axis=1)]
    return skull


def _roundness(down):
    """Factor by which a skull is wider than an ellipsoid at this angle from the crown."""
    return 1 + 0.22 * np.clip(np.cos(down), 0, 1) * np.sin(down)


def _ears(head, tone, rng):
    size = rng.uniform(*looks.EARS.size)
    radii = np.array(looks.EARS.radii, np.float32) * head.height / looks.EARS.usual_height * size
    across, down = np.meshgrid(np.linspace(-np.pi, np.pi, 17), np.linspace(0.02, np.pi - 0.02, 9))
    shape = np.stack([np.sin(down) * np.sin(across), np.cos(down), np.sin(down) * np.cos(across)], axis=-1)
    fold = 0.75 + 0.35 * np.clip(np.hypot(shape[..., 1], shape[..., 2]), 0, 1)[..., None]
    ears = []
    for side in (-1, 1):
        lean = shape * radii
        lean[..., 0] -= looks.EARS.lean * side * lean[..., 2]  # the back edge stands out
        place = np.array([head.center[0] + side * head.width * 1.02,
                          0.55 * head.eyes[1] + 0.45 * head.marks[33, 1], head.ear_z - 0.12])
        ears.append(_grid(lean + place, tone * looks.EARS.tint * fold, SKIN, push=0.06))
    return ears


def _mouth(head, rng):
    """Teeth and the dark inside of the mouth, seen through open lips."""
    inner = head.marks[60:68]
    middle = inner.mean(axis=0)
    half = 0.55 * np.ptp(inner[:, 0]) + 0.01
    x, y = np.meshgrid(np.linspace(-1, 1, 25), np.linspace(1, 0, 25))
    low, high = inner[:, 1].min() - 0.05, inner[:, 1].max() + 0.05
    vertices = np.stack([middle[0] + half * x, low + (high - low) * y,
                         middle[2] - 0.1 - 0.16 * x * x], axis=-1)
    scale = head.height / looks.EARS.usual_height
    upper = inner[1:4, 1].mean() - rng.uniform(*looks.MOUTH.upper_teeth) * scale  # lower edge of the upper teeth
    lower = inner[5:8, 1].mean() + rng.uniform(*looks.MOUTH.lower_teeth) * scale
    gaps = 0.86 + 0.14 * np.abs(np.cos(x * 11))
    teeth, dark = (np.float32(low) + rng.random() * np.subtract(high, low)
                   for low, high in (looks.MOUTH.tooth, looks.MOUTH.dark))
    white = ((vertices[..., 1] > upper) | (vertices[..., 1] < lower)) & (np.abs(x) < 0.95)
    colors = np.where(white[..., None], (gaps * (1 - 0.6 * x * x))[..., None] * teeth, dark)
    return _grid(vertices, colors, MOUTH, push=0.02)


def _body(head, tone, veil, rng):
    """Neck and shoulders in one turned surface; clothes below a V-shaped or round neckline."""
    top, bottom = head.chin[1] + 0.35 * head.height, head.chin[1] - 1.6
    rows = np.linspace(0, 1, 25)[:, None]
    around = np.linspace(-np.pi, np.pi, 41)[None]
    y = top + (bottom - top) * rows + 0 * around
    fall = head.chin[1] - rng.uniform(*looks.BODY.neck_length) - y  # below the base of the neck
    spread = np.clip(fall / 0.6, 0, 1) ** 0.6
    neck = head.width * rng.uniform(*looks.BODY.neck)
    half_width = neck + (rng.uniform(*looks.BODY.shoulders) - neck) * spread
    half_depth = neck * 0.95 + 0.25 * spread
    center_z = head.ear_z + 0.12 - 0.1 * rows
    vertices = np.stack([head.center[0] + half_width * np.sin(around), y,
                         center_z + half_depth * np.cos(around)], axis=-1)
    line = (head.chin[1] - rng.uniform(*looks.BODY.neckline)
            - rng.uniform(*looks.BODY.depth) * np.exp(-(around / looks.BODY.v_width) ** 2))
    cloth = _clothes(line - y, around, rng)
    chin_shadow = 1 - rng.uniform(*looks.BODY.chin_shadow) * np.exp(-((y - head.chin[1] + 0.05) / 0.3) ** 2)[..., None]
    colors = tone * (0.98, 0.95, 0.95) * chin_shadow
    colors = colors + _soft(line - y) * (cloth - colors)
    if veil:
        colors = np.broadcast_to(cloth, vertices.shape) * chin_shadow
    return _grid(vertices, colors, CLOTH, push=0.5, follows_head=rng.uniform(*looks.BODY.follows))


def _clothes(below, around, rng):
    """Colours (rows, columns, 3), or one for all, of clothes with a lining and perhaps a tie.

    Args:
        below: (rows, columns) how far each point is below the neckline, dm.
        around: (1, columns) angle from the front, radian.
    """
    body = looks.BODY
    colored = rng.random() < body.colored_chance
    cloth = np.float32(rng.uniform(*body.cloth, 3) if colored else rng.uniform(*body.grey_cloth))
    white = rng.random() < body.white_chance
    lining = np.float32(rng.uniform(*body.white_lining) if white else rng.uniform(0, 1, 3))
    if rng.random() < body.lining_chance:
        cloth = lining + _soft(below - rng.uniform(*body.lining)) * (cloth - lining)
    if rng.random() < body.tie_chance:
        tie = np.float32(rng.uniform(*body.tie, 3))
        cloth = cloth + _soft(below - 0.1) * _soft(body.tie_width - np.abs(around)) * (tie - cloth)
    return cloth


def _soft(distance):
    """A colour border 0.06 dm wide: 0 to 1 as the distance (...) goes through 0, with a last axis."""
    return np.clip(distance / 0.06 + 0.5, 0, 1)[..., None]


def _hair(head, hair, style, rng):
    """A shell around the skull whose lower edge is a random hairline; also veils and caps."""
    across = np.linspace(-np.pi, np.pi, _SHELL_COLUMNS)
    edge = _hairline(head, across, style, rng)
    center, radii = head.center, head.radii
    above = np.clip((edge - center[1]) / radii[1], -1, 1)
    last = np.where(edge > center[1], np.arccos(above), np.pi / 2 + (center[1] - edge) / radii[1])
    rows = np.linspace(0, 1, _SHELL_ROWS)[:, None] ** 0.8
    down = rows * last[None]
    dome = np.minimum(down, np.pi / 2)
    volume, rough = _volume(style, rng)
    row_knots, column_knots = rng.integers(*looks.SHELL.rows), rng.integers(*looks.SHELL.columns)
    waves = _smooth_noise(rng, rows.shape[0], across.size, row_knots, column_knots)
    thick = volume * (0.4 + 0.6 * np.sin(np.pi * np.clip(rows * 0.72, 0, 1))) + rough * waves
    grow = 1.04 + np.maximum(thick, 0.0)
    flare = 1 + rng.uniform(*looks.SHELL.flare) * np.maximum(down - np.pi / 2, 0)
    ring = np.sin(dome) * _roundness(dome) * grow * flare
    depth = np.where(np.cos(across) > 0, radii[2] * 1.1, head.back)
    vertices = np.stack([center[0] + radii[0] * ring * np.sin(across),
                         center[1] + radii[1] * (np.cos(dome) * grow - np.maximum(down - np.pi / 2, 0)),
                         center[2] + depth * ring * np.cos(across)], axis=-1)
    if style in ("veil", "cap"):
        colored = rng.random() < looks.SHELL.colored_chance
        base = np.float32(rng.uniform(*looks.SHELL.cloth, 3 if colored else None))
        folds = 1 + looks.SHELL.folds * waves
        return _grid(vertices, base * folds[..., None], CLOTH, closed=style == "cap")
    streaks = _smooth_noise(rng, rows.shape[0], across.size, 4, 40)
    roots = 1 - rng.uniform(*looks.SHELL.roots) * rows
    streaks = np.clip(1 + rng.uniform(*looks.SHELL.streaks) * streaks, *looks.SHELL.streak_limits)
    colors = hair * streaks[..., None] * roots[..., None]
    return _grid(vertices, colors, HAIR, closed=style == "short")


def _brim(cap, rng):
    """The brim of a cap: a sheet that leaves its lower edge forwards."""
    edge = cap.vertices.reshape(_SHELL_ROWS, _SHELL_COLUMNS, 3)[-1]
    turn = np.linspace(-np.pi, np.pi, _SHELL_COLUMNS)
    half = rng.uniform(*looks.HEAD.brim_width)
    front = np.abs(turn) < half
    reach = rng.uniform(*looks.HEAD.brim) * np.cos(turn[front] / half * np.pi / 2) ** 0.7
    drop = rng.uniform(*looks.HEAD.brim_drop)
    out = np.stack([0.5 * np.sin(turn[front]), np.full(reach.shape, -drop), np.ones(reach.shape)], axis=1)
    share = np.linspace(-0.06, 1, 7)[:, None, None]
    color = cap.colors.mean(axis=0) * rng.uniform(0.6, 1.1)
    return _grid(edge[front] + share * reach[:, None] * out, color, CLOTH, closed=False)


def _volume(style, rng):
    """How far the shell stands off the skull, and how rough it is, as shares of its radius."""
    if style in ("veil", "cap"):
        return rng.uniform(*looks.SHELL.covering), looks.SHELL.covering_rough
    volume = looks.SHELL.short if style == "short" else looks.SHELL.long
    return rng.uniform(*volume), rng.uniform(*looks.SHELL.rough)


def _hairline(head, across, style, rng):
    """Height y of the shell's lower edge for each angle (0 = front, +-pi = back)."""
    eyes, height, edge = head.eyes[1], head.height, looks.HAIRLINE
    covered = style in ("veil", "cap")
    kind = rng.random()
    front = eyes + height * rng.uniform(*(
        edge.fringe if kind < edge.fringe_chance else
        edge.usual if kind < 1 - edge.receding_chance else edge.receding))
    if covered:
        front = eyes + height * rng.uniform(*edge.covering)
    tilt, peak = rng.normal(0, edge.tilt) * height, rng.uniform(*edge.peak) * height
    opening = rng.uniform(*(edge.veil_opening if style == "veil" else edge.opening))
    left, right = opening + rng.normal(0, edge.uneven), opening + rng.normal(0, edge.uneven)
    place = np.abs(across) / np.where(across < 0, left, right)
    line = front + tilt * np.sin(across) + peak * np.cos(3 * across) * (place < 1)
    line = line - rng.uniform(*edge.droop) * height * np.clip(place, 0, 1) ** 2
    if style in ("long", "veil"):
        low = head.chin[1] - rng.uniform(*edge.long)
        ends = np.where(across < 0, low, low + rng.normal(0, edge.long_uneven) * height)
        line = np.where(place > 1, ends + (line - ends) * np.exp(-((place - 1) / 0.1) ** 2), line)
    else:
        burns = eyes - height * rng.uniform(*edge.sideburns)
        nape = head.chin[1] + height * rng.uniform(*edge.nape)
        angle = np.abs(across)
        line = np.where(place > 1, burns + (line - burns) * np.exp(-((place - 1) / 0.12) ** 2), line)
        line = np.where(angle > edge.ear_angle, eyes + edge.over_ear * height, line)
        line = np.where(angle > edge.nape_angle, nape, line)
    tufts = _smooth_noise(rng, 1, across.size, 1, rng.integers(*edge.tufts))[0]
    roughness = edge.covering_rough if covered else rng.uniform(*edge.rough)
    return (line + roughness * height * tufts).astype(np.float32)


def _grid(vertices, colors, group, **placing):
    """A surface from a grid of points (rows, columns, 3), rows downwards, columns to the right."""
    rows, columns = vertices.shape[:2]
    colors = np.clip(np.broadcast_to(colors, vertices.shape), 0, 1).reshape(-1, 3).astype(np.float32)
    vertices = np.ascontiguousarray(vertices.reshape(-1, 3), np.float32)
    triangles = _grid_triangles(rows, columns)
    return Surface(vertices, vertex_normals_numpy(vertices, triangles), colors, triangles, group, **placing)


@functools.lru_cache(maxsize=32)
def _grid_triangles(rows, columns):
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    return np.concatenate([np.stack([a, b, c], axis=-1).reshape(-1, 3),
                           np.stack([c, b, d], axis=-1).reshape(-1, 3)])


def _smooth_noise(rng, rows, columns, row_knots, column_knots):
    """Smooth noise (rows, columns), deviation about 1, equal at the left and right end."""
    knots = rng.normal(size=(max(int(row_knots), 1), int(column_knots))).astype(np.float32)
    knots[:, -1] = knots[:, 0]
    return cv2.resize(knots, (columns, rows), interpolation=cv2.INTER_CUBIC).reshape(rows, columns)


# -------------------------------------------------------------------- background
def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random background (size, size, 3) float32 in [0, 1]."""
    kind = looks.choice(looks.BACKGROUNDS, rng)
    blur = looks.choice(looks.BACKGROUND_BLURS, rng)
    shrink = 4 if blur >= 4 else 1  # what will be blurred needs few pixels
    small = max(size // shrink, 8)
    image = _backdrop(kind, small, rng)
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur * small / 224)
    if small != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(image, 0, 1)


def _backdrop(kind, size, rng):
    """A sharp background (size, size, 3) float32."""
    base = _color(rng)
    if kind == "plain":
        return np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    if kind == "gradient":
        return cv2.resize(np.stack([_color(rng) for _ in range(4)]).reshape(2, 2, 3), (size, size))
    if kind == "stripes":
        angle, wave = rng.uniform(0, np.pi), rng.uniform(0.03, 0.4) * 224 / size
        y, x = np.mgrid[:size, :size].astype(np.float32)
        share = 0.5 + 0.5 * np.clip(np.sin((x * np.cos(angle) + y * np.sin(angle)) * wave) * 3, -1, 1)
        return (base + share[..., None] * (_color(rng) - base)).astype(np.float32)
    if kind == "noise":
        return _octaves(size, rng, base)
    return _shapes(size, rng, base, kind == "scene")


def _color(rng):
    """A colour, seldom a strong one."""
    grey, kind = rng.uniform(0, 1), rng.random()
    strength = 0.12 if kind < 0.5 else 0.4 if kind < 0.8 else 0.9
    return np.float32(np.clip(grey + strength * rng.uniform(-0.6, 0.6, 3), 0, 1))


def _octaves(size, rng, base):
    """Noise of several scales around a colour."""
    image = np.broadcast_to(base, (size, size, 3)).astype(np.float32)
    colored = rng.random() < 0.6
    for knots in (3, 7, 17, 45):
        values = rng.normal(0, 0.2 * rng.random(), (knots, knots, 3 if colored else 1)).astype(np.float32)
        grey = values.mean(axis=2, keepdims=True)
        values = grey + rng.uniform(0, 0.7) * (values - grey)
        octave = cv2.resize(values, (size, size), interpolation=cv2.INTER_CUBIC)
        image = image + octave.reshape(size, size, -1)
    return image


def _shapes(size, rng, base, scene):
    """Overlapping shapes; a scene has a horizon, upright bars and some shapes only."""
    image = np.ascontiguousarray(np.broadcast_to(base, (size, size, 3)), np.float32)
    if scene:
        horizon = int(rng.uniform(0.2, 0.9) * size)
        image[horizon:] = _color(rng)
        for _ in range(rng.integers(0, 9)):
            x, width = rng.integers(0, size), rng.integers(2, max(size // 4, 3))
            top = rng.integers(0, size)
            cv2.rectangle(image, (int(x), int(top)), (int(x + width), size), _color(rng).tolist(), -1)
    for _ in range(rng.integers(2, 26)):
        center = tuple(int(v) for v in rng.integers(0, size, 2))
        axes = tuple(int(v) for v in rng.integers(2, max(size // 4, 3), 2))
        color = _color(rng).tolist()
        if rng.random() < 0.5:
            cv2.ellipse(image, center, axes, float(rng.uniform(0, 180)), 0, 360, color, -1, cv2.LINE_AA)
        else:
            corners = np.int32(np.array(center) + rng.normal(0, size / 7, (rng.integers(3, 6), 2)))
            cv2.fillPoly(image, [cv2.convexHull(corners)], color, cv2.LINE_AA)
    return image
