"""The official files a Basel Face Model of 2009 is put together from: names, contents, origin.

Sizes are those of the published files: BFM09 has 53,490 vertices, the expression basis covers 53,215
of them, and Deep3DFaceReconstruction's crop keeps 35,709 of those. docs/bfm09.md tells where to get each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facegcn.assets.matfile import ArraySpec, AtLeast, check_arrays
from facegcn.errors import BrokenFile
from facegcn.files import brief
from facegcn.landmarks import LANDMARK_COUNT

FULL_VERTICES = 53490  # BFM09 [Paysan et al. 2009]
EXPRESSION_VERTICES = 53215  # the expression basis [Guo et al. 2018, 3DFace]
CROP_VERTICES = 35709  # without ears and neck [Deng et al. 2019]
IDENTITY, EXPRESSION, ALBEDO = 80, 64, 80  # components used [Deng et al. 2019]
SKIN_LABEL = 3  # of face05_4seg: 0 nose, 1 eyes, 2 mouth, 3 the rest of the face [released code]

_FOLDERS = ("", "BFM", "data")  # of a data folder, of Deep3DFaceReconstruction, of the released code

MORPHABLE_ARRAYS = {
    "shapeMU": ArraySpec((3 * FULL_VERTICES,)), "shapePC": ArraySpec((3 * FULL_VERTICES, AtLeast(IDENTITY))),
    "shapeEV": ArraySpec((AtLeast(IDENTITY),)), "texMU": ArraySpec((3 * FULL_VERTICES,)),
    "texPC": ArraySpec((3 * FULL_VERTICES, AtLeast(ALBEDO))), "texEV": ArraySpec((AtLeast(ALBEDO),))}
FRONT_ARRAYS = {"idx": ArraySpec((CROP_VERTICES,), "index", EXPRESSION_VERTICES)}
TRIM_ARRAYS = {"trimIndex": ArraySpec((EXPRESSION_VERTICES,), "index", FULL_VERTICES)}
SELECT_ARRAYS = {"select_id": ArraySpec((CROP_VERTICES,), "index", FULL_VERTICES)}
INFO_ARRAYS = {"tri": ArraySpec((AtLeast(1), 3), "index", CROP_VERTICES),
               "keypoints": ArraySpec((LANDMARK_COUNT,), "index", CROP_VERTICES),
               "skinmask": ArraySpec((CROP_VERTICES,), "labels", 1, required=False)}
FINISHED_ARRAYS = {
    "meanshape": ArraySpec((3 * CROP_VERTICES,)), "idBase": ArraySpec((3 * CROP_VERTICES, AtLeast(IDENTITY))),
    "exBase": ArraySpec((3 * CROP_VERTICES, AtLeast(EXPRESSION))), "meantex": ArraySpec((3 * CROP_VERTICES,)),
    "texBase": ArraySpec((3 * CROP_VERTICES, AtLeast(ALBEDO))), **INFO_ARRAYS}
SEGMENT_ARRAYS = {"face05_4seg": ArraySpec((FULL_VERTICES,), "labels", SKIN_LABEL)}

_BFM_SITE = "faces.dmi.unibas.ch/bfm (Basel Face Model 2009; sign the licence, the archive comes by mail)"
_BFM_LICENCE = "BFM licence: research, no passing on"
_DENG = "github.com/microsoft/Deep3DFaceReconstruction, folder BFM"


@dataclass(frozen=True)
class OfficialFile:
    """One file of the set.

    Attributes:
        names: under which it is accepted, the official one first, then the released code's.
        use: what it is for.
        source: where it comes from.
        licence: of its content.
        holds: its arrays, for people.
        check: takes a path and raises ``BrokenFile`` when the file cannot be used; cheap; its result is not used.
    """

    names: tuple[str, ...]
    use: str
    source: str
    licence: str
    holds: str
    check: Callable[[str], object]


def _mat(names, use, source, licence, arrays) -> OfficialFile:
    holds = ", ".join(f"{name} {spec.describe()}" for name, spec in arrays.items() if spec.required)
    return OfficialFile(names, use, source, licence, holds, lambda path: check_arrays(path, arrays))


def locate(folder: str, file: OfficialFile) -> str | None:
    """The path of a file in a folder, its ``BFM`` or its ``data`` folder, under any accepted name; or None."""
    for name in file.names:
        for inner in _FOLDERS:
            path = os.path.join(folder, inner, name)
            if os.path.isfile(path):
                return path
    return None


# ---------------------------------------------------------------- files that are not MATLAB's
def expression_size(path: str) -> int:
    """Number of components of ``Exp_Pca.bin``: int32 count, float32 mean, float32 components, vertex-major.

    Raises:
        BrokenFile: the count is impossible or does not agree with the file's length.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(4)
    if len(head) < 4:
        raise BrokenFile(path, f"ends too early ({size} bytes); copy it anew")
    count = int(np.frombuffer(head, "<i4")[0])
    if not EXPRESSION <= count <= 3 * EXPRESSION_VERTICES:
        raise BrokenFile(path, f"begins with {count} as the number of components, expected {EXPRESSION} or more "
                               "(79 in the published file): it is another file, or of another byte order")
    expected = 4 + 4 * 3 * EXPRESSION_VERTICES * (1 + count)
    if size != expected:
        what = "ends too early: it was cut short" if size < expected else "is too long"
        raise BrokenFile(path, f"{what}; it has {size} bytes, {count} components of {EXPRESSION_VERTICES} "
                               f"vertices take {expected}; copy it anew")
    return count


def read_expressions(path: str, rows: np.ndarray) -> np.ndarray:
    """(R, 3, 64) float32: the first components of ``Exp_Pca.bin`` at vertices ``rows`` (R,), unscaled.

    The mean that the file also holds is not applied, as in Deep3DFaceReconstruction's model.

    Raises:
        BrokenFile: as ``expression_size``; or a number that is read is not finite.
    """
    count = expression_size(path)
    stored = np.memmap(path, "<f4", "r", offset=4, shape=(1 + count, EXPRESSION_VERTICES, 3))
    components = np.stack([stored[1 + component][rows] for component in range(EXPRESSION)], axis=-1)
    broken = np.flatnonzero(~np.isfinite(components).all(axis=(0, 1)))
    if len(broken):
        raise BrokenFile(path, f"component {broken[0] + 1} has values that are not finite; copy it anew")
    return components


def read_deviations(path: str) -> np.ndarray:
    """(K,) float64 standard deviations of the expression components, of ``std_exp.txt``.

    Raises:
        BrokenFile: not numbers above 0, or fewer than are used.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = np.array([float(word) for word in file.read().split()])
    except ValueError as error:
        raise BrokenFile(path, f"must hold numbers between spaces: {brief(error)}") from error
    if len(values) < EXPRESSION or not np.isfinite(values).all() or values.min() <= 0:
        raise BrokenFile(path, f"must hold {EXPRESSION} or more standard deviations above 0 (79 in the published "
                               f"file), has {len(values)}")
    return values


def read_symmetry_list(path: str) -> np.ndarray:
    """(P, 2) int64 vertex pairs as they stand in ``face05_symlist.txt``, one pair a line.

    Raises:
        BrokenFile: a line is not two whole numbers, or there is none.
    """
    rows = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                words = line.split()
                if words:
                    if len(words) != 2:
                        raise ValueError(f"line {number} is '{line.strip()}'")
                    rows.append([int(word) for word in words])
    except ValueError as error:
        raise BrokenFile(path, f"must hold two vertex numbers a line: {brief(error)}") from error
    if not rows:
        raise BrokenFile(path, "is empty; expected two vertex numbers a line")
    rows = np.array(rows)
    if rows.min() < 0 or rows.max() > FULL_VERTICES:
        raise BrokenFile(path, f"has an index out of range: {rows.min()}..{rows.max()}, "
                               f"the model has {FULL_VERTICES} vertices")
    return rows


# ---------------------------------------------------------------- the set
MORPHABLE = _mat(("01_MorphableModel.mat",), "mean, identity and albedo components of the face", _BFM_SITE,
                 _BFM_LICENCE, MORPHABLE_ARRAYS)
EXPRESSIONS = OfficialFile(
    ("Exp_Pca.bin",), "expression components", 'github.com/Juyong/3DFace, "CoarseData" (Coarse_Dataset.zip)',
    "research; made from FaceWarehouse",
    f"int32 K (79), float32 mean (3 x {EXPRESSION_VERTICES}), float32 components (K, 3 x {EXPRESSION_VERTICES})",
    expression_size)
DEVIATIONS = OfficialFile(("std_exp.txt",), "standard deviations of the expression components", _DENG, "MIT",
                          "79 numbers", read_deviations)
FRONT = _mat(("BFM_front_idx.mat",), "which vertices of the expression basis are kept", _DENG, "MIT", FRONT_ARRAYS)
TRIM = _mat(("BFM_exp_idx.mat",), "which vertices of BFM09 the expression basis covers", _DENG, "MIT", TRIM_ARRAYS)
SELECT = _mat(("select_vertex_id.mat", "bfm2009_face_idx.mat"),
              "which vertices of BFM09 are kept (the same as BFM_exp_idx.mat at BFM_front_idx.mat); a finished "
              "BFM_model_front.mat needs it to use face05_4seg.mat and face05_symlist.txt", _DENG, "MIT",
              SELECT_ARRAYS)
INFO = _mat(("facemodel_info.mat",), "triangles and landmarks of the crop", _DENG, "MIT", INFO_ARRAYS)
SEGMENTS = _mat(("face05_4seg.mat", "bfm2009_4seg.mat"), "skin region; without it: skinmask of the crop", _BFM_SITE,
                _BFM_LICENCE, SEGMENT_ARRAYS)
SYMMETRY = OfficialFile(
    ("face05_symlist.txt", "bfm2009_symlist.txt", "bfm2009_face_symlist.txt"),
    "left/right pairs; without it: found in the mean face", _BFM_SITE, _BFM_LICENCE,
    "two vertex numbers a line", read_symmetry_list)

#: What a model is made of: every one of these (``SELECT`` stands in for ``TRIM``), or ``FINISHED`` alone.
PARTS = (MORPHABLE, EXPRESSIONS, DEVIATIONS, FRONT, TRIM, INFO)
FINISHED = _mat(("BFM_model_front.mat", "bfm2009_face.mat"),
                f"the finished crop, in place of {', '.join(part.names[0] for part in PARTS)}",
                "made by Deep3DFaceReconstruction's transferBFM09", _BFM_LICENCE, FINISHED_ARRAYS)
#: What is used besides when it is there.
EXTRAS = (SELECT, SEGMENTS, SYMMETRY)


def missing_parts(folder: str) -> list[OfficialFile]:
    """The files of ``PARTS`` that a folder lacks."""
    return [part for part in PARTS if locate(folder, part) is None
            and not (part is TRIM and locate(folder, SELECT))]


def has_sources(folder: str) -> bool:
    """Whether a folder has what a model is made of."""
    return locate(folder, FINISHED) is not None or not missing_parts(folder)


def read_files(folder: str) -> list[OfficialFile]:
    """The files that a model is made of in a folder, of those that are there: what ``bfm09.convert_bfm09`` opens.

    Where neither all of ``PARTS`` nor ``FINISHED`` is there, those that it will open once the set is complete.
    """
    def there(file):
        return locate(folder, file) is not None

    if not missing_parts(folder) or not there(FINISHED):
        return [file for file in (*PARTS, *EXTRAS) if there(file)]
    crop = [SELECT] * there(SELECT) + [FRONT, TRIM] * (there(FRONT) and there(TRIM))
    return [FINISHED, *crop, *[SEGMENTS] * (there(SEGMENTS) and bool(crop)), *[SYMMETRY] * there(SYMMETRY)]
