"""Fitting of a morphable model's coefficients to photos; and losses of a coarse face against its photo.

The fit is least squares: Levenberg-Marquardt on landmarks (``landmark_fitting``), whose result and its precision,
joined with what the regressor says and how far that is usually off, are the prior of Gauss-Newton on colours
(``photometric_fitting``). The losses train a regressor on photos.

The loss terms, and the weights of photo, landmarks, identity and expression, are those of Deng et al.
2019 ("Accurate 3D Face Reconstruction with Weakly-Supervised Learning"); the weights of albedo and
light, and of jaw points, are ours.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from facegcn import files
from facegcn.landmark_fitting import POSE_SIZE, LandmarkFit, LandmarkFitter, parameter_columns
from facegcn.landmarks import DENSE_COUNT, FIVE_POINT_LANDMARKS, LANDMARK_COUNT, TARGET_COUNT
from facegcn.lighting import frontal_brightness, metered_exposure
from facegcn.photometric_fitting import PhotometricFitter
from facegcn.surface_points import dense_points, joined, target_points

PHOTO_WEIGHT = 1.92
LANDMARK_WEIGHT = 1.6e-3  # a squared pixel of a 224-pixel crop
PRIOR_WEIGHT = 3e-4
PRIOR_PARTS = {"id": 1.0, "exp": 0.8, "tex": 0.1}
GREY_LIGHT_WEIGHT = 2.0
EXPOSURE_WEIGHT = 1.0
CROP_PIXELS = 224.0  # width of crop that landmark distances are counted in [paper]
DARKEST = 0.05  # skin or light below this is taken for this, so that a logarithm stays finite
PHOTOS_ARE_OTHER = 1.0  # factor of the covariance measured on made portraits; at 2 heads are worse from every side
_HELD = 1e8  # precision of what must not move


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


class CoefficientFit(NamedTuple):
    """Coefficients fitted to photos, and how well they explain them.

    Attributes:
        coefficients: (B, K) float32.
        landmark_residual: (B,) pixels of a 224 crop, mean distance of the trusted landmarks from the face's; NaN
            without any.
        unexplained: (B,) share of the seen skin, by area in the picture, whose colours the face does not explain.
        seen: (B,) share of the model's skin that the photo shows, by vertices.
    """

    coefficients: np.ndarray
    landmark_residual: np.ndarray
    unexplained: np.ndarray
    seen: np.ndarray


@dataclasses.dataclass(frozen=True)
class RegressorErrors:
    """How far a regressor's shapes and poses are from the truth: what its word is worth beside landmarks.

    Attributes:
        bias: (D,) mean of truth less regressed, unknowns as in ``landmark_fitting``.
        covariance: (D, D) of the same.

    Raises:
        ValueError: covariance is none of so many unknowns, or something is not finite.
    """

    bias: np.ndarray
    covariance: np.ndarray

    def __post_init__(self):
        size = len(self.bias)
        if self.covariance.shape != (size, size):
            raise ValueError(f"{size} unknowns need a covariance ({size}, {size}), got {self.covariance.shape}")
        if not (np.isfinite(self.bias).all() and np.isfinite(self.covariance).all()):
            raise ValueError("a regressor's errors are not finite")
        if np.linalg.eigvalsh(self.covariance.astype(np.float64)).min() <= 0:
            raise ValueError("the covariance of a regressor's errors is not positive definite")


class CoefficientFitter:
    """Fits a face to each photo: pose, expression and identity to its landmarks, then all to its colours as well.

    A photo's dense landmarks count, and 68 points that a user gave beside them; without dense ones the 68 or five.
    What the regressor says counts beside them as far as its errors allow. A photo without any, or with less than four,
    starts from the regressor's shape and pose, and keeps them where its errors are not known; albedo and light are
    fitted to it all the same.

    Args:
        morphable: the MorphableModel; without ``embedding`` dense landmarks are of no use.
        light: prior of the light, ``photometric_fitting.LightPrior``.
        errors: of the regressor whose coefficients photos start from; None = not known, landmarks alone count.
        details: prior of what albedos have beyond the basis, ``photometric_terms.DetailPrior``; None = nothing.

    Attributes:
        morphable, light: the same, the model with its ``embedding`` where it has one.
        digest: twelve hexadecimal digits that differ for fitters of other models or priors.
        colors: fits to colours what landmarks and the regressor left open.

    Raises:
        ValueError: the errors are of another model's unknowns.
    """

    def __init__(self, morphable, light, errors: RegressorErrors | None = None, details=None):
        self.morphable, self.light = morphable, light
        self._dense = morphable.embedding is not None
        targets = target_points(morphable)
        self._landmarks = LandmarkFitter(morphable, joined(dense_points(morphable), targets) if self._dense
                                         else targets)
        self.colors = PhotometricFitter(morphable, light, details)
        self._columns = parameter_columns(morphable)
        self._errors = errors
        if errors is not None:
            if len(errors.bias) != len(self._columns):
                raise ValueError(f"errors of {len(errors.bias)} unknowns, the model has {len(self._columns)}")
            # Files hold them in single precision, in which the inverse of a nearly singular one loses its digits.
            self._errors = RegressorErrors(errors.bias.astype(np.float64), errors.covariance.astype(np.float64))
            self._information, self._statement = _beyond(self._errors.covariance, self._landmarks.prior())
        self._skin = morphable.skin_index if morphable.skin_index.size else np.arange(morphable.vertex_count)
        embedding = vars(morphable.embedding).values() if self._dense else ()
        known = () if errors is None else (errors.bias, errors.covariance)
        beyond = () if details is None else (details.mean, details.modes)
        self.digest = files.digest(morphable.digest, *embedding, light.mean, light.precision, *known, *beyond)

    def __call__(self, rgba, coeff, targets, dense=None) -> CoefficientFit:
        """The fit of a batch; what a photo's fit is does not depend on the others.

        Args:
            rgba: (B, H, H, 4) photos, RGB in [-1, 1], skin alpha in [0, 1].
            coeff: (B, K) what the regressor says of them.
            targets: (B, 73, 2) landmark targets in pixels, NaN where unknown (``landmarks.landmark_targets``).
            dense: (B, 468, 3) dense landmarks, x and y in pixels and trust, 0 or NaN where unknown; or None.
        """
        rgba, coeff = np.asarray(rgba, np.float32), np.asarray(coeff, np.float32)
        # Photos are fitted side by side, one a core: more threads in each product would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            colors = self.colors.fit(rgba, self.before_colors(rgba.shape[1], coeff, targets, dense))
        fitted = np.where(np.isfinite(colors.coefficients).all(axis=1, keepdims=True), colors.coefficients, coeff)
        return CoefficientFit(fitted, colors.landmark_residual, colors.unexplained, self.skin_seen(colors.seen))

    def skin_seen(self, seen) -> np.ndarray:
        """Share (B,) of the model's skin among seen vertices (B, N) bool."""
        return np.asarray(seen)[:, self._skin].mean(axis=1)

    def before_colors(self, size, coeff, targets, dense=None) -> LandmarkFit:
        """What landmarks and the regressor say of photos, together.

        Args:
            size: width of the photos, pixels.
            coeff, targets, dense: as for a call.
        """
        points, trust = self._points(np.asarray(targets, np.float64), dense)
        return self._with_regressor(self._landmarks.fit(points, trust, size), coeff[:, self._columns])

    def _with_regressor(self, found, regressed):
        """A landmark fit joined with the regressor's word (B, D): the product of two normal distributions that share
        one prior, the regressor's information divided by ``PHOTOS_ARE_OTHER``.

        A regressor whose pose the landmarks contradict is trusted less, by the square of the contradiction in standard
        deviations. Where nothing was fitted (too few landmarks, or no face that fits them) the fit is the prior, and
        its word alone counts. A word that is not finite is not heard.
        """
        parameters, precision = found.parameters.copy(), found.precision.copy()
        without, heard = np.isnan(found.residual), np.isfinite(regressed).all(axis=1)
        if self._errors is None:
            kept = without & heard
            parameters[kept] = regressed[kept]
            precision[kept] += _HELD * np.eye(parameters.shape[1])
            return dataclasses.replace(found, parameters=parameters, precision=precision)
        word = regressed + self._errors.bias
        for b in np.flatnonzero(heard):
            share = 1.0 / PHOTOS_ARE_OTHER
            if not without[b]:
                share /= self._contradiction(parameters[b], precision[b], word[b])
            alone = precision[b] @ parameters[b]
            precision[b] += share * self._information
            parameters[b] = np.linalg.solve(precision[b], alone + share * (self._statement @ word[b]))
        return dataclasses.replace(found, parameters=parameters, precision=precision)

    def _contradiction(self, parameters, precision, word) -> float:
        """Mean square, in standard deviations, of the distance between the landmarks' pose and the regressor's; 1 at
        least."""
        pose = slice(-POSE_SIZE, None)
        expected = (PHOTOS_ARE_OTHER * self._errors.covariance + np.linalg.inv(precision))[pose, pose]
        apart = (parameters - word)[pose]
        return max(1.0, float(apart @ np.linalg.solve(expected, apart)) / POSE_SIZE)

    def _points(self, targets, dense):
        """Points (B, L, 2) of one kind for all photos, and the trust (B, L) in each."""
        trust = np.isfinite(targets).all(axis=-1).astype(np.float64)
        if not self._dense:
            return targets, trust
        if dense is None:
            dense = np.zeros((len(targets), DENSE_COUNT, 3))
        dense = np.asarray(dense, np.float64)
        dense_trust = np.where(np.isfinite(dense).all(axis=-1), dense[..., 2], 0.0)
        # The five points are made of the dense ones: they would count twice.
        trust[:, LANDMARK_COUNT:] *= ~(dense_trust > 0).any(axis=1, keepdims=True)
        return np.concatenate([dense[..., :2], targets], axis=1), np.concatenate([dense_trust, trust], axis=1)


def _beyond(covariance, prior):
    """What a normal distribution of this covariance (D, D) knows beyond a prior with the precision prior (D,): a
    precision (D, D), and the matrix (D, D) that makes of its mean that precision times the observation that it amounts
    to. Nothing in directions in which it is wider than the prior."""
    root = np.sqrt(prior)
    lengths, axes = np.linalg.eigh(np.linalg.inv(covariance) / np.outer(root, root))
    known = lengths > 1.0
    axes, lengths = root[:, None] * axes[:, known], lengths[known]
    return (axes * (lengths - 1.0)) @ axes.T, (axes * lengths) @ axes.T
