"""Converts the Basel Face Model of 2017 (Gerig et al. 2018) into a MorphableModel.

The file is HDF5: ``shape``, ``color`` and ``expression`` each have ``model/mean`` (3N,), ``model/pcaBasis``
(3N, K) with orthonormal columns and ``model/pcaVariance`` (K,); ``shape/representer/cells`` are the
triangles. Unit millimetre, colours in [0, 1]. The mean of the expression model is added to the mean face, as a
face of this model is the sum of both.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from facegcn.assets import bfm_regions
from facegcn.assets.bfm_files import ALBEDO, EXPRESSION, IDENTITY
from facegcn.assets.converters import converter_version
from facegcn.assets.matfile import READ_ERRORS, check_stored
from facegcn.errors import BrokenFile, ModelFileError, UserError, log
from facegcn.files import brief
from facegcn.landmarks import LANDMARK_COUNT
from facegcn.morphable import MorphableModel

_DECIMETRE = 0.01  # per millimetre


def convert_bfm17(source: str, landmarks: str | None, say=log.info) -> MorphableModel:
    """Makes the model, with at most as many components as the paper uses of BFM09.

    Args:
        source: ``model2017-1_bfm_nomouth.h5`` (53,149 vertices), its ``face12`` crop (28,588), or the like.
        landmarks: text file of the 68 vertex numbers, from 0, in iBUG order. The model's own file names only
            some points of a face, not these 68.
        say: takes lines about what is done.

    Raises:
        UserError: a file is absent or broken, or no landmarks are given.
    """
    if not os.path.isfile(source):
        raise UserError(f"--source {source}: there is no such file; BFM 2017 comes from "
                        "faces.dmi.unibas.ch/bfm/bfm2017.html after signing its licence")
    if landmarks is None:
        raise UserError("--landmarks FILE is needed: the .h5 names only a few points of the face, not the 68 iBUG "
                        "landmarks. Write the 68 vertex numbers, from 0, in iBUG order, into a text file")
    say(f"reading {source}")
    mean, id_basis, triangles, offset, exp_basis, tone, albedo_basis = _arrays(source)
    mean_shape = (mean + offset).astype(np.float32)
    points = read_landmarks(landmarks, len(mean_shape))
    pairs = bfm_regions.found_pairs(mean_shape, points)
    say(f"{len(pairs):,} left/right pairs were found in the mean face; the skin is what lies between the landmarks "
        "of brows, eyes and lips")
    try:
        return MorphableModel(
            mean_shape=mean_shape, id_basis=id_basis, exp_basis=exp_basis, mean_albedo=tone, albedo_basis=albedo_basis,
            triangles=_outward(mean_shape, triangles), landmarks=points,
            skin_index=bfm_regions.skin_by_landmarks(mean_shape, points), symmetry_pairs=pairs,
            made_by=converter_version("bfm17"))
    except ModelFileError as error:
        raise BrokenFile(source, f"makes no face model: {error}; take it anew from its source") from error


def read_landmarks(path: str, vertices: int) -> np.ndarray:
    """(68,) vertex numbers from a text file: whole numbers between spaces or on lines, # starts a comment.

    Raises:
        UserError: absent, not 68 whole numbers, or one outside 0..vertices-1.
    """
    try:
        with open(path, encoding="utf-8") as file:
            numbers = [int(word) for line in file for word in line.split("#")[0].replace(",", " ").split()]
    except (OSError, ValueError) as error:
        raise UserError(f"--landmarks {path}: cannot be read as whole numbers: {brief(error)}") from error
    if len(numbers) != LANDMARK_COUNT:
        raise UserError(f"--landmarks {path}: has {len(numbers)} numbers, expected {LANDMARK_COUNT} (iBUG order)")
    if not 0 <= min(numbers) <= max(numbers) < vertices:
        raise UserError(f"--landmarks {path}: vertex numbers run from {min(numbers)} to {max(numbers)}, the model "
                        f"has 0..{vertices - 1}")
    return np.array(numbers)


def _arrays(path):
    """Means (N, 3) and scaled bases (N, 3, K) in decimetres and levels 0..255, and triangles (F, 3)."""
    try:
        with h5py.File(path, "r") as file:
            mean, id_basis = _part(file, path, "shape", IDENTITY)
            offset, exp_basis = _part(file, path, "expression", EXPRESSION, len(mean))
            tone, albedo_basis = _part(file, path, "color", ALBEDO, len(mean))
            cells = _dataset(file, path, "shape/representer/cells")
    except READ_ERRORS as error:
        raise BrokenFile(path, f"is no whole HDF5 file: {error}") from error
    cells = cells.T if cells.ndim == 2 and cells.shape[0] == 3 else cells
    if cells.ndim != 2 or cells.shape[1] != 3 or cells.dtype.kind not in "iu":
        raise BrokenFile(path, f"'shape/representer/cells' has shape {cells.shape} {cells.dtype}, expected whole "
                               "numbers (3, F)")
    if cells.min() < 0 or cells.max() >= len(mean):
        raise BrokenFile(path, f"'shape/representer/cells' has an index out of range: {cells.min()}..{cells.max()}, "
                               f"expected 0..{len(mean) - 1}")
    return (mean * _DECIMETRE, id_basis * _DECIMETRE, cells, offset * _DECIMETRE, exp_basis * _DECIMETRE,
            tone * 255.0, albedo_basis * 255.0)


def _part(file, path, part, count, vertices=None):
    """Mean (N, 3) and scaled basis (N, 3, <= count) of one of the three models."""
    mean = _dataset(file, path, f"{part}/model/mean").reshape(-1)
    variance = _dataset(file, path, f"{part}/model/pcaVariance").reshape(-1)
    basis = _dataset(file, path, f"{part}/model/pcaBasis")
    vertices = vertices or len(mean) // 3
    if mean.shape != (3 * vertices,) or basis.shape != (3 * vertices, len(variance)) or not len(variance):
        raise BrokenFile(path, f"'{part}/model' has a mean {mean.shape}, a pcaBasis {basis.shape} and a pcaVariance "
                               f"{variance.shape}, expected ({3 * vertices},), ({3 * vertices}, K) and (K,)")
    if variance.min() < 0:
        raise BrokenFile(path, f"'{part}/model/pcaVariance' has negative values")
    scaled = basis[:, :count] * np.sqrt(variance[:count].astype(np.float64))
    return mean.reshape(-1, 3).astype(np.float64), scaled.reshape(vertices, 3, -1)


def _dataset(file, path, name):
    if name not in file or not isinstance(file[name], h5py.Dataset):
        raise BrokenFile(path, f"lacks the array '{name}'; expected shape/model, color/model and expression/model, "
                               "each with mean, pcaBasis and pcaVariance, and shape/representer/cells")
    check_stored(path, name, file[name])
    values = file[name][()]
    if np.asarray(values).dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise BrokenFile(path, f"'{name}' must hold finite numbers")
    return np.asarray(values)


def _outward(vertices, triangles):
    """Triangles counter-clockwise seen from outside: the front of a face looks along +z."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return triangles if np.cross(b - a, c - a)[:, 2].sum() > 0 else triangles[:, ::-1]
