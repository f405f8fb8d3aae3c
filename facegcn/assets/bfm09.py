"""Converts the Basel Face Model of 2009 and its companion files (bfm_files.py) into a MorphableModel.

The crop, the scales and the choice of components are those of Deep3DFaceReconstruction (Deng et al. 2019),
which the paper builds on: 35,709 vertices, 80 identity, 64 expression and 80 albedo components, each times
its standard deviation; shapes / 1e5, which makes decimetres of BFM09's micrometres. The mean of the
expression basis is not applied. The mean face is kept where BFM09 has it: ``MorphableModel`` centres it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from facegcn.assets import bfm_files as files
from facegcn.assets import bfm_regions
from facegcn.assets.converters import converter_version
from facegcn.assets.matfile import read_arrays
from facegcn.errors import BrokenFile, ModelFileError, UserError, log
from facegcn.morphable import MorphableModel

_UNITS_PER_DECIMETRE = 1e5


class _Face(NamedTuple):
    """The arrays of the crop, counted from 0, in decimetres; ``skinmask`` (N,) or None."""

    mean_shape: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    mean_albedo: np.ndarray
    albedo_basis: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray
    skinmask: np.ndarray | None


def convert_bfm09(source: str, say=log.info) -> MorphableModel:
    """Makes the model.

    Args:
        source: a folder with the official files, under any name of ``bfm_files``, in itself or in its ``BFM``
            or ``data`` folder; or the path of a finished ``BFM_model_front.mat``.
        say: takes lines about what is read and what is done without.

    Raises:
        UserError: a file is absent (all are named at once) or broken, or no model comes of them.
    """
    folder, finished = source, None
    if os.path.isfile(source):
        folder, finished = os.path.dirname(source) or ".", source
    elif not os.path.isdir(source):
        raise UserError(f"--source {source}: there is no such folder or file")
    absent = files.missing_parts(folder)
    if absent and finished is None:
        finished = files.locate(folder, files.FINISHED)
    if absent and finished is None:
        raise UserError(f"{folder} lacks files of the face model (docs/bfm09.md tells how to get them):\n" + "\n".join(
            f"  {part.names[0]}: {part.use}; from {part.source}" for part in absent)
            + f"\nA finished {' or '.join(files.FINISHED.names)} will do instead of all of them")
    crop = _crop_numbers(folder)
    face = _finished_face(finished, say) if finished else _assembled_face(folder, crop, say)
    skin, pairs = _skin(folder, crop, face, say), _pairs(folder, crop, face, say)
    try:
        return MorphableModel(
            mean_shape=face.mean_shape, id_basis=face.id_basis, exp_basis=face.exp_basis, mean_albedo=face.mean_albedo,
            albedo_basis=face.albedo_basis, triangles=face.triangles, landmarks=face.landmarks,
            skin_index=skin, symmetry_pairs=pairs,
            made_by=converter_version("bfm09"))
    except ModelFileError as error:
        raise UserError(f"the files of {source} make no face model: {error}; take them anew from their sources "
                        "(docs/bfm09.md)") from error


def _crop_numbers(folder: str) -> np.ndarray | None:
    """(N,) for each vertex of the crop its number in the whole model, from 0; None when no file tells."""
    paths = {part: files.locate(folder, part) for part in (files.FRONT, files.TRIM, files.SELECT)}
    selected = composed = None
    if paths[files.SELECT]:
        selected = read_arrays(paths[files.SELECT], files.SELECT_ARRAYS)["select_id"]
    if paths[files.FRONT] and paths[files.TRIM]:
        front = read_arrays(paths[files.FRONT], files.FRONT_ARRAYS)["idx"]
        composed = read_arrays(paths[files.TRIM], files.TRIM_ARRAYS)["trimIndex"][front]
    if selected is not None and composed is not None and (selected != composed).any():
        raise BrokenFile(paths[files.SELECT], f"chooses other vertices than {paths[files.TRIM]} at "
                                              f"{paths[files.FRONT]}; take all three from one place")
    return composed if selected is None else selected


def _assembled_face(folder: str, crop: np.ndarray, say) -> _Face:
    """The crop, from BFM09, the expression basis and the index files."""
    path = files.locate(folder, files.MORPHABLE)
    say(f"reading {path}")
    model = read_arrays(path, files.MORPHABLE_ARRAYS)
    for basis, deviations in (("shapePC", "shapeEV"), ("texPC", "texEV")):
        if model[basis].shape[1] != len(model[deviations]):
            raise BrokenFile(path, f"'{basis}' has {model[basis].shape[1]} components but '{deviations}' "
                                   f"{len(model[deviations])}")
    expression_path, deviation_path = (files.locate(folder, part) for part in (files.EXPRESSIONS, files.DEVIATIONS))
    say(f"reading {expression_path}")
    count, deviations = files.expression_size(expression_path), files.read_deviations(deviation_path)
    if len(deviations) != count:
        raise BrokenFile(deviation_path, f"has {len(deviations)} standard deviations, {expression_path} has {count} "
                                         "components; take both from the sources named in docs/bfm09.md")
    front = read_arrays(files.locate(folder, files.FRONT), files.FRONT_ARRAYS)["idx"]
    expressions = files.read_expressions(expression_path, front)
    info = read_arrays(files.locate(folder, files.INFO), files.INFO_ARRAYS)
    shape_scale = model["shapeEV"][:files.IDENTITY].astype(np.float64) / _UNITS_PER_DECIMETRE
    return _Face(
        mean_shape=model["shapeMU"].reshape(-1, 3)[crop] / _UNITS_PER_DECIMETRE,
        id_basis=_vertex_major(model["shapePC"], files.IDENTITY)[crop] * shape_scale,
        exp_basis=expressions * (deviations[:files.EXPRESSION] / _UNITS_PER_DECIMETRE),
        mean_albedo=model["texMU"].reshape(-1, 3)[crop],
        albedo_basis=_vertex_major(model["texPC"], files.ALBEDO)[crop] * model["texEV"][:files.ALBEDO],
        triangles=info["tri"], landmarks=info["keypoints"], skinmask=info.get("skinmask"))


def _finished_face(path: str, say) -> _Face:
    """The crop as Deep3DFaceReconstruction wrote it: already scaled."""
    say(f"reading {path}")
    model = read_arrays(path, files.FINISHED_ARRAYS)
    return _Face(
        mean_shape=model["meanshape"].reshape(-1, 3), id_basis=_vertex_major(model["idBase"], files.IDENTITY),
        exp_basis=_vertex_major(model["exBase"], files.EXPRESSION), mean_albedo=model["meantex"].reshape(-1, 3),
        albedo_basis=_vertex_major(model["texBase"], files.ALBEDO), triangles=model["tri"],
        landmarks=model["keypoints"], skinmask=model.get("skinmask"))


def _vertex_major(basis: np.ndarray, count: int) -> np.ndarray:
    """(3N, K) -> (N, 3, count): rows are x0, y0, z0, x1, ..."""
    return basis[:, :count].reshape(-1, 3, count)


def _skin(folder, crop, face, say) -> np.ndarray:
    """The skin region, from the best source there is."""
    path = files.locate(folder, files.SEGMENTS)
    if path and crop is not None:
        labels = read_arrays(path, files.SEGMENT_ARRAYS)["face05_4seg"][crop]
        if not (labels == files.SKIN_LABEL).any():
            raise BrokenFile(path, f"no vertex of the face has the label {files.SKIN_LABEL} (skin)")
        return np.flatnonzero(labels == files.SKIN_LABEL)
    reason = (f"there is no {files.SEGMENTS.names[0]}" if not path else
              f"{path} needs {files.SELECT.names[0]} to tell which vertices are kept")
    if face.skinmask is not None and face.skinmask.any():
        say(f"note: {reason}; the skin is the smaller region 'skinmask' of Deep3DFaceReconstruction")
        return np.flatnonzero(face.skinmask)
    say(f"note: {reason} and no 'skinmask'; the skin is what lies between the landmarks of brows, eyes and lips")
    return bfm_regions.skin_by_landmarks(face.mean_shape, face.landmarks)


def _pairs(folder, crop, face, say) -> np.ndarray:
    """Left/right pairs, from the list or from the mean face."""
    path = files.locate(folder, files.SYMMETRY)
    rows = files.read_symmetry_list(path) if path else None
    reason = "" if path else f"there is no {files.SYMMETRY.names[0]}"
    if path and crop is None and rows.max() > len(face.mean_shape):
        reason = (f"{path} counts the vertices of the whole model and needs {files.SELECT.names[0]} beside it to tell "
                  "which are kept")
    if reason:
        pairs = bfm_regions.found_pairs(face.mean_shape, face.landmarks)
        say(f"note: {reason}; {len(pairs):,} left/right pairs were found in the mean face")
        return pairs
    try:
        pairs, reading = bfm_regions.crop_pairs(rows, crop, face.mean_shape)
    except UserError as error:
        raise BrokenFile(path, str(error)) from error
    say(f"{path}: read as {reading}; {len(pairs):,} of {len(rows):,} pairs lie within the crop")
    return pairs
