"""Random coefficients of a made portrait: identity, expression, albedo, pose, light, translation."""

from __future__ import annotations

import numpy as np

from facegcn import camera, lighting
from facegcn.landmarks import five_points
from facegcn.morphable import MorphableModel
from facegcn.portraits import formation, looks
from facegcn.portraits.expressions import ExpressionSampler

#: Pixels that one decimetre has in an aligned crop of 224 pixels (Deng et al. 2019).
ALIGNED_SCALE = 102.0
_ALIGNED_SIZE = 224.0
_LIMIT = 2.5  # standard deviations
_SPHERE_SAMPLES = 300


class CoefficientSampler:
    """Draws the coefficients of portraits of one morphable model."""

    def __init__(self, morphable: MorphableModel, expression_spread: float, albedo_spread: float):
        """Args: as for ``maker.PortraitMaker``."""
        self._sizes = morphable.part_sizes[:3]
        self._albedo_spread = albedo_spread
        self._expressions = ExpressionSampler(morphable, expression_spread)
        self._marks = (morphable.mean_shape - morphable.mean_shape.mean(axis=0))[morphable.landmarks]
        self._marks_id = morphable.id_basis[morphable.landmarks]
        self._marks_exp = morphable.exp_basis[morphable.landmarks]
        skin = morphable.skin_index if morphable.skin_index.size else np.arange(morphable.vertex_count)
        self._skin_mean = morphable.mean_albedo[skin].mean(axis=0)
        self._skin_basis = morphable.albedo_basis[skin].mean(axis=0)
        homogeneous = np.hstack([morphable.five_points, np.ones((5, 1), np.float32)])
        self._affine = np.linalg.pinv(homogeneous).astype(np.float32)
        place = np.arange(_SPHERE_SAMPLES) + 0.5  # a Fibonacci lattice spreads evenly over the sphere
        height, turn = 1 - 2 * place / _SPHERE_SAMPLES, np.pi * (1 + 5 ** 0.5) * place
        ring = np.sqrt(1 - height * height)
        sphere = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], axis=1)
        self._sphere = sphere.astype(np.float32)
        self._fit_light = np.linalg.pinv(formation.sh_basis(self._sphere)).astype(np.float32)

    def person(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Coefficients ``id`` and ``tex``, float32: what all pictures of a person share."""
        id_size, _, tex_size = self._sizes
        identity = np.clip(rng.normal(size=id_size), -_LIMIT, _LIMIT)
        tone = np.clip(rng.normal(size=tex_size) * self._albedo_spread, -_LIMIT, _LIMIT)
        for _ in range(12):
            if _is_human(self._skin_mean + self._skin_basis @ tone):
                break
            tone *= 0.8
        return {"id": identity.astype(np.float32), "tex": tone.astype(np.float32)}

    def angles(self, rng: np.random.Generator) -> np.ndarray:
        """Angles (3,) in radians of somebody who sits for a portrait, float32."""
        limits = np.array(looks.POSE.limits)
        wide = rng.random(3) < looks.POSE.wide_chance
        usual = np.clip(rng.normal(size=3) * looks.POSE.usual, -limits, limits)
        return np.radians(np.where(wide, rng.uniform(-limits, limits), usual)).astype(np.float32)

    @staticmethod
    def turned(angles: np.ndarray, first: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Angles (3,) with a yaw up to the side and not near that of another picture.

        Args:
            angles: (3,) radians, whose pitch and roll stay.
            first: (3,) radians of the other picture.
            rng: random generator.
        """
        side, apart, yaw = np.radians(looks.POSE.turned), np.radians(looks.POSE.apart), float(first[1])
        below, above = max(yaw - apart + side, 0.0), max(side - yaw - apart, 0.0)
        place = rng.uniform(0, below + above)
        yaw = place - side if place < below else yaw + apart + place - below
        return np.float32((angles[0], yaw, angles[2]))

    def picture(self, person: dict, angles: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """All coefficients by name, float32.

        Args:
            person: as ``person`` returns it.
            angles: (3,) radians.
            rng: random generator.
        """
        expression = self._expressions.draw(rng)
        # Metered on the skin's own tone: spots and beards do not make a photographer open the shutter longer.
        gamma = self.light((self._skin_mean + self._skin_basis @ person["tex"]).mean() / 255, rng)
        marks = self._marks + self._marks_id @ person["id"] + self._marks_exp @ expression
        translation = self.translation(marks @ formation.rotation_matrix(angles).T, rng)
        return {**person, "exp": expression, "angles": angles, "gamma": gamma, "translation": translation}

    def translation(self, marks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Translation (3,) that a five-point alignment and its error leave, decimetre.

        The alignment fits an affine camera to the five points of the mean face, as it does with
        photos (Deng et al. 2019); two rounds bring its scale and centre to those of an aligned crop.

        Args:
            marks: (68, 3) landmarks, rotated, not yet translated.
            rng: random generator.
        """
        five = five_points(marks)
        error = looks.ALIGNMENT
        scale = ALIGNED_SCALE * np.clip(1 + rng.normal(0, error.scale), *error.scale_limits)
        center = _ALIGNED_SIZE / 2 + np.clip(rng.normal(0, error.center, 2), -error.center_limit, error.center_limit)
        translation = np.zeros(3, np.float32)
        for _ in range(2):
            fit = self._affine @ formation.to_pixels(five + translation, _ALIGNED_SIZE)
            fitted = np.linalg.norm(fit[:3], axis=0).mean()
            depth = camera.CAMERA_DISTANCE - translation[2]
            translation[2] = camera.CAMERA_DISTANCE - depth * fitted / scale
            fit = self._affine @ formation.to_pixels(five + translation, _ALIGNED_SIZE)
            pixel = (camera.CAMERA_DISTANCE - translation[2]) * 2 * camera.TAN_HALF_FOV / _ALIGNED_SIZE
            translation[:2] += (center - fit[3]) * (pixel, -pixel)
        return translation

    def light(self, skin: float, rng: np.random.Generator) -> np.ndarray:
        """Lighting coefficients (27,): ambient light, a key light, fill lights; fitted on the sphere.

        Args:
            skin: mean skin albedo in [0, 1]; the exposure makes up for a little of it.
            rng: random generator.
        """
        kinds = looks.LIGHT
        ambient = rng.uniform(*kinds.ambient)
        sky = 1 + rng.uniform(*kinds.from_above) * self._sphere[:, 1]
        light = (ambient * sky)[:, None] * _light_color(rng)
        for azimuth, elevation, power in _lamps(rng):
            a, e = np.radians((azimuth, np.clip(elevation, *kinds.elevation_limits)))
            direction = np.float32((np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)))
            wrap = rng.uniform(*kinds.wrap)
            lit = np.maximum((self._sphere @ direction + wrap) / (1 + wrap), 0)
            light += (1 - ambient) * power * lit[:, None] * _light_color(rng)
        front = np.maximum(self._sphere[:, 2], 0)
        # Metered, as in a studio: a photo cannot tell bright light on dark skin from dim light on fair skin, so
        # the spread of the exposure bounds how well any method can recover the tone of the skin.
        exposure = lighting.metered_exposure(max(skin, 0.05)) * np.exp(rng.normal(0.0, kinds.exposure))
        exposure = np.clip(exposure, *kinds.exposure_limits)
        light *= exposure / (front @ light / front.sum()).mean()
        gamma = (self._fit_light @ light).T + rng.normal(0, kinds.harmonics, (3, lighting.HARMONICS))
        gamma[:, 0] -= lighting.AMBIENT_OFFSET
        return gamma.ravel().astype(np.float32)


def _lamps(rng):
    """Azimuth and elevation in degrees, and power, of the key light and up to two others."""
    kinds = looks.LIGHT
    lamps = [(rng.normal(*kinds.azimuth), rng.normal(*kinds.elevation), 1.0)]
    if rng.random() < kinds.side_chance:
        side = rng.choice([-1, 1]) * rng.uniform(*kinds.side_azimuth)
        lamps = [(side, rng.uniform(*kinds.side_elevation), kinds.side_power)]
    for _ in range(looks.choice(kinds.fills, rng)):
        lamps.append((rng.uniform(*kinds.fill_azimuth), rng.uniform(*kinds.fill_elevation),
                      rng.uniform(*kinds.fill_power)))
    return lamps


def _is_human(color):
    """Whether a mean skin colour (3,) in levels lies in the range of human skin."""
    red, green, blue = np.maximum(color, 1e-3)
    return 55 <= red <= 245 and 0.5 <= green / red <= 0.93 and 0.3 <= blue / green <= 1.02


def _light_color(rng):
    """Colour (3,) of a light, mean 1: white, warm or cool, now and then coloured."""
    warm = rng.normal(0, looks.LIGHT.warmth)
    color = np.array([1 + warm, 1 + rng.normal(0, looks.LIGHT.green), 1 - warm])
    if rng.random() < looks.LIGHT.colored_chance:
        color = color * rng.uniform(*looks.LIGHT.colored, 3)
    return np.float32(color / color.mean())
