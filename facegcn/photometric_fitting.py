"""Identity, expression, pose, albedo and light from a photo's colours, after its landmarks: Gauss-Newton.

Landmarks say where a face's features are, within a few pixels, and nothing of its colour. Colours say the rest.
Minimised over the unknowns u of ``photometric_terms`` is

    sum_v w_v rho(|r_v| / noise) + (x - x_l)' P_l (x - x_l) + |tex|^2 + |d|^2 + 2 (gamma - g)' P_g (gamma - g)

with what was known of shape and pose before (x_l, P_l: the posterior of the landmark fit, joined with the regressor's
word), what albedos have beyond their basis (d) and the distribution of lights (g, P_g) as priors, so that each source
weighs as much as it knows. d keeps beards and brows from being taken for light or shape; the face that is found has
the albedo of the basis alone, the best one in the light that was found. rho is Geman and McClure's function
(iteratively reweighted least squares): glasses, hands and hair that the model cannot explain
lose their weight. Neighbouring residuals err alike, so all of them together count as ``EVIDENCE`` independent ones;
with more the fit believes shadows to be shape.

Sources: Blanz and Vetter 1999 (the joint fit and its priors); Geman and McClure 1985 (rho); Beaton and Tukey 1974 (the
biweight); Holland and Welsch 1977 (its constant). Letters: B photos, N vertices, S that take part, U unknowns,
K coefficients, H pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from facegcn import camera
from facegcn.backends.row_gathers import map_images
from facegcn.files import finite_as_float32
from facegcn.geometry import vertex_normals_numpy
from facegcn.landmark_fitting import POSE_SIZE, LandmarkFit, parameter_columns, rotation
from facegcn.photometric_terms import (
    LIGHT_SIZE,
    ColorTerms,
    DetailPrior,
    between_pixels,
    facing,
    harmonics,
    overexposed,
    to_pixels,
)
from facegcn.rasterizer import rasterize_numpy
from facegcn.sampling import DEPTH_TOLERANCE
from facegcn.surface_points import CROP_PIXELS

SIZE = int(CROP_PIXELS)  # photos are fitted at this width, whatever they come in
VERTICES = 1300  # that take part: twice as many brought nothing
BLURS = (2.0, 2.0, 1.0, 1.0, 1.0)  # pixels, standard deviation, by round: first features a little off are found, too
NOISE = 0.05  # of a colour, in [0, 1], standard deviation of a channel
OWN = 2.0  # of the photo's own standard deviations, likewise, where that is more
ROBUST = 3.0  # standard deviations at which a residual has a quarter of its weight: masks know most occluders
EVIDENCE = 600.0  # vertices' worth of independent residuals that a face in full view is
LIGHT_WEIGHT = 2.0  # of the light's prior: photos' lights are found better than with 1 or 4
COARSE_ROUNDS = 3  # of reweighting, for the albedo of the basis alone
_FULL_VIEW = 0.25  # mean of facing over those that take part where a face is seen in full; less of it is less evidence
DAMPING = 1e-3  # share of the Hessian's diagonal
_LEAST_FACING = 0.2  # cosine; flatter surfaces are smeared over a pixel
_LEAST_MASK, _BORDER = 0.6, 3  # share of skin around a pixel; ellipse, pixels, taken off the mask
_LEAST_SEEN = 30  # vertices, below which colours are not looked at
_BIWEIGHT = 4.685  # standard deviations from which on a vertex is not explained at all
_OUTLIER = 3.0  # standard deviations from which on a vertex counts as unexplained
_MEDIAN_LENGTH = 0.888  # median of |r| / sqrt(3) for a standard normal r of three channels: sqrt(chi2_3 median / 3)
_NEAR = 0.5  # decimetre
_DARKEST = 0.1  # shading below this is taken for this, so that noise is not blown up


@dataclass(frozen=True)
class LightPrior:
    """Distribution of the light of photographs.

    Attributes:
        mean: (27,) lighting coefficients, channel by channel.
        precision: (27, 27) inverse of their covariance.

    Raises:
        ValueError: the shapes are others, something is not finite, or the precision is none.
    """

    mean: np.ndarray
    precision: np.ndarray

    def __post_init__(self):
        if self.mean.shape != (LIGHT_SIZE,) or self.precision.shape != (LIGHT_SIZE, LIGHT_SIZE):
            raise ValueError(f"a light has {LIGHT_SIZE} coefficients, got a mean {self.mean.shape} and a precision "
                             f"{self.precision.shape}")
        if not (finite_as_float32(self.mean) and finite_as_float32(self.precision)):
            raise ValueError("a prior of lights is not finite")
        if not np.allclose(self.precision, self.precision.T, rtol=1e-3, atol=1e-3 * np.abs(self.precision).max()) \
                or np.linalg.eigvalsh(self.precision.astype(np.float64)).min() <= 0:
            raise ValueError("the precision of a prior of lights is not symmetric and positive definite")


@dataclass(frozen=True)
class PhotometricFit:
    """The most likely faces of B photos.

    Attributes:
        coefficients: (B, K) float32, as ``MorphableModel.split`` cuts them.
        fitted: (B,) bool; False where the photo has no colours to look at: then shape and pose are the landmark fit's,
            the albedo is the mean one, the light the prior's.
        landmark_residual: (B,) pixels, of the landmark fit (NaN where it had no landmarks).
        color_residual: (B,) robust standard deviation of what is left of a channel, in [0, 1]; NaN where not fitted.
        unexplained: (B,) share of the seen skin whose residual is beyond 3 robust standard deviations, by the area that
            it takes in the picture; 1 where not fitted.
        seen: (B, N) bool vertices that the photo shows inside its mask.
        explained: (B, N) float32 in [0, 1]: 1 where the face explains the colour, 0 beyond 4.7 robust standard
            deviations (Tukey's biweight), and where not seen.
    """

    coefficients: np.ndarray
    fitted: np.ndarray
    landmark_residual: np.ndarray
    color_residual: np.ndarray
    unexplained: np.ndarray
    seen: np.ndarray
    explained: np.ndarray


class PhotometricFitter:
    """Fits one model to photos; every photo by itself, so that none depends on its batch.

    Args:
        morphable: a ``MorphableModel``.
        light: the prior of the light.
        details: the prior of what albedos have beyond the model's basis; None = nothing.
        seed: of the choice of vertices.

    Attributes:
        unknowns: U.
        identity_size: the first so many are identity.
        split: cuts unknowns into parts, ``photometric_terms.ColorTerms.split``.
        shared: places among the unknowns of those that belong to the person, identity and albedo.
    """

    def __init__(self, morphable, light: LightPrior, details: DetailPrior | None = None, seed: int = 0):
        self._morphable, self._light = morphable, light
        count = morphable.vertex_count
        self._terms = ColorTerms(morphable, _participants(morphable, seed), SIZE, details)
        parts = morphable.split(np.arange(morphable.coefficient_count))
        self._columns = parameter_columns(morphable), parts.tex, parts.gamma
        self.unknowns, self.identity_size, self.split = self._terms.unknowns, len(parts.id), self._terms.split
        albedo = self._terms.shape_size + POSE_SIZE
        self.shared = np.r_[:self.identity_size, albedo:albedo + self._terms.albedo_size]
        self._skin = np.zeros(count, bool)
        self._skin[morphable.skin_index if morphable.skin_index.size else slice(None)] = True
        self._centered = morphable.mean_shape - morphable.mean_shape.mean(axis=0)
        self._basis = np.concatenate([morphable.id_basis, morphable.exp_basis], axis=2).reshape(3 * count, -1)
        self._albedo = morphable.mean_albedo / np.float32(255)
        self._albedo_basis = morphable.albedo_basis.reshape(3 * count, -1) / np.float32(255)

    def fit(self, rgba, landmark_fit: LandmarkFit) -> PhotometricFit:
        """The most likely faces.

        Args:
            rgba: (B, H, H, 4) RGB in [-1, 1], skin alpha in [0, 1]: aligned crops, in whose frame the landmarks were.
            landmark_fit: of the same photos; its parameters and precision are the prior.

        Raises:
            ValueError: rgba has another shape.
        """
        rgba = np.asarray(rgba, np.float32)
        batch = len(landmark_fit.parameters)
        if rgba.ndim != 4 or rgba.shape[0] != batch or rgba.shape[1] != rgba.shape[2] or rgba.shape[3] != 4:
            raise ValueError(f"rgba must have shape ({batch}, H, H, 4), got {rgba.shape}")
        count = self._morphable.vertex_count
        result = PhotometricFit(
            np.zeros((batch, self._morphable.coefficient_count), np.float32), np.zeros(batch, bool),
            np.array(landmark_fit.residual, np.float64), np.full(batch, np.nan), np.ones(batch),
            np.zeros((batch, count), bool), np.zeros((batch, count), np.float32))

        def fit_one(b):
            prior_mean, prior = self.prior(landmark_fit.parameters[b], landmark_fit.precision[b])
            layers = Layers(rgba[b])
            u = self.descend(layers, prior_mean, prior)
            if u is None:
                result.coefficients[b] = self.coefficients(prior_mean)
                return
            tex = self.coarse_albedo([(u, layers, 1.0)])
            result.fitted[b], result.coefficients[b] = True, self.coefficients(u, tex)
            (result.color_residual[b], result.unexplained[b], result.seen[b],
             result.explained[b]) = self.quality(u, layers, tex)

        map_images(fit_one, batch)
        return result

    def prior(self, parameters, precision):
        """Mean (U,) and precision (U, U) of all unknowns."""
        known, unknowns = len(parameters), self._terms.unknowns
        mean, whole = np.zeros(unknowns), np.eye(unknowns)
        mean[:known], mean[-LIGHT_SIZE:] = parameters, self._light.mean
        whole[:known, :known], whole[-LIGHT_SIZE:, -LIGHT_SIZE:] = precision, LIGHT_WEIGHT * self._light.precision
        return mean, whole

    def descend(self, layers, prior_mean, prior):
        """Unknowns (U,) after all rounds, or None where there are too few colours or numbers run wild."""
        u = prior_mean.copy()
        if not (layers.finite and np.isfinite(prior_mean).all() and np.isfinite(prior).all()):
            return None
        visible = self.visible(u)
        for blur in BLURS:
            found = self.equations(u, layers, blur, visible)
            if found is None:
                return None
            hessian, slope = found[0] + prior, found[1] + prior @ (u - prior_mean)
            hessian[np.diag_indices_from(hessian)] *= 1.0 + DAMPING
            try:
                u = u - np.linalg.solve(hessian, slope)
            except np.linalg.LinAlgError:
                return None
            if not self.possible(u):
                return None
        return u

    def coarse_albedo(self, photos):
        """The most likely albedo of the basis alone, in lights and at places that were found with its details.

        Args:
            photos: one or more of one person, one after the other: unknowns (U,), layers, weight.

        Returns:
            (Ka,) albedo coefficients; those among the first photo's unknowns where there are no details, or where all
            photos show too little.
        """
        terms, tex, seen = self._terms, None, []
        for u, layers, weight in photos:
            if tex is None:
                *_, own, _ = self.split(u)
                tex = own[:terms.basis_size].copy()
                if terms.details is None:
                    return tex
            place = terms.place(u)
            rows, sampled = self._sampled(place, layers, BLURS[-1], self.visible(u))
            if len(rows) >= _LEAST_SEEN:
                shading, colors = terms.errors(u, place, rows, sampled[:, :3])[-1], sampled[:, :3]
                seen.append((weight, place["facing"][rows], shading, colors, rows))
        for _ in range(COARSE_ROUNDS if seen else 0):
            matrix, vector = np.eye(len(tex)), np.zeros(len(tex))
            for share, towards, shading, colors, rows in seen:
                mean, basis = terms.coarse(rows)
                errors = (mean + basis @ tex.astype(np.float32)) * shading - colors
                known = ~overexposed(colors, errors)
                weights = share * np.repeat(_weights(errors * known, towards, len(terms.chosen)), 3) * known.ravel()
                lit = (basis * shading[..., None]).reshape(len(weights), -1)
                matrix += (lit.T * weights) @ lit
                vector += (lit.T * weights) @ (colors - mean * shading).ravel()
            tex = np.linalg.solve(matrix, vector)
        return tex

    def coefficients(self, u, tex=None):
        """Coefficients (K,) float32 of unknowns (U,): with albedo coefficients ``tex`` (Ka,), or their own."""
        known, (*_, own, _) = self._terms.shape_size + POSE_SIZE, self.split(u)
        found = np.zeros(self._morphable.coefficient_count, np.float32)
        parameters, albedo, light = self._columns
        found[parameters], found[light] = u[:known], u[-LIGHT_SIZE:]
        found[albedo] = own[:self._terms.basis_size] if tex is None else tex
        return found

    def equations(self, u, layers, blur, visible, beyond=None):
        """What the colours alone say around unknowns u.

        Args:
            u: (U,) unknowns.
            layers: of the photo.
            blur: pixels, standard deviation.
            visible: (S,) bool, see ``visible``.
            beyond: (S, 3) what the albedo has that basis and details lack, in [0, 1]; None = nothing.

        Returns:
            half the Hessian (U, U) and half the gradient (U,) of their term, float64; None where the photo shows too
            little of the face.
        """
        terms, place = self._terms, self._terms.place(u)
        rows, sampled = self._sampled(place, layers, blur, visible)
        if len(rows) < _LEAST_SEEN:
            return None
        errors, jacobian = terms.linearised(u, place, rows, sampled, beyond)
        weights = _weights(errors, place["facing"][rows], len(terms.chosen))
        root = np.sqrt(np.repeat(weights, 3))
        # Light is learnt from skin: eyes and teeth lie in shadows that no harmonics know.
        jacobian.reshape(len(rows), 3, -1)[~self._skin[terms.chosen[rows]], :, -LIGHT_SIZE:] = 0.0
        jacobian = jacobian.reshape(len(root), -1) * root[:, None]
        return (jacobian.T @ jacobian).astype(np.float64), ((errors.ravel() * root) @ jacobian).astype(np.float64)

    def _sampled(self, place, layers, blur, visible):
        """Which (R,) of the vertices that take part the photo shows, and its layers (R, 10) there."""
        rows = np.flatnonzero(visible & (place["facing"] > _LEAST_FACING))
        sampled = between_pixels(layers.blurred(blur), place["pixels"][rows])
        kept = sampled[:, -1] > _LEAST_MASK
        return rows[kept], sampled[kept]

    def beyond(self, u, layers, blur, visible):
        """What the albedo of the vertices that take part has, by this photo, that basis and details lack.

        Args:
            u, layers, blur, visible: as for ``equations``.

        Returns:
            (S, 3) difference, and (S,) weight in it: squared brightness of the light times the viewing angle's cosine
            and Geman and McClure's weight; 0 where not seen.
        """
        terms, place = self._terms, self._terms.place(u)
        rows, sampled = self._sampled(place, layers, blur, visible)
        errors, _, _, _, light = terms.errors(u, place, rows, sampled[:, :3])
        found, weights = np.zeros((len(terms.chosen), 3), np.float32), np.zeros(len(terms.chosen), np.float32)
        found[rows] = -errors / np.maximum(light, _DARKEST)
        weights[rows] = light.clip(0).mean(axis=1) ** 2 * place["facing"][rows] / (
            1 + (errors ** 2).mean(axis=1) / (ROBUST * NOISE) ** 2) ** 2
        return found, weights

    def visible(self, u):
        """Those (S,) bool of the vertices that take part which the camera sees of the face with unknowns u (U,)."""
        return self._visible(self._world(u))[self._terms.chosen]

    def possible(self, u) -> bool:
        """Whether unknowns (U,) are finite and the face is not at the camera."""
        return bool(np.isfinite(u).all() and u[self._terms.shape_size + POSE_SIZE - 1] <= camera.CAMERA_DISTANCE / 2)

    # ---------------------------------------------------------------- the whole face
    def _world(self, u):
        """World points (N, 3) of all vertices, float32."""
        shape, angles, translation, _, _ = self.split(u)
        moved = self._centered + (self._basis @ shape.astype(np.float32)).reshape(-1, 3)
        return moved @ rotation(angles)[0].astype(np.float32).T + translation.astype(np.float32)

    def _visible(self, world):
        """Vertices (N,) bool inside the picture with nothing in front of them."""
        triangles, depth = self._morphable.triangles, camera.CAMERA_DISTANCE - world[:, 2]
        pixels = to_pixels(world, SIZE / 2)
        clip = np.empty((len(world), 4), np.float32)
        clip[:, :2] = world[:, :2] / np.float32(camera.TAN_HALF_FOV)
        clip[:, 2] = ((camera.FAR + _NEAR) * depth - 2 * camera.FAR * _NEAR) / (camera.FAR - _NEAR)
        clip[:, 3] = depth
        ids, barycentrics, _ = rasterize_numpy(clip, triangles, SIZE, SIZE)
        inside = ((pixels >= 0) & (pixels < SIZE)).all(axis=1)
        column, row = np.clip(pixels, 0, SIZE - 1).astype(np.int64).T
        drawn = ids[row, column]
        surface = np.einsum("nc,nc->n", barycentrics[row, column], world[:, 2][triangles[np.maximum(drawn, 0)]])
        return inside & ((drawn < 0) | (surface - world[:, 2] < DEPTH_TOLERANCE))

    def quality(self, u, layers, tex=None):
        """Robust deviation of a channel, unexplained share, seen (N,), explained (N,): of a face with the albedo
        coefficients ``tex`` (Ka,), or its own."""
        world = self._world(u)
        normals = vertex_normals_numpy(world, self._morphable.triangles)
        towards = facing(world, normals)
        sampled = between_pixels(layers.blurred(BLURS[-1]), to_pixels(world, SIZE / 2))
        seen = self._visible(world) & (towards > _LEAST_FACING) & (sampled[:, -1] > _LEAST_MASK)
        *_, own, light = self.split(u)
        tex = own[:self._terms.basis_size] if tex is None else tex
        albedo = self._albedo + (self._albedo_basis @ tex.astype(np.float32)).reshape(-1, 3)
        colors = np.clip(albedo * (harmonics(normals)[0] @ light.astype(np.float32).T), 0, 1)
        off = np.sqrt(((colors - sampled[:, :3]) ** 2).mean(axis=1))
        judged = seen & self._skin if (seen & self._skin).any() else seen
        deviation = max(float(np.median(off[judged])) / _MEDIAN_LENGTH, NOISE / 2) if judged.any() else NOISE
        area = self._areas(world, towards) * judged
        unexplained = float(area @ (off > _OUTLIER * deviation) / max(area.sum(), 1e-9))
        explained = np.where(seen, np.maximum(1 - (off / (_BIWEIGHT * deviation)) ** 2, 0) ** 2, 0)
        return deviation, unexplained, seen, explained

    def _areas(self, world, towards):
        """Share of the picture (N,) that each vertex stands for, up to a common factor."""
        a, b, c = (world[self._morphable.triangles[:, k]] for k in range(3))
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        whole = np.bincount(self._morphable.triangles.ravel(), np.repeat(areas, 3), len(world))
        return whole * np.maximum(towards, 0)


def _participants(morphable, seed):
    """Vertices (S,), drawn with a chance as the root of their area: between a share of the face and one of the mesh,
    which is dense where a face has most to tell."""
    corners = morphable.mean_shape[morphable.triangles].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chance = np.sqrt(np.bincount(morphable.triangles.ravel(), np.repeat(areas, 3), morphable.vertex_count))
    count = min(VERTICES, np.count_nonzero(chance))
    return np.sort(np.random.default_rng(seed).choice(len(chance), count, replace=False, p=chance / chance.sum()))


class Layers:
    """A photo (H, H, 4) in network range, at the width at which it is fitted."""

    def __init__(self, rgba):
        self.finite = bool(np.isfinite(rgba).all())
        rgba = rgba if self.finite else np.zeros_like(rgba)
        if rgba.shape[0] != SIZE:
            way = cv2.INTER_AREA if rgba.shape[0] > SIZE else cv2.INTER_LINEAR
            rgba = cv2.resize(rgba, (SIZE, SIZE), interpolation=way)
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_BORDER, _BORDER))
        self._mask = cv2.erode((rgba[..., 3] > 0.5).astype(np.uint8), ellipse).astype(np.float32)
        self._masked = (rgba[..., :3] * 0.5 + 0.5) * self._mask[..., None]
        self._kept = {}

    def blurred(self, sigma):
        """(SIZE, SIZE, 10): colours in [0, 1], blurred inside the mask; their derivatives along x, y; the mask."""
        if sigma not in self._kept:
            share = np.maximum(cv2.GaussianBlur(self._mask, (0, 0), sigma), 1e-3)
            colors = cv2.GaussianBlur(self._masked, (0, 0), sigma) / share[..., None]
            along_x, along_y = (cv2.Sobel(colors, cv2.CV_32F, *axis, ksize=3) / 8 for axis in ((1, 0), (0, 1)))
            self._kept[sigma] = np.dstack([colors, along_x, along_y, self._mask])
        return self._kept[sigma]


def _weights(errors, towards, participants):
    """Weights (R,) of residuals (R, 3): Geman and McClure's times the viewing angle's; without the former they sum up
    to the evidence of what part of a face is seen."""
    lengths = np.sqrt((errors ** 2).mean(axis=1))
    # While all is still far off, as a dark skin is from the mean one, nothing is an outlier.
    scale = max(ROBUST * NOISE, OWN * float(np.median(lengths)) / _MEDIAN_LENGTH)
    squares = (lengths / scale) ** 2
    share = min(towards.sum() / (_FULL_VIEW * participants), 1.0)
    return towards / (1 + squares) ** 2 * (EVIDENCE * share / (3 * NOISE ** 2 * towards.sum()))
