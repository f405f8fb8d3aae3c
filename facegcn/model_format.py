"""The file format of the morphable model: what its arrays must look like, and what they must mean.

This is the one place that says it: ``MorphableModel`` and ``python -m facegcn.assets check`` both ask here. The
format is described for model makers in ``docs/model_format.md``. Letters: N vertices, F triangles, Ki / Ke / Ka
components (0 allowed), S skin vertices, P pairs, A named expressions, Q parts of M vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from facegcn.blendshapes import ARKIT_NAMES
from facegcn.errors import BrokenFile, ModelFileError
from facegcn.files import finite_as_float32, npz_headers, read_npz
from facegcn.landmarks import DENSE_COUNT, FIVE_POINT_LANDMARKS, LANDMARK_COUNT


class ArrayFormat(NamedTuple):
    """What one array looks like.

    Attributes:
        shape: lengths; "N" is the number of vertices, other letters stand for any length.
        index: whether it holds vertex numbers (int32), not values (float32).
        required: whether a model must have it.
        text: whether it holds words instead of numbers.
    """

    shape: tuple
    index: bool = False
    required: bool = True
    text: bool = False


ARRAYS = {
    "mean_shape": ArrayFormat(("N", 3)), "id_basis": ArrayFormat(("N", 3, "Ki")),
    "exp_basis": ArrayFormat(("N", 3, "Ke")), "mean_albedo": ArrayFormat(("N", 3)),
    "albedo_basis": ArrayFormat(("N", 3, "Ka")), "triangles": ArrayFormat(("F", 3), index=True),
    "landmarks": ArrayFormat((LANDMARK_COUNT,), index=True), "skin_index": ArrayFormat(("S",), index=True),
    "symmetry_pairs": ArrayFormat(("P", 2), index=True), "uv": ArrayFormat(("N", 2), required=False)}
#: Where the dense landmarks lie (``surface_points.LandmarkEmbedding``): all of these, or none.
EMBEDDING_ARRAYS = {
    "dense_triangles": ArrayFormat((DENSE_COUNT,), index=True), "dense_barycentrics": ArrayFormat((DENSE_COUNT, 3)),
    "dense_bias": ArrayFormat((DENSE_COUNT, 2)), "dense_noise": ArrayFormat((DENSE_COUNT,)),
    "dense_factors": ArrayFormat((DENSE_COUNT, 2, "R"))}
#: Named expressions (``facegcn.blendshapes``): both of these, or none.
BLENDSHAPE_ARRAYS = {"blendshapes": ArrayFormat(("N", 3, "A")), "blendshape_names": ArrayFormat(("A",), text=True)}
#: Eyeballs, teeth, gums and tongue (``facegcn.face_parts.FaceParts``): all of these, or none; with named expressions.
PART_ARRAYS = {
    "part_names": ArrayFormat(("Q",), text=True), "part_of": ArrayFormat(("M",), index=True),
    "part_vertices": ArrayFormat(("M", 3)), "part_triangles": ArrayFormat(("T", 3), index=True),
    "part_colors": ArrayFormat(("M", 3)), "part_identity": ArrayFormat(("Q", 4, 3, "Ki")),
    "part_blendshapes": ArrayFormat(("M", 3, "A")), "part_replaces": ArrayFormat(("R",), index=True),
    "part_recess": ArrayFormat(("N",))}
#: Where the surface lies in a texture (``texture_layout.TextureLayout``): all of these, or none.
TEXTURE_ARRAYS = {
    "texture_uv": ArrayFormat(("V", 2)), "texture_triangles": ArrayFormat(("F", 3), index=True),
    "texture_vertices": ArrayFormat(("V",), index=True)}
#: Which arrays give the lengths that others must have.
_LENGTHS = {"N": ("mean_shape", 0), "F": ("triangles", 0), "Ki": ("id_basis", 2), "A": ("blendshape_names", 0),
            "Q": ("part_names", 0), "M": ("part_of", 0), "V": ("texture_vertices", 0)}
#: Optional arrays that go together: the array, and how to do without.
_GROUPS = ((EMBEDDING_ARRAYS, "leave all arrays 'dense_...' out; they are then learnt on first use, or with\n"
                              "  python -m facegcn.assets landmarks --model FILE"),
           (BLENDSHAPE_ARRAYS, "give both, or leave both out"),
           (PART_ARRAYS, "give all arrays 'part_...', or leave them all out"),
           (TEXTURE_ARRAYS, "leave all arrays 'texture_...' out; a layout is then made on first use"))
_OPTIONAL = EMBEDDING_ARRAYS | BLENDSHAPE_ARRAYS | PART_ARRAYS | TEXTURE_ARRAYS
_BASES = ("id_basis", "exp_basis", "albedo_basis", "blendshapes", "part_blendshapes")  # most of a file's bytes
MADE_BY = "made_by"  # optional text: which converter, in which version, wrote the file

# Limits of what a face can be. They are wide: they tell a mistake of convention, not an unusual face.
_EYES_APART = (0.4, 1.2)  # decimetre between the eyes' centres; children 0.5, adults 0.63 (0.54 to 0.74), giants less
_USUAL_EYES_APART = 0.63  # decimetre, adults' mean
_UPRIGHT = 0.7  # least cosine between the face's own axes and the format's: 45 degrees, no mean face is turned so far
_SAME_LANDMARKS = LANDMARK_COUNT // 2  # more than half on one vertex with others: a list of zeros, not a coarse mesh
_BRIGHTEST_FRACTION = 2.0  # a mean albedo that nowhere exceeds it is meant from 0 to 1, or from -1 to 1
_BRIGHTEST = 512.0  # levels; twice white: 16-bit colours, or components that are already added up
_MIX_ERROR = 1e-3  # of barycentric weights
_NEW_EMBEDDING, _NEW_TEXTURE = _GROUPS[0][1], _GROUPS[3][1]
_LARGEST_STEP = 1.0  # decimetre that one standard deviation may move a vertex: half the width of a face


# ---------------------------------------------------------------- files
def read_model_file(path: str, bases: bool = True) -> dict[str, np.ndarray]:
    """The arrays of a model's ``.npz``, with names, types and shapes checked; never unpickles.

    Args:
        path: the file; arrays that are not of the format are left alone.
        bases: False leaves the three bases and the named shapes out, after a look at their headers: most of the
            time goes with them.

    Raises:
        ModelFileError: the file is absent or no whole ``.npz``, or an array is missing, of another type or shape.
    """
    try:
        headers = npz_headers(path)
        _located(path, check_headers, headers)
        wanted = [name for name in (*ARRAYS, *_OPTIONAL, MADE_BY)
                  if name in headers and (bases or name not in _BASES)]
        return read_npz(path, wanted)
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no morphable model at {path}") from error
    except BrokenFile as error:
        raise ModelFileError(str(error)) from error


def check_model_file(path: str) -> dict[str, tuple]:
    """Checks a model file without reading its bases; returns ``npz_headers`` of it.

    Raises:
        ModelFileError: as ``MorphableModel.load``, but for numbers in the bases.
    """
    arrays = read_model_file(path, bases=False)
    _located(path, check_values, arrays)
    _located(path, check_conventions, arrays)
    return npz_headers(path)


def _located(path, check, *arguments):
    """Runs a check; its message begins with the file."""
    try:
        check(*arguments)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


# ---------------------------------------------------------------- shapes and numbers
def check_headers(headers: Mapping[str, tuple[tuple, np.dtype]]) -> None:
    """Checks names, types and shapes.

    Args:
        headers: (shape, dtype) by array name; others than the format's are left alone.

    Raises:
        ModelFileError: names what is missing, or the first misfit.
    """
    missing = [name for name, wanted in ARRAYS.items() if wanted.required and name not in headers]
    if missing:
        raise ModelFileError(f"lacks the arrays {', '.join(missing)} (docs/model_format.md describes them)")
    for group, cure in _GROUPS:
        present = [name for name in group if name in headers]
        if present and len(present) < len(group):
            absent = ", ".join(name for name in group if name not in headers)
            raise ModelFileError(f"has '{present[0]}' but lacks {absent}: {cure}")
    if "part_names" in headers and "blendshape_names" not in headers:
        raise ModelFileError("has parts ('part_...') but no 'blendshapes' that move them: give both, or leave both out")
    lengths = {letter: headers[name][0][axis] for letter, (name, axis) in _LENGTHS.items()
               if name in headers and len(headers[name][0]) == len((ARRAYS | _OPTIONAL)[name].shape)}
    for name, wanted in (ARRAYS | _OPTIONAL).items():
        if name not in headers:
            continue
        _check_header(name, wanted, *headers[name], lengths)
    for name in ("mean_shape", "triangles", "blendshape_names", "part_names", "part_triangles"):
        if name in headers and not headers[name][0][0]:
            raise ModelFileError(f"array '{name}' is empty")


def _check_header(name, wanted, shape, dtype, lengths):
    """Raises ModelFileError where an array is not as its ``ArrayFormat`` says, with the lengths that are known."""
    fits = len(shape) == len(wanted.shape) and all(
        have == lengths.get(want, want) or isinstance(want, str) and want not in lengths
        for want, have in zip(wanted.shape, shape))
    if not fits:
        expected = ", ".join(f"{want}={lengths[want]}" if want in lengths else str(want) for want in wanted.shape)
        raise ModelFileError(f"array '{name}' has shape {shape}, expected ({expected})")
    if dtype.kind not in ("U" if wanted.text else "iuf"):
        raise ModelFileError(f"array '{name}' is {dtype}, expected "
                             f"{'text' if wanted.text else 'int32' if wanted.index else 'float32'}")


def check_values(arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that vertex numbers are whole and in range, and that values are finite in single precision; likewise of
    the landmark embedding, of named expressions, of parts and of the texture layout, where there are such.

    Raises:
        ModelFileError: names the first array that is not so.
    """
    count = len(arrays["mean_shape"])
    for name, (_, index, *_) in ARRAYS.items():
        array = arrays.get(name)
        if array is None or not array.size:
            continue
        _check_finite(name, array)
        if index and array.dtype.kind == "f" and (array != np.round(array)).any():
            raise ModelFileError(f"array '{name}' must hold vertex numbers, but has some that are not whole")
        if index and not 0 <= array.min() <= array.max() < count:
            one_based = array.min() >= 1 and array.max() == count
            raise ModelFileError(f"array '{name}' has an index outside 0..{count - 1}: {array.min():.0f}.."
                                 f"{array.max():.0f}" + ("; numbers count from 0: subtract 1" if one_based else ""))
    if set(EMBEDDING_ARRAYS) <= set(arrays):
        check_embedding(arrays, len(arrays["triangles"]))
    if "blendshapes" in arrays:
        _check_finite("blendshapes", arrays["blendshapes"])
    if "blendshape_names" in arrays:
        _check_blendshape_names([str(name) for name in arrays["blendshape_names"]])
    if "part_names" in arrays:
        _check_parts(arrays)
    if set(TEXTURE_ARRAYS) <= set(arrays):
        _check_texture(arrays)


def _check_finite(name, array):
    if not finite_as_float32(array):
        raise ModelFileError(f"array '{name}' has values that are not finite")


def check_embedding(arrays: Mapping[str, np.ndarray], count: int) -> None:
    """Checks a landmark embedding: triangles that exist, weights that mix, noise above zero.

    Args:
        arrays: ``EMBEDDING_ARRAYS``, among others.
        count: triangles of the model.

    Raises:
        ModelFileError: names the first array that is not so.
    """
    for name, wanted in EMBEDDING_ARRAYS.items():
        _check_header(name, wanted, arrays[name].shape, arrays[name].dtype, {})
        _check_finite(name, arrays[name])
    triangles, weights = arrays["dense_triangles"], arrays["dense_barycentrics"]
    if (triangles != np.round(triangles)).any() or not -1 <= triangles.min() <= triangles.max() < count:
        raise ModelFileError(f"array 'dense_triangles' must hold triangle numbers from 0 to {count - 1}, or -1: "
                             + _NEW_EMBEDDING)
    held = triangles >= 0
    if (weights[held] < -_MIX_ERROR).any() or (np.abs(weights[held].sum(axis=1) - 1) > _MIX_ERROR).any():
        raise ModelFileError(f"array 'dense_barycentrics' must hold weights from 0 to 1 with sum 1: {_NEW_EMBEDDING}")
    if (arrays["dense_noise"][held] <= 0).any():
        raise ModelFileError(f"array 'dense_noise' must be above 0 where there is a triangle: {_NEW_EMBEDDING}")


def _check_blendshape_names(names):
    """ARKit's names, each at most once."""
    unknown = [name for name in names if name not in ARKIT_NAMES]
    if unknown:
        raise ModelFileError(f"array 'blendshape_names' has {', '.join(map(repr, unknown[:5]))}, which "
                             f"{'are' if len(unknown) > 1 else 'is'} not among ARKit's 52 names "
                             "(facegcn/blendshapes.py lists them): rename them, or leave them and their shapes out")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelFileError(f"array 'blendshape_names' has {', '.join(twice)} more than once: give each its own name")


def _check_parts(arrays):
    """Numbers that are finite, and that number what is there."""
    for name, wanted in PART_ARRAYS.items():
        if name in arrays and not wanted.text:
            _check_finite(name, arrays[name])
    for name, count in (("part_of", len(arrays["part_names"])), ("part_triangles", len(arrays["part_vertices"])),
                        ("part_replaces", len(arrays["triangles"]))):
        array = arrays[name]
        if array.size and ((array != np.round(array)).any() or not 0 <= array.min() <= array.max() < count):
            raise ModelFileError(f"array '{name}' must hold whole numbers from 0 to {count - 1}, has "
                                 f"{array.min():g} to {array.max():g}")


def _check_texture(arrays):
    """Coordinates in [0, 1], and texture triangles that are the model's."""
    for name in TEXTURE_ARRAYS:
        _check_finite(name, arrays[name])
    uv, corners, vertices = (arrays[name] for name in TEXTURE_ARRAYS)
    if uv.size and not 0 <= uv.min() <= uv.max() <= 1:
        raise ModelFileError(f"array 'texture_uv' runs from {uv.min():.3g} to {uv.max():.3g}, expected 0 to 1: "
                             + _NEW_TEXTURE)
    fits = len(uv) == len(vertices) and corners.shape == arrays["triangles"].shape and \
        corners.size and 0 <= corners.min() <= corners.max() < len(uv)
    if not fits or (vertices[corners.astype(np.int64)] != arrays["triangles"]).any():
        raise ModelFileError(f"texture_vertices[texture_triangles] are not the model's triangles: {_NEW_TEXTURE}")


# ---------------------------------------------------------------- conventions
def check_conventions(arrays: Mapping[str, np.ndarray]) -> None:
    """Checks what arrays of the right shape can still get wrong: landmarks, unit, axes, winding, colour range.

    Args:
        arrays: by name, as ``check_values`` lets them pass; bases that are not there are not looked into.

    Raises:
        ModelFileError: names the mistake and its cure.
    """
    shape, landmarks = arrays["mean_shape"].astype(np.float64), arrays["landmarks"].astype(np.int64)
    _check_landmarks(landmarks)
    points = np.stack([shape[landmarks[list(group)]].mean(axis=0) for group in FIVE_POINT_LANDMARKS])
    _check_unit(points)
    _check_axes(points)
    _check_winding(shape, arrays["triangles"].astype(np.int64), landmarks)
    _check_colours(arrays["mean_albedo"])
    _check_steps(arrays)


def _check_landmarks(landmarks):
    """The alignment needs five different points; a coarse mesh may share the rest."""
    distinct = len(np.unique(landmarks))
    groups = [landmarks[list(group)] for group in FIVE_POINT_LANDMARKS]
    meet = any(set(a) & set(b) for i, a in enumerate(groups) for b in groups[:i])
    if meet or distinct < _SAME_LANDMARKS:
        raise ModelFileError(f"array 'landmarks' names only {distinct} different vertices for {LANDMARK_COUNT} points"
                             + ", the same for eyes, nose or mouth" * meet
                             + ": give each landmark its own vertex, in iBUG order")


def _check_unit(points):
    apart = float(np.linalg.norm(points[1] - points[0]))
    if _EYES_APART[0] <= apart <= _EYES_APART[1]:
        return
    factor = 10.0 ** np.round(np.log10(_USUAL_EYES_APART / apart)) if apart > 0 else np.nan
    if not _EYES_APART[0] <= apart * factor <= _EYES_APART[1]:
        factor = float(f"{_USUAL_EYES_APART / apart:.2g}") if apart > 0 else np.nan
    cure = (f"multiply 'mean_shape', 'id_basis' and 'exp_basis' by {factor:g}" if np.isfinite(factor) else
            "are the landmarks in iBUG order?")
    raise ModelFileError(f"the eyes (landmarks 36-41 and 42-47) lie {apart:.4g} apart, expected {_EYES_APART[0]} to "
                         f"{_EYES_APART[1]} decimetres ({_USUAL_EYES_APART} in adults): {cure}")


def _check_axes(points):
    """From eye to eye is +x, from mouth to eyes +y, and the nose tip lies in front of the eyes."""
    eyes = points[:2].mean(axis=0)
    across, up = points[1] - points[0], eyes - points[3:].mean(axis=0)
    towards = (across[0] / np.linalg.norm(across), up[1] / max(np.linalg.norm(up), 1e-9))
    if min(towards) >= _UPRIGHT and points[2, 2] > eyes[2]:
        return
    shown = [", ".join(f"{x:.2f}" for x in vector) for vector in (across, up, points[2] - eyes)]
    raise ModelFileError(
        f"the face does not look along +z with y up: from the left eye (in the picture) to the right is ({shown[0]}), "
        f"expected +x; from mouth to eyes is ({shown[1]}), expected +y; from the eyes to the nose tip is ({shown[2]}), "
        "expected z above 0: turn 'mean_shape', 'id_basis' and 'exp_basis', or correct the order of 'landmarks' (iBUG)")


def _check_winding(shape, triangles, landmarks):
    """Triangles at brows, nose, eyes and lips face the viewer; a whole head's surface would sum to nothing."""
    inner = np.zeros(len(shape), bool)
    inner[landmarks[17:60]] = True
    a, b, c = (shape[corner] for corner in triangles[inner[triangles].any(axis=1)].T)
    if np.cross(b - a, c - a)[:, 2].sum() < 0:
        raise ModelFileError("the triangles are clockwise seen from outside, so the face is inside out: reverse the "
                             "columns of 'triangles' (triangles[:, ::-1])")


def _check_colours(albedo):
    low, high = float(albedo.min()), float(albedo.max())
    if high <= _BRIGHTEST_FRACTION:
        raise ModelFileError(f"'mean_albedo' runs from {low:.3g} to {high:.3g}, expected levels from 0 to 255: "
                             "multiply 'mean_albedo' and 'albedo_basis' by 255"
                             + (" (first bring them from [-1, 1] to [0, 1])" if low < -0.5 else ""))
    if high > _BRIGHTEST or low < -_BRIGHTEST:
        raise ModelFileError(f"'mean_albedo' runs from {low:.4g} to {high:.4g}, expected levels from 0 to 255: divide "
                             f"'mean_albedo' and 'albedo_basis' by {max(high, -low) / 255:.3g}")


def _check_steps(arrays):
    for name in ("id_basis", "exp_basis", "blendshapes"):
        basis = arrays.get(name)
        if basis is not None and basis.size:
            step = float(np.sqrt(np.einsum("nck,nck->nk", basis, basis).max()))
            if step > _LARGEST_STEP:
                what = "a full activation in" if name == "blendshapes" else "one standard deviation of a component of"
                raise ModelFileError(f"{what} '{name}' moves a vertex by {step:.3g} "
                                     f"decimetres, more than {_LARGEST_STEP:g}: is '{name}' in decimetres, as "
                                     "'mean_shape' is?")
