"""Where the dense landmarks lie on a morphable model, and what they are worth: learnt from made portraits of the model.

A made portrait's truth tells which point of the surface lies under each landmark that the detector names, and then how
far the detector is off. Its errors on 468 points are far from independent: on portraits of the ict model 20 components
hold 92 percent of their variance. So besides a bias and the noise of each point, the errors that points share are kept
(a factor model, by principal components of the errors in units of each point's own). Letters: C portraits, M landmarks
on the surface, R shared errors, D unknowns of a fit, as in ``landmark_fitting``.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging

import numpy as np
from tqdm import tqdm

from facegcn import files
from facegcn.assets.starting_weights import StartingWeights
from facegcn.errors import UserError
from facegcn.landmark_fitting import parameter_columns, project, rotation
from facegcn.landmarks import DENSE_COUNT
from facegcn.mesh.closest_point import closest_points
from facegcn.morphable import MorphableModel
from facegcn.portraits import formation
from facegcn.portraits.maker import PortraitMaker, Stream
from facegcn.rasterizer import rasterize_numpy
from facegcn.surface_points import LandmarkEmbedding, SurfacePoints

log = logging.getLogger("facegcn")

#: Portraits to learn from. On 240 held-out ones of the ict model the identity's error, in that of the mean face, is
#: 0.992 after 1,000 and 0.986 after 2,900.
COUNT = 1000
#: Shared errors kept, and crop pixels added to each point's own noise (what portraits do not show). Same measure: 10,
#: 30, 60 shared errors 1.021, 0.986, 0.981; without any and all points off by 8 pixels 1.018. Pixels 0.3, 0.7, 1.2
#: added: 0.991, 0.981, 0.977. A regression of the shape on the points, which no fit can beat by much, has 0.960.
#: Tried and left out: a bias that depends on the pose and errors that depend on the shape took 0.01 to 0.015 off where
#: the bias was that of the first pose (pitch 0.5 degrees worse, expression no better), nothing where it moved with it.
FACTORS, ADDED_NOISE = 60, 1.0
_SERIES = 468  # seed of the portraits: of no config's, so nothing is measured on what this has learnt from
_EXPRESSIONS = 1.0  # spread of the expressions
_SIZE, _SAMPLES = 224, 448  # pixels of the portraits; of the picture in which the surface is looked up
_FRONTAL = np.radians(25.0)  # yaw up to which a landmark names a point of the surface and not one of the outline
_SEEN = 0.4  # share of frontal portraits in which a landmark must lie on the surface
_CLIP = 4.0  # robust standard deviations, at which errors are clipped: beyond, a hand was taken for a face
_LEAST_FOUND, _PER_FACTOR = 30, 4  # portraits in which a face must be found, in all and for each shared error


def dense_points_of(image: np.ndarray) -> np.ndarray | None:
    """(468, 2) points of the largest face of a picture (H, W, 3) uint8 RGB, or None where none is found."""
    from facegcn.photos.detection import find_faces

    faces = find_faces(image)
    return faces[0].dense.points if faces else None


def ensure_embedding(config, morphable: MorphableModel, find_dense=dense_points_of) -> MorphableModel:
    """The model with an embedding: its own, the starting weights', or one learnt now and kept in the data folder.

    Args:
        config: gives data folder and threads.
        morphable: any model.
        find_dense: as for ``learn_embedding``.

    Raises:
        UserError: as ``learn_embedding``, or the starting weights do not fit.
    """
    if morphable.embedding is not None:
        return morphable
    if config.texture_start:
        return dataclasses.replace(morphable, embedding=StartingWeights(config.texture_start, morphable).embedding)
    names = [field.name for field in dataclasses.fields(LandmarkEmbedding)]
    key = files.digest(morphable.digest, COUNT, files.code_version("facegcn.assets.landmark_embedding"))
    arrays = files.kept_npz(
        config.path(f"landmarks-{key}.npz"), names,
        lambda: vars(learn_embedding(morphable, find_dense, workers=config.workers)),
        f"the places of the landmarks on the face model, learnt once from {COUNT} made portraits (a minute or two)")
    return dataclasses.replace(morphable, embedding=LandmarkEmbedding(**arrays))


def learn_embedding(morphable: MorphableModel, find_dense=dense_points_of, count: int = COUNT, seed: int = 0,
                    workers: int = 2) -> LandmarkEmbedding:
    """Learns it; about 60 ms a portrait and thread.

    Args:
        morphable: any model.
        find_dense: takes (224, 224, 3) uint8 RGB, gives (468, 2) pixels or None; called from several threads.
        count: made portraits.
        seed: of their series.
        workers: threads.

    Raises:
        UserError: ``count`` is too small, or a face was found in too few portraits.
    """
    if count < _LEAST_FOUND:
        raise UserError(f"the number of portraits must be at least {_LEAST_FOUND}, got {count}")
    maker = PortraitMaker(morphable, _SIZE, _SERIES + seed, Stream.REGRESSOR, expression_spread=_EXPRESSIONS)

    def observe(number):
        portrait = maker.make(number)
        points = find_dense(np.ascontiguousarray(portrait.rgba[..., :3]))
        return portrait.coeff, np.full((DENSE_COUNT, 2), np.nan) if points is None else points

    observe(0)  # compiles the kernels before the threads need them
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        seen = list(tqdm(pool.map(observe, range(count)), total=count, desc="landmarks", unit="portrait",
                         dynamic_ncols=True))
    finally:
        pool.shutdown(cancel_futures=True)
    coefficients, points = (np.stack(column).astype(np.float64) for column in zip(*seen))
    found = np.isfinite(points).all(axis=(1, 2))
    if found.sum() < _LEAST_FOUND:
        raise UserError(f"a face was found in only {found.sum()} of {count} made portraits of the model, at least "
                        f"{_LEAST_FOUND} are needed: look at some (python -m facegcn.portraits), is it a face?")
    return embedding_from(morphable, coefficients[found][:, parameter_columns(morphable)], points[found])


def embedding_from(morphable: MorphableModel, parameters: np.ndarray, points: np.ndarray) -> LandmarkEmbedding:
    """The embedding that explains points on faces of known parameters best.

    Args:
        morphable: the model.
        parameters: (C, D) identity, expression, angles and translation.
        points: (C, 468, 2) pixels of a 224 crop.

    Raises:
        UserError: no landmark lies on the surface often enough.
    """
    held, triangles, weights = _located(morphable, parameters, points)
    rows = np.flatnonzero(held)
    surface = SurfacePoints(DENSE_COUNT, rows, morphable.triangles[triangles], weights, np.zeros((len(rows), 2)),
                            np.ones(len(rows)), np.zeros((len(rows), 2, 0)))
    bias, noise, factors = _error_model(_errors(morphable, surface, parameters, points))
    sizes = {"triangles": (), "barycentrics": (3,), "bias": (2,), "noise": (), "factors": factors.shape[1:]}
    arrays = {name: np.zeros((DENSE_COUNT, *shape), np.float32) for name, shape in sizes.items()}
    arrays["triangles"] = np.full(DENSE_COUNT, -1, np.int32)
    for name, values in zip(sizes, (triangles, weights, bias, noise, factors)):
        arrays[name][rows] = values
    return LandmarkEmbedding(**arrays)


def _located(morphable, parameters, points):
    """Which landmarks lie on the surface (468,); triangle (M,) and weights (M, 3) of those."""
    mean = morphable.mean_shape - morphable.mean_shape.mean(axis=0)
    triangles = morphable.triangles
    basis = np.concatenate([morphable.id_basis, morphable.exp_basis], axis=2)
    frontal = np.flatnonzero(np.abs(parameters[:, -5]) < _FRONTAL)
    places = np.full((len(frontal), DENSE_COUNT, 3), np.nan, np.float32)
    for place, number in zip(places, frontal):
        x = parameters[number].astype(np.float32)
        world = (mean + basis @ x[:-6]) @ formation.rotation_matrix(x[-6:-3]).T + x[-3:]
        ids, barycentrics, _ = rasterize_numpy(formation.clip_coordinates(world), triangles, _SAMPLES, _SAMPLES)
        pixels = np.floor(points[number] * (_SAMPLES / _SIZE)).astype(int)
        inside = ((pixels >= 0) & (pixels < _SAMPLES)).all(axis=1)
        column, row = np.where(inside[:, None], pixels, 0).T
        hit = inside & (ids[row, column] >= 0)
        place[hit] = np.einsum("mc,mcd->md", barycentrics[row, column][hit], mean[triangles[ids[row, column][hit]]])
    share = np.isfinite(places[..., 0]).mean(axis=0) if len(frontal) else np.zeros(DENSE_COUNT)
    held = share >= _SEEN
    if not held.any():
        raise UserError("no landmark lies on the model's surface in the made portraits: does the model look like a "
                        "face (python -m facegcn.portraits)?")
    return held, *closest_points(np.nanmedian(places[:, held], axis=0), mean, triangles)


def _errors(morphable, surface, parameters, points):
    """(C, M, 2) crop pixels from where the camera sees each surface point to where the detector has it, turned upright
    with the head."""
    mean = surface.of(morphable.mean_shape) - morphable.mean_shape.mean(axis=0, dtype=np.float64)
    basis = np.concatenate([surface.of(morphable.id_basis), surface.of(morphable.exp_basis)], axis=2)
    errors = np.empty((len(parameters), len(surface.rows), 2))
    for error, x, seen in zip(errors, parameters, points):
        turn = rotation(np.array([0.0, 0.0, -x[-4]]))[0][:2, :2]  # picture axes, y down: as ``landmark_fitting`` turns
        error[:] = (seen[surface.rows] - project(mean, basis, x, slopes=False)[0]) @ turn
    return errors


def _error_model(errors):
    """Bias (M, 2), noise (M,) and shared errors (M, 2, R) of errors (C, M, 2)."""
    count, landmarks, _ = errors.shape
    flat = errors.reshape(count, -1)
    bias = np.median(flat, axis=0)
    flat = flat - bias
    limit = _CLIP * 1.4826 * np.median(np.abs(flat), axis=0)  # 1.4826: from the median to the deviation of a normal
    flat = np.clip(flat, -limit, limit)
    bias, flat = bias + flat.mean(axis=0), flat - flat.mean(axis=0)
    variance = flat.var(axis=0)
    unit = np.repeat(np.sqrt(variance.reshape(-1, 2).mean(axis=1)) + 1e-9, 2)
    _, lengths, directions = np.linalg.svd(flat / unit / np.sqrt(count), full_matrices=False)
    kept = min(FACTORS, count // _PER_FACTOR)
    factors = (directions[:kept].T * lengths[:kept]) * unit[:, None]
    left = np.maximum(variance - np.square(factors).sum(axis=1), 0.0).reshape(-1, 2).mean(axis=1)
    return bias.reshape(-1, 2), np.sqrt(left + ADDED_NOISE ** 2), factors.reshape(landmarks, 2, kept)
