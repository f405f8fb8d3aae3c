"""Albedo of the procedural face: skin tones, lips, eyes, low brows, as 8-bit sRGB.

Skin follows the two-pigment view of N. Tsumura et al., "Image-based skin color and texture
analysis/synthesis by extracting hemoglobin and melanin information in the skin" (SIGGRAPH 2003):
the logarithm of the reflectance falls linearly with melanin and haemoglobin. The melanin slopes
grow to the blue as its absorption does, wavelength^-3.33 (S. Jacques, "Optical properties of
biological tissues", Phys. Med. Biol. 58, 2013), damped because scattering mixes depths. The range
of melanin covers the Monk Skin Tone scale (E. Monk, 2019), from its lightest to its darkest.

Amounts of pigment, and places, widths and colours of brows, lips, eyes and beard shadow, were chosen by eye on preview
sheets. Lengths are millimetres, colours levels.
"""

from __future__ import annotations

import numpy as np

from facegcn.demo import parts, surface

SURFACE = 0.022  # linear reflectance that no pigment darkens
BARE = np.array([0.70, 0.535, 0.43])  # further linear reflectance without pigments
MELANIN = np.array([1.0, 1.5, 2.05])
HAEMOGLOBIN = np.array([0.12, 1.0, 0.78])

IRISES = np.array([[42, 25, 16], [74, 46, 28], [92, 62, 36], [112, 86, 48], [88, 104, 70], [82, 112, 140],
                   [112, 134, 152]], float)  # dark brown, brown, light brown, hazel, green, blue, grey
HAIR = np.array([[22, 17, 15], [40, 28, 22], [66, 44, 30], [112, 82, 52], [120, 112, 106]], float)


class Painter:
    """Masks of a template's regions, and random paint on them."""

    def __init__(self, template):
        """Precomputes the masks of ``template`` (``demo.mesh.Template``)."""
        self.template = template
        self.x, self.y = surface.feature_coordinates(*template.st.T)
        self.signed = np.where(template.st[:, 0] < 0, -1.0, 1.0) * self.x
        self.signed_one = np.sign(template.points[:, 0])
        x, y = self.x, self.y

        def b(*args):
            return surface.bump(x, y, *args)

        part, depth = template.part, template.depth
        line = surface.mouth_line(x)
        red = (y < surface.upper_lip(x) + 0.15) & (y > surface.lower_lip(x) - 0.15) & (x < 26)
        rise = np.where(y > line, (y - line) / np.maximum(surface.upper_lip(x) - line, 1),
                        (line - y) / np.maximum(line - surface.lower_lip(x), 1))
        self.lips = red * (1 - 0.25 * np.clip(rise, 0, 1)) * (1 - surface.smooth_step(x, 21, 27))
        self.lips[part == parts.LIP] = 1.0
        self.mouth_gap = red * np.exp(-(rise / 0.10) ** 2)
        thickness = np.interp(x, [10, 15, 24, 36, 46, 51], [2.4, 3.2, 3.1, 2.5, 1.6, .8])
        spine = np.interp(x, [8, 13, 22, 31.5, 40.5, 50], [15.6, 16.8, 19.6, 21.6, 21.0, 16.0])
        self.brow = np.exp(-((y - spine) / thickness) ** 2) * surface.smooth_step(x, 8, 14) * (
            1 - surface.smooth_step(x, 44, 53))
        margin = np.where(y > 0, y - surface.upper_lid(x), surface.lower_lid(x) - y)
        beside = np.hypot(margin, np.clip(np.maximum(16 - x, x - 45.5), 0, None))
        self.lashes = np.where(y > -1.0, 1.0, 0.35) * np.exp(-(beside / 1.0) ** 2)
        self.lashes[(part == parts.LID) & (depth == 1)] *= 0.55
        self.lid_pink = np.exp(-(beside / 2.5) ** 2)
        self.flush = (0.9 * b(42, -33, 20, 17) + 0.8 * b(0, -38, 10, 9) + 0.6 * b(15, -42, 7, 8)
                      + 0.45 * b(0, -100, 15, 11) + 0.25 * b(0, 40, 40, 22))
        self.under_eye = b(27, -12, 12, 6, -12) + 0.5 * b(19, 0, 5, 9)
        self.upper_lid = b(31, 10, 16, 6)
        cheek = surface.smooth_step(-y - 0.55 * np.clip(x - 30, 0, None) + 0.35 * np.clip(x - 62, 0, None), 42, 80)
        self.beard = (0.9 * cheek * surface.smooth_step(np.hypot(x / 1.3, y + 70), 14, 30)
                      * (1 - surface.smooth_step(-y, 116, 140)) + 0.8 * b(0, -57, 20, 6) + 0.6 * b(0, -96, 22, 12))
        self.beard = np.clip(self.beard, 0, 1) * (1 - red)
        self.folds = b(0, -50, 12, 3) + surface.ridge(x, y, [(18.5, -38), (19, -44), (24, -51), (29, -60)], 2.2)

    def _pigments(self, rng, melanin):
        """Melanin and haemoglobin at every vertex of a random face."""
        strength = np.clip(1 + 0.35 * rng.normal(size=6), 0.2, 2.0)
        red = 0.20 + 0.07 * rng.normal() + 0.17 * strength[0] * self.flush
        red = red + 0.22 * strength[1] * self.lid_pink + 0.10 * strength[2] * self.under_eye
        red = red + 0.80 * np.clip(1 + 0.3 * rng.normal(), 0.3, 1.8) * self.lips + 0.12 * self.folds
        brown = melanin * (1 + 0.10 * strength[3] * self.under_eye + 0.10 * strength[4] * self.upper_lid
                           + 0.06 * self.folds + 0.06 * strength[5] * surface.bump(self.x, self.y, 0, 60, 70, 25))
        brown = brown + 0.10 * strength[4] * self.under_eye + 0.06 * self.lips
        for _ in range(10):
            cx, cy, radius = rng.uniform(-70, 70), rng.uniform(-115, 80), rng.uniform(10, 30)
            spot = np.exp(-((self.signed - cx) ** 2 + (self.y - cy) ** 2) / radius ** 2)
            red = red + 0.07 * rng.normal() * spot
            brown = brown + (0.03 + 0.04 * melanin) * rng.normal() * spot
        return np.clip(brown, 0, None), np.clip(red, 0, None)

    def paint(self, rng) -> np.ndarray:
        """Albedo of a random face: (N, 3), RGB in [0, 255]."""
        melanin = 0.05 + 2.0 * rng.uniform(0.0, 1.0) ** 1.9
        brown, red = self._pigments(rng, melanin)
        reflectance = SURFACE + BARE * np.exp(-np.outer(brown, MELANIN) - np.outer(red, HAEMOGLOBIN))
        color = to_srgb(reflectance)
        dark = rng.random() < 0.25 + 0.35 * melanin
        hair = HAIR[rng.integers(0, 2) if dark else rng.integers(0, len(HAIR))]
        # A red tint must not outshine dark skin, so hair is never lighter than the skin around.
        hair = np.minimum(hair, color[self.template.part == parts.SKIN].mean(axis=0) * 0.75)
        shadow = max(0.0, rng.normal(0.0, 0.16))
        for mask, target, amount in ((self.brow, hair, np.clip(rng.normal(0.62, 0.12), 0.3, 0.85)),
                                     (self.beard, 0.6 * hair + 22, shadow), (self.lashes, 0.6 * hair, 0.75)):
            color += (amount * mask)[:, None] * (target - color)
        color *= 1 - 0.45 * self.mouth_gap[:, None]
        self._paint_parts(color, rng, melanin)
        return np.clip(color, 0, 255)

    def _paint_parts(self, color, rng, melanin):
        """Eyes, lids' edges, inner lips, nostrils, teeth; changes ``color``."""
        part, depth = self.template.part, self.template.depth
        eye = part == parts.EYE
        blue = rng.random() > 0.15 + 0.9 * melanin
        iris = IRISES[rng.integers(0, len(IRISES)) if blue else rng.integers(0, 3)] * rng.uniform(0.9, 1.1)
        color[eye] = self._eye_colors(depth[eye], self.x[eye], self.y[eye], iris, rng)
        edge = (part == parts.LID) & (depth == 1)
        color[edge] = 0.5 * color[edge] + 0.5 * np.array([150, 88, 80])
        color[(part == parts.LID) & (depth == 2)] = (120, 60, 55)
        pit = part == parts.NOSTRIL
        color[pit] *= np.interp(depth[pit], [1, 2, 4], [0.62, 0.38, 0.2])[:, None]
        inner = part == parts.LIP
        color[inner] *= np.interp(depth[inner], [1, 2, 3], [0.8, 0.5, 0.22])[:, None]
        bag = part == parts.MOUTH
        row = depth[bag].astype(int)
        gum, tooth, dark = np.array([[140, 72, 72], [196, 184, 164], [34, 13, 13]]) * rng.uniform(0.92, 1.05)
        rows = np.array([gum, gum, tooth, tooth, 0.8 * tooth, dark, dark, dark, 0.8 * tooth, tooth, gum, gum])
        # The corners of the mouth lie in the cheeks' shadow.
        shade = np.interp(self.template.points[bag][:, 0] * self.signed_one[bag], [10, 24], [1.0, 0.25])
        color[bag] = rows[row] * shade[:, None]

    def _eye_colors(self, radius, x, y, iris, rng):
        """Pupil, iris with a dark rim, shaded sclera, pink inner corner."""
        sclera = np.array([226.0, 219, 213]) + rng.normal(0, 3)
        ring = np.interp(radius, [parts.PUPIL, 3.0, 4.8, parts.IRIS], [0.85, 1.15, 1.0, 0.55])
        color = np.where((radius < parts.IRIS)[:, None], iris * ring[:, None], sclera)
        color = np.where((radius < parts.PUPIL)[:, None], np.array([12.0, 10, 10]), color)
        shade = surface.smooth_step(radius, 10, 17)
        color = color * (1 - 0.12 * shade[:, None] * np.array([0.4, 1, 1]))
        color = color * (1 - 0.4 * surface.smooth_step(y, 0.5, 6.0))[:, None]  # the upper lid's shadow
        corner = np.exp(-((x - surface.INNER_CANTHUS) / 2.6) ** 2)[:, None]
        return color + 0.75 * corner * (np.array([176.0, 108, 100]) - color)


def to_srgb(linear):
    """Linear reflectance in [0, 1] -> 8-bit sRGB levels (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
