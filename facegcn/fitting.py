"""Losses of a coarse face against its photo, and fitting of coefficients by gradient descent.

The loss terms, and the weights of photo, landmarks, identity and expression, are those of Deng et al.
2019 ("Accurate 3D Face Reconstruction with Weakly-Supervised Learning"); the weights of albedo and
light, and of jaw points, are ours.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from facegcn.landmarks import FIVE_POINT_LANDMARKS, LANDMARK_COUNT, TARGET_COUNT
from facegcn.lighting import frontal_brightness, metered_exposure
from facegcn.morphable import PART_SCALES

PHOTO_WEIGHT = 1.92
LANDMARK_WEIGHT = 1.6e-3  # a squared pixel of a 224-pixel crop
PRIOR_WEIGHT = 3e-4
PRIOR_PARTS = {"id": 1.0, "exp": 0.8, "tex": 0.1}
GREY_LIGHT_WEIGHT = 2.0
EXPOSURE_WEIGHT = 1.0
CROP_PIXELS = 224.0  # width of crop that landmark distances are counted in [paper]
FIT_PIXELS = 112  # fitting looks at the crop at about this width: as exact as 224, in a third of the time
DARKEST = 0.05  # skin or light below this is taken for this, so that a logarithm stays finite
OWN_LANDMARK_TRUST = 0.25  # of landmarks that are only where the regressor put them


def photo_losses(face_model, rgba, coeff, targets, trust=1.0) -> dict[str, tf.Tensor]:
    """Scalar loss terms of coefficients against photos, ``total`` weighted as in the module's head.

    Args:
        face_model: gives ``geometry``, ``render`` and ``morphable``.
        rgba: (B, H, W, 4) photos, RGB in [-1, 1], skin alpha in [0, 1].
        coeff: (B, K).
        targets: (B, 73, 2) pixels, NaN where unknown (``landmarks.landmark_targets``).
        trust: factor of each photo's landmark term (B,), or one for all.
    """
    geometry = face_model.geometry(coeff)
    lit = (geometry["coarse_texture"] * 0.5 + 0.5) * geometry["shading"]
    render = face_model.render(geometry["rasterization"], lit)
    terms = {"photo": photometric_distance(rgba, render),
             "landmark": (CROP_PIXELS / face_model.image_size) ** 2 * landmark_distance(
                 geometry["landmarks"], targets, face_model.image_size, trust),
             **coefficient_priors(face_model.morphable, coeff)}
    terms["total"] = (PHOTO_WEIGHT * terms["photo"] + LANDMARK_WEIGHT * terms["landmark"]
                      + PRIOR_WEIGHT * terms["prior"] + GREY_LIGHT_WEIGHT * terms["grey_light"]
                      + EXPOSURE_WEIGHT * terms["exposure"])
    return terms


def photometric_distance(rgba, render) -> tf.Tensor:
    """Mean Euclidean RGB distance, [0, 1] colours, over pixels that are skin and covered."""
    weight = rgba[..., 3] * tf.stop_gradient(render[..., 3])
    squared = tf.reduce_sum(tf.square((rgba[..., :3] - render[..., :3]) * 0.5), axis=-1)
    distance = tf.sqrt(squared + 1e-6)
    per_photo = tf.reduce_sum(distance * weight, axis=(1, 2)) / (tf.reduce_sum(weight, axis=(1, 2)) + 1.0)
    return tf.reduce_mean(per_photo)


def landmark_distance(projected, targets, size, trust=1.0) -> tf.Tensor:
    """Mean squared pixel distance of known targets; jaw points count a tenth: they slide.

    Args:
        projected: the model's 68 landmarks (B, 68, 2) in [-1, 1].
        targets: (B, 73, 2) pixels, NaN where unknown.
        size: image width, pixels.
        trust: factor of each photo (B,), or one for all.
    """
    pixels = projected * (size / 2.0) + size / 2.0
    five = tf.stack([tf.reduce_mean(tf.gather(pixels, group, axis=1), axis=1)
                     for group in FIVE_POINT_LANDMARKS], axis=1)
    known = tf.math.is_finite(targets)
    importance = np.ones((TARGET_COUNT, 1), np.float32)
    importance[:17] = 0.1
    weight = tf.cast(known, tf.float32) * importance
    difference = tf.concat([pixels, five], axis=1) - tf.where(known, targets, 0.0)
    squared = tf.reduce_sum(tf.square(difference) * weight, axis=(1, 2))
    return tf.reduce_mean(trust * 2.0 * squared / (tf.reduce_sum(weight, axis=(1, 2)) + 1e-6))


def coefficient_priors(morphable, coeff) -> dict[str, tf.Tensor]:
    """What is likely whatever the photo shows.

    Returns:
        ``prior``: weighted squared standard deviations; ``grey_light``: squared colour of the light;
        ``exposure``: squared logarithm of the light's brightness over the usual one. A photo shows
        the product of light and skin only, so without it how bright the skin is would be left to chance.
    """
    parts = morphable.split(coeff)
    prior = tf.add_n([weight * tf.reduce_mean(tf.reduce_sum(tf.square(getattr(parts, name)), axis=-1))
                      for name, weight in PRIOR_PARTS.items()])
    gamma = tf.reshape(parts.gamma, (-1, 3, 9))
    grey = tf.reduce_mean(gamma, axis=1, keepdims=True)
    light = tf.maximum(frontal_brightness(parts.gamma), DARKEST)
    exposure = light / metered_exposure(_skin_brightness(morphable, parts.tex))
    return {"prior": prior, "grey_light": tf.reduce_mean(tf.square(gamma - grey)),
            "exposure": tf.reduce_mean(tf.square(tf.math.log(exposure)))}


def _skin_brightness(morphable, tex):
    """Mean albedo (B,) of the skin in [0, 1], before clipping, of albedo coefficients (B, Ka)."""
    skin = morphable.skin_index if len(morphable.skin_index) else slice(None)
    mean = morphable.mean_albedo[skin].mean() / 255.0
    basis = morphable.albedo_basis[skin].mean(axis=(0, 1)) / 255.0
    return tf.maximum(mean + tf.reduce_sum(tex * basis, axis=-1), DARKEST)


class CoefficientFitter:
    """Improves coefficients on their photos by Adam on ``photo_losses``; compiled once, for any batch.

    A photo without known landmarks is held, lightly, to those of the coefficients it starts from, and
    keeps their albedo: what is fitted beside pose, shape and light takes up detail that belongs to the
    texture networks. The albedo still takes part in the descent, so that shape and light need not
    explain a skin that the start has wrong. On 64 made portraits that gave, against an albedo that is
    fixed from the start, landmarks off by 1.31 pixels instead of 1.49, light by 0.047 instead of 0.056
    and shape by 2.11 mm instead of 2.17, at a photo loss of 0.066 instead of 0.058 (0.105 before).

    Args:
        face_model: as for ``photo_losses``; also ``at_size``.
        steps: descent steps; the rate falls to zero along a cosine.
        learning_rate: in units of each part's typical size (``morphable.PART_SCALES``).
    """

    def __init__(self, face_model, steps: int, learning_rate: float = 0.05):
        self._steps, self._learning_rate = steps, learning_rate
        size, count = face_model.image_size, face_model.morphable.coefficient_count
        self._shrink = next(n for n in range(max(1, round(size / FIT_PIXELS)), 0, -1) if size % n == 0)
        self._face_model = face_model.at_size(size // self._shrink)
        sizes = face_model.morphable.part_sizes
        self._scale = np.repeat(np.fromiter(PART_SCALES.values(), np.float32), sizes)
        self._not_albedo = np.repeat(np.float32([1, 1, 0, 1, 1, 1]), sizes)
        self._descend = tf.function(self._descend, input_signature=[
            tf.TensorSpec((None, size, size, 4)), tf.TensorSpec((None, count)),
            tf.TensorSpec((None, TARGET_COUNT, 2))])

    def __call__(self, rgba, coeff, targets) -> np.ndarray:
        """(B, K) float32; a photo whose fit is not finite keeps its coefficients.

        Args:
            rgba, coeff, targets: as for ``photo_losses``.
        """
        fitted = self._descend(*(tf.convert_to_tensor(a, tf.float32) for a in (rgba, coeff, targets))).numpy()
        return np.where(np.isfinite(fitted).all(axis=1, keepdims=True), fitted, np.asarray(coeff, np.float32))

    def _descend(self, rgba, start, targets):
        rgba, (targets, trust, fitted) = self._shrunk(rgba), self._targets(start, targets / self._shrink)
        change, mean, square = tf.zeros_like(start), tf.zeros_like(start), tf.zeros_like(start)
        for i in tf.range(self._steps):
            with tf.GradientTape() as tape:
                tape.watch(change)
                # The sum over photos: each photo's own descent does not depend on its batch.
                total = photo_losses(self._face_model, rgba, start + change * self._scale, targets, trust)["total"]
                total *= tf.cast(tf.shape(rgba)[0], tf.float32)
            gradient = tape.gradient(total, change)
            done = tf.cast(i + 1, tf.float32)
            mean += (gradient - mean) * 0.1
            square += (tf.square(gradient) - square) * 0.01
            rate = self._learning_rate * 0.5 * (1.0 + tf.cos(np.pi * (done - 1.0) / self._steps))
            change -= rate * mean / (1.0 - 0.9 ** done) / (tf.sqrt(square / (1.0 - 0.99 ** done)) + 1e-8)
        return start + change * self._scale * fitted

    def _shrunk(self, rgba):
        """The photos at the fit's width; only pixels that are skin all over count as skin."""
        small = tf.nn.avg_pool2d(rgba, self._shrink, self._shrink, "VALID")
        return tf.concat([small[..., :3], tf.cast(small[..., 3:] > 0.999, tf.float32)], axis=-1)

    def _targets(self, start, targets):
        """Targets, completed for photos that have none; the trust in each photo's; 0 / 1 (B, K) what is kept."""
        none = tf.logical_not(tf.reduce_any(tf.math.is_finite(targets), axis=(1, 2)))
        half = self._face_model.image_size / 2.0
        own = self._face_model.geometry(start)["landmarks"] * half + half
        own = tf.concat([own, targets[:, LANDMARK_COUNT:]], axis=1)
        return (tf.where(none[:, None, None], own, targets), tf.where(none, OWN_LANDMARK_TRUST, 1.0),
                tf.where(none[:, None], self._not_albedo, 1.0))
