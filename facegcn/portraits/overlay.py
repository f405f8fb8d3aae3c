"""What is drawn over a made portrait, and what the camera does to it.

Glasses, loose hair and other things in front of the face get alpha 0; the camera's blur, noise,
colour and compression change the colours only. Pictures are float32 RGB in [0, 1], lengths pixels.
"""

from __future__ import annotations

import functools

import cv2
import numba
import numpy as np

from facegcn.portraits import formation, looks

SHIFT = 4  # cv2 draws at places of 1/16 pixel
_FAINT = 12  # of 255: coverage by a drawn thing that still leaves alpha as it is


class Overlay:
    """A picture in which the drawn things also clear alpha."""

    def __init__(self, image: np.ndarray, alpha: np.ndarray):
        """Args: image (H, W, 3) float32, changed in place; alpha (H, W) uint8, changed in place."""
        self.image, self.alpha = image, alpha

    def lines(self, curves, color, thickness: float = 1.0, opacity: float = 1.0) -> None:
        """Draws curves, each (M, 2) float pixels."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        points = [np.round((c - 0.5) * (1 << SHIFT)).astype(np.int32) for c in curves]
        cv2.polylines(mask, points, False, 255, max(int(round(thickness)), 1), cv2.LINE_AA, SHIFT)
        self.blend(mask, color, opacity)

    def fill(self, outline, color, opacity: float = 1.0, soft: float = 0.0, behind=None) -> None:
        """Fills an outline (M, 2) float pixels, except where ``behind`` (H, W) is positive."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [np.round((outline - 0.5) * (1 << SHIFT)).astype(np.int32)], 255,
                     cv2.LINE_AA, SHIFT)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        if behind is not None:
            mask[behind > 0] = 0
        self.blend(mask, color, opacity)

    def blend(self, mask, color, opacity: float) -> None:
        """Mixes a colour (3,) or picture (H, W, 3) in where mask (H, W) uint8 is set; clears alpha."""
        color = np.ascontiguousarray(color, np.float32)
        _blend(self.image, self.alpha, mask, color.reshape((1, 1, 3)) if color.ndim == 1 else color,
               np.float32(opacity))


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _blend(image, alpha, mask, color, opacity):
    """``Overlay.blend`` in place; color is (H, W, 3) or (1, 1, 3)."""
    single = color.shape[0] == 1
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x] == 0:
                continue
            share = mask[y, x] * opacity / np.float32(255)
            for channel in range(3):
                target = color[0, 0, channel] if single else color[y, x, channel]
                image[y, x, channel] += share * (target - image[y, x, channel])
            if mask[y, x] > _FAINT:
                alpha[y, x] = 0


# -------------------------------------------------------------------- things in front of the face
def add_glasses(overlay: Overlay, marks, pose, rng) -> None:
    """Glasses on the nose: thin or thick frames, clear, mirrored or dark lenses.

    Args:
        overlay: the picture.
        marks: (68, 3) landmarks of the unposed face, decimetre.
        pose: function from unposed points (M, 3) to pixels (M, 2).
        rng: random generator.
    """
    span = np.linalg.norm(marks[45] - marks[36])
    kinds = looks.GLASSES
    half = np.array([rng.uniform(*kinds.half_width), rng.uniform(*kinds.half_height)]) * span
    power, drop = rng.uniform(*kinds.roundness), rng.uniform(*kinds.drop) * span
    front = max(marks[27, 2], marks[36:48, 2].max()) + rng.uniform(*kinds.ahead)
    dark = rng.random() < kinds.dark_chance
    grey = rng.random() < kinds.grey_chance
    frame = np.float32(np.full(3, rng.uniform(*kinds.grey)) if grey else rng.uniform(*kinds.color, 3))
    width = rng.uniform(*kinds.frame) * span * formation.to_pixels(
        np.float32([[0, 0, 0], [1, 0, 0]]), overlay.alpha.shape[1])[1, 0] / 2
    angles = np.linspace(0, 2 * np.pi, 40)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    ring = np.sign(circle) * np.abs(circle) ** (2 / power)  # a superellipse
    curves, lenses = [], []
    for side, eye in ((-1, marks[36:42]), (1, marks[42:48])):
        center = eye.mean(axis=0) + (0.06 * side * span, -drop, 0)
        x, y = center[0] + ring[0] * half[0] * (1 + 0.06 * ring[1]), center[1] + ring[1] * half[1]
        z = front - 0.35 * np.maximum(side * (x - center[0]), 0)
        outline = np.stack([x, y, z], axis=1)
        lenses.append(pose(np.float32(outline)))
        curves.append(lenses[-1])
        hinge = outline[np.argmax(side * outline[:, 0])]
        ear = np.array([marks[0 if side < 0 else 16, 0] * 1.03, center[1], marks[0, 2]])
        arm = pose(np.float32([hinge, 0.5 * (hinge + ear) + (0.05 * side, 0, 0), ear]))
        if side * (arm[2, 0] - arm[0, 0]) > 0:  # the arm on the far side is hidden by the head
            curves.append(arm)
    bridge = [lenses[0][0], pose(np.float32([[marks[27, 0], marks[27, 1] - drop, front + 0.05]]))[0],
              lenses[1][20]]
    curves.append(np.float32(bridge))
    tint = np.float32(kinds.tints[rng.integers(len(kinds.tints))])
    for lens in lenses:
        if dark:
            overlay.fill(lens, _reflection(overlay.image.shape[0], tint, rng), rng.uniform(*kinds.dark_cover))
        elif rng.random() < kinds.glare_chance:
            middle = lens.mean(axis=0)
            glare = middle + (lens - middle) * (rng.uniform(*kinds.glare_width), rng.uniform(*kinds.glare_height))
            overlay.fill(glare, np.ones(3), rng.uniform(*kinds.glare_cover), soft=1.5)
    overlay.lines(curves, frame, width, rng.uniform(*kinds.opacity))


def _reflection(size, tint, rng):
    """What a dark lens mirrors: a tinted low-resolution picture."""
    knots = tint + rng.normal(0, 0.25 * rng.random(), (5, 5, 1)) * (0.4 + tint)
    return np.clip(cv2.resize(np.float32(knots), (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def add_strands(overlay: Overlay, hair_mask, color, rng) -> None:
    """Loose strands that start inside the hair and leave it.

    Args:
        overlay: the picture.
        hair_mask: (H, W) float coverage by hair.
        color: (3,) lit hair colour.
        rng: random generator.
    """
    size = overlay.alpha.shape[0]
    mask = hair_mask[::2, ::2]
    inside = mask > 0.5
    edge = inside & (cv2.blur(mask, (7, 7)) < 0.85)
    strand = looks.STRAND
    sweep = rng.normal(0, strand.sweep)
    for kind in looks.STRANDS:
        rows, columns = np.nonzero(edge if kind.at_edge else inside)
        if not rows.size:
            continue
        count = rng.integers(strand.fewest, kind.most)
        pick = rng.integers(rows.size, size=count)
        start = np.stack([columns[pick], rows[pick]], axis=1)[:, None] * 2.0
        aside = (start[..., 0] / size - 0.5) * 1.2
        heading = np.pi / 2 - aside + sweep + rng.normal(0, strand.spread, (count, 1))
        heading = heading + np.linspace(0, 1, 6) * rng.normal(0, strand.bend, (count, 1))
        step = rng.uniform(*strand.length, (count, 1)) * kind.longest * size
        path = np.stack([np.cos(heading), np.sin(heading)], axis=-1).cumsum(axis=1)
        points = start + path * step[..., None]
        overlay.lines(points, np.clip(color * rng.uniform(*strand.brightness), 0, 1), 1, kind.opacity)


def add_beard(overlay: Overlay, roots, normals, length: float, colors, rng) -> None:
    """Beard hair: short strokes, out of the skin and downwards.

    Args:
        overlay: the picture.
        roots: (M, 3) where hair grows, world axes, decimetre.
        normals: (M, 3) the skin's unit normals there.
        length: of the hair, decimetre.
        colors: (M, 3) lit hair colours.
        rng: random generator.
    """
    beard = looks.BEARD_HAIR
    grow = normals * beard.out + np.float32((0, -beard.down, 0))
    grow = grow + rng.normal(0, beard.spread, roots.shape).astype(np.float32)
    size = overlay.alpha.shape[0]
    tips = formation.to_pixels(roots + np.float32(length) * grow, size)
    roots = formation.to_pixels(roots, size)
    shades = np.array_split(rng.permutation(len(roots)), len(beard.brightness))
    bend = (tips - roots)[:, ::-1] * rng.normal(0, beard.bend, (len(roots), 1)) * (1, -1)
    curves = np.stack([roots, (roots + tips) / 2 + bend, tips], axis=1)
    for pick, brightness in zip(shades, beard.brightness):
        if pick.size:
            overlay.lines(curves[pick], np.clip(colors[pick].mean(axis=0) * brightness, 0, 1), 1, beard.opacity)


def hair_texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Streaks (size, size) around 1, by which hair is multiplied."""
    streaks = _streak_bank()[rng.integers(4)]
    angle, zoom = rng.normal(0, 25), rng.uniform(0.7, 1.4) * 224 / size
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1.0)
    turn = np.vstack([turn, (0, 0, 1)]) @ np.diag((1 / zoom, 1 / zoom, 1))
    turn[:2, 2] += rng.uniform(-60, 60, 2)
    texture = cv2.warpAffine(streaks, turn[:2], (size, size), flags=cv2.INTER_LINEAR,
                             borderMode=cv2.BORDER_REFLECT)
    return 1 + rng.uniform(0.05, 0.3) * texture


@functools.lru_cache(maxsize=1)
def _streak_bank():
    """Four fields of noise (512, 512) drawn out along y, deviation 1."""
    rng = np.random.default_rng(7)
    bank = []
    for length in (9, 15, 25, 40):
        noise = cv2.GaussianBlur(rng.normal(size=(512, 512)).astype(np.float32), (0, 0), 0.7, sigmaY=length)
        bank.append(noise / noise.std())
    return bank


# -------------------------------------------------------------------- the camera
def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur, tone, noise and compression.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1].
        rng: random generator.

    Returns:
        (H, W, 3) uint8.
    """
    size, camera = image.shape[0], looks.CAMERA
    image = _focus(image, size, rng)
    if rng.random() < camera.balance_chance:
        image = image * np.float32(1 + rng.normal(0, camera.balance, 3))
    if rng.random() < camera.gamma_chance:
        image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, camera.gamma)))
    if rng.random() < camera.saturation_chance:
        grey = image @ np.float32((0.299, 0.587, 0.114))
        saturation = 0.0 if rng.random() < camera.grey_chance else rng.uniform(*camera.saturation)
        image = grey[..., None] + np.float32(saturation) * (image - grey[..., None])
    noise = _noise_bank()[rng.integers(4)]
    y, x = rng.integers(0, 160, 2)
    repeats = -(-(size + 160) // noise.shape[0])
    tile = np.tile(noise, (repeats, repeats, 1)) if repeats > 1 else noise
    image = image + np.float32(rng.gamma(*camera.noise)) * tile[y:y + size, x:x + size]
    picture = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < camera.jpeg_chance:
        quality = int(rng.uniform(*camera.jpeg))
        _, code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    return picture


def _focus(image, size, rng):
    """Soft, low-resolution or over-sharpened pictures."""
    camera = looks.CAMERA
    kind = rng.random()
    if kind < camera.soft_chance:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(*camera.soft) * size / 224)
    if kind < camera.soft_chance + camera.small_chance:
        small = int(size * rng.uniform(*camera.small))
        return cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if kind < camera.soft_chance + camera.small_chance + camera.sharp_chance:
        return image + rng.uniform(*camera.sharp) * (image - cv2.GaussianBlur(image, (0, 0), camera.sharp_radius))
    return image


@functools.lru_cache(maxsize=1)
def _noise_bank():
    """Four pictures of sensor noise (512, 512, 3), deviation about 1: grains that differ in size."""
    rng = np.random.default_rng(11)
    bank = []
    for grain in (0.0, 0.0, 0.6, 1.0):
        noise = rng.normal(size=(512, 512, 3)).astype(np.float32)
        noise = 0.7 * noise.mean(axis=2, keepdims=True) * np.sqrt(3) + 0.5 * noise
        if grain:
            noise = cv2.GaussianBlur(noise, (0, 0), grain)
        bank.append(noise / noise.std())
    return bank
