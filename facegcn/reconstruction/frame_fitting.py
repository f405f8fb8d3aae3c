"""One frame of a film whose person is known: pose, expression and light.

The person becomes a face model of their own, without identity and albedo components, whose mean is their neutral face
and their albedo. So the fits of photos serve: landmarks (``landmark_fitting``), then colours (``photometric_fitting``),
with a third of the unknowns, from where the frame before ended. Landmarks place the head and the mouth, colours the
lids, which the landmark network hardly moves. What is found is carried over to the film's own camera.

Letters: N vertices, K coefficients of the person's whole model, Ke expression, U unknowns: Ke + 6 of the pose + 27.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from facegcn.errors import PhotoError
from facegcn.landmark_fitting import POSE_SIZE, LandmarkFitter, rotation
from facegcn.lighting import AMBIENT_OFFSET, HARMONICS
from facegcn.photometric_fitting import DAMPING, LIGHT_WEIGHT, Layers, LightPrior, PhotometricFitter
from facegcn.photometric_terms import LIGHT_SIZE, harmonics
from facegcn.photos.alignment import alignment_transform
from facegcn.photos.warping import transform_points, warp
from facegcn.reconstruction.film_camera import FilmCamera
from facegcn.surface_points import dense_points

UNLIKE = 2.0  # times what the person's own frames leave unexplained: beyond, a face is another person's
LANDMARK_ROUNDS = 4  # of a frame that follows another
_BLURS = (2.0, 1.0, 1.0)  # pixels, by round of the fit to colours
_BLURS_ANEW = (2.0, 2.0, 1.0, 1.0)  # of a frame that follows none
#: Times as much as colours say of photos by themselves: the person's own albedo leaves less that is unexplained. At 3 a
#: lid shuts to two fifths, at 12 to seven tenths, and twice as much noise is left to the smoothing.
_EVIDENCE = 10.0
_LEAST_DEVIATION = 0.03  # of a colour in [0, 1]: noise and compression leave as much, whoever it is
_DIRECTIONS = 64


class Fitted(NamedTuple):
    """What one frame says.

    Attributes:
        exp: (Ke,) expression.
        angles, translation: (3,) before the film's camera, radians and decimetre.
        gamma: (27,) light before the film's camera.
        residual: mean distance of the landmarks from the face's, pixels of a 224 crop.
        precision: of the angles, 1 / radian squared.
    """

    exp: np.ndarray
    angles: np.ndarray
    translation: np.ndarray
    gamma: np.ndarray
    residual: float
    precision: float


class _InCrop(NamedTuple):
    """A fit in a frame's own crop: unknowns (U,), precision (U, U), the crop's layers, its transform (2, 3), the
    landmarks' residual."""

    unknowns: np.ndarray
    precision: np.ndarray
    layers: Layers
    transform: np.ndarray
    residual: float


def person_model(morphable, coeff: np.ndarray, albedo: np.ndarray):
    """The face model of one person, whose expressions are all that is left to know.

    Args:
        morphable: the model of all persons.
        coeff: (K,) coefficients, whose identity is taken.
        albedo: (N, 3) in [0, 1].

    Returns:
        a ``MorphableModel`` with the same landmarks, and by how much (3,), decimetre, its centre lies beside
        the other's.
    """
    offset = (morphable.id_basis @ np.asarray(morphable.split(coeff).id, np.float32)).astype(np.float64)
    nothing = np.zeros((morphable.vertex_count, 3, 0), np.float32)
    model = dataclasses.replace(
        morphable, mean_shape=morphable.mean_shape + offset, id_basis=nothing, albedo_basis=nothing,
        mean_albedo=np.clip(albedo, 0.0, 1.0) * 255.0, blendshapes=None, blendshape_names=(), parts=None)
    return model, offset.mean(axis=0)


class FrameFitter:
    """Fits frames to one person.

    Args:
        fitter: ``fitting.CoefficientFitter`` of photos; its model has an embedding of dense landmarks.
        person: ``video_person.FilmPerson``.
        camera: of the film.
    """

    def __init__(self, fitter, person, camera: FilmCamera):
        model, self._beside = person_model(fitter.morphable, person.coeff[person.place], person.albedo)
        self._five, self._camera = fitter.morphable.five_points, camera
        self._landmarks = LandmarkFitter(model, dense_points(model))
        gamma = np.median(fitter.morphable.split(person.coeff).gamma, axis=0).astype(np.float64)
        self._colors = PhotometricFitter(model, LightPrior(gamma, fitter.light.precision / LIGHT_WEIGHT))
        self._last = None
        own = [self._deviation(photo.rgba, photo.dense) for photo in person.photos]
        self._usual = max(float(np.median(own)), _LEAST_DEVIATION)

    def forget(self) -> None:
        """The next frame does not follow the one before."""
        self._last = None

    def is_person(self, picture, dense) -> bool:
        """Whether the person's face explains a frame's colours about as well as those of the person's own frames.

        Args:
            picture: (h, w, 3) uint8.
            dense: ``DenseLandmarks`` in it.
        """
        found = self._in_crop(picture, dense, None)
        return found is not None and self._colors.quality(found.unknowns, found.layers)[0] <= UNLIKE * self._usual

    def explains(self) -> bool:
        """As ``is_person``, of the frame that was fitted last."""
        return self._last is not None and self._colors.quality(self._last.unknowns, self._last.layers)[
            0] <= UNLIKE * self._usual

    def fit(self, picture, dense) -> Fitted | None:
        """What a frame says, or None where it shows too little.

        Args:
            picture, dense: as for ``is_person``.
        """
        found = self._last = self._in_crop(picture, dense, self._last)
        if found is None:
            return None
        shape_size = len(found.unknowns) - POSE_SIZE - LIGHT_SIZE
        exp, pose, gamma = np.split(found.unknowns, (shape_size, shape_size + POSE_SIZE))
        before = rotation(pose[:3])[0]
        moved = self._camera.pose(self._landmarks.shape(found.unknowns[:-LIGHT_SIZE]), pose, found.transform)
        if moved is None:
            return None
        turn = rotation(moved[:3])[0]
        covariance = np.linalg.inv(found.precision)[shape_size:shape_size + 3, shape_size:shape_size + 3]
        return Fitted(exp, moved[:3], moved[3:] - turn @ self._beside, turned_light(gamma, turn @ before.T),
                      found.residual, 1.0 / float(np.trace(covariance)))

    # ---------------------------------------------------------------- in the frame's own crop
    def _in_crop(self, picture, dense, last: _InCrop | None) -> _InCrop | None:
        size = self._camera.crop_size
        try:
            transform = alignment_transform(dense.five_points(), self._five, size)
        except PhotoError:
            return None
        inside = warp(np.full(picture.shape[:2], 255, np.uint8), transform, size)
        crop = np.dstack([warp(picture, transform, size) / np.float32(127.5) - 1.0, inside > 250]).astype(np.float32)
        return self._fitted(Layers(crop), transform_points(dense.points, transform), dense.trust, transform, last)

    def _fitted(self, layers, points, trust, transform, last) -> _InCrop | None:
        """A crop's fit; points (468, 2) and trust (468,)."""
        start = None if last is None else last.unknowns[None]
        fit = self._landmarks.fit(points[None], trust[None], self._camera.crop_size, start=self._ordered(start),
                                  **({} if last is None else {"rounds": LANDMARK_ROUNDS}))
        if not np.isfinite(fit.residual[0]):
            return None
        mean, prior = self._colors.prior(fit.parameters[0], fit.precision[0])
        u = mean.copy()
        if last is not None:  # colours look about them only a little: they go on from where they had come to
            u[:-POSE_SIZE - LIGHT_SIZE], u[-LIGHT_SIZE:] = (last.unknowns[:-POSE_SIZE - LIGHT_SIZE],
                                                            last.unknowns[-LIGHT_SIZE:])
        hessian, visible = prior, self._colors.visible(u)
        for blur in _BLURS_ANEW if last is None else _BLURS:
            found = self._colors.equations(u, layers, blur, visible)
            if found is None:
                break
            hessian = _EVIDENCE * found[0] + prior
            slope = _EVIDENCE * found[1] + prior @ (u - mean)
            damped = hessian + np.diag(DAMPING * np.diag(hessian))
            following = u - np.linalg.solve(damped, slope)
            if not self._colors.possible(following):
                return None
            u = following
        return _InCrop(u, hessian, layers, transform, float(fit.residual[0]))

    def _ordered(self, unknowns):
        """Unknowns (1, U) as coefficients (1, U) of the person's model, or None."""
        return None if unknowns is None else self._colors.coefficients(unknowns[0])[None]

    def _deviation(self, rgba, dense) -> float:
        """What is left unexplained of a crop (S, S, 4) uint8 with dense landmarks (468, 3): robust standard deviation
        of a colour."""
        layers = Layers(np.dstack([rgba[..., :3] / np.float32(127.5) - 1.0, np.ones(rgba.shape[:2], np.float32)]))
        found = self._fitted(layers, dense[:, :2], dense[:, 2], np.eye(2, 3), None)
        return np.inf if found is None else float(self._colors.quality(found.unknowns, layers)[0])


def turned_light(gamma: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The same light (27,) in axes that are turned: what a normal n got, ``turn @ n`` gets.

    Args:
        gamma: (27,) see ``lighting.shading``.
        turn: (3, 3) rotation.
    """
    light = np.array(gamma, np.float64).reshape(3, HARMONICS)
    light[:, 0] += AMBIENT_OFFSET
    # Harmonics of one order turn into each other, so any directions that tell them apart will do: a spiral's.
    steps = np.arange(_DIRECTIONS) + 0.5
    height, angle = 1.0 - 2.0 * steps / _DIRECTIONS, np.pi * (1.0 + np.sqrt(5.0)) * steps
    flat = np.sqrt(1.0 - height ** 2)
    normals = np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=1)
    values = harmonics(normals)[0] @ light.T
    turned = np.linalg.lstsq(harmonics(normals @ turn.T)[0], values, rcond=None)[0].T
    turned[:, 0] -= AMBIENT_OFFSET
    return turned.reshape(3 * HARMONICS)
