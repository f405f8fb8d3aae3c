"""Reads ICT-FaceKit (ICT-VGL/ICT-FaceKit, light model, MIT licence): a checkout or an extract.

The checkout's folder ``FaceXModel`` holds OBJ files of one topology: the neutral face, one file
for each identity and expression. A mode is its OBJ minus the neutral; unit about a centimetre,
y up, the face looks along +z. Facts of the vertex numbering are in ``LAYOUT``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from facegcn.errors import BrokenFile, UserError, log
from facegcn.files import brief, read_npz

WHERE_FROM = "clone https://github.com/ICT-VGL/ICT-FaceKit (MIT licence) and give its folder as --source"
IDENTITIES, EXPRESSIONS = 100, 53  # in a complete checkout

_NEUTRAL = "generic_neutral_mesh.obj"
_INDICES = "vertex_indices.json"
_FARTHEST = 1e6  # of a coordinate, in the source's unit
_EYE_FORWARD = 0.2  # triangles of the eyeballs are kept when the z of their unit normal is above


@dataclass(frozen=True)
class Layout:
    """Which vertices of the OBJ files are what, as half-open ranges; facts of ICT-FaceKit.

    Attributes:
        total: vertices in every OBJ file.
        narrow: the frontal face is 0..narrow-1.
        face: the face with ears and the front of the neck is 0..face-1.
        skin_faces: the first so many faces of the files are the skin's.
        eyeballs: the outer shells (sclera and cornea in one) of the left and the right eye.
        parts: (name, first, stop) of what a face can carry beside its surface; the iris inside the opaque shell of an
            eye is not among them.
    """

    total: int = 26719
    narrow: int = 6706
    face: int = 9409
    skin_faces: int = 9230
    eyeballs: tuple = ((21451, 22221), (23021, 23791))
    parts: tuple = (("eyeballLeft", 21451, 22221), ("eyeballRight", 23021, 23791), ("gumsAndTongue", 14062, 17039),
                    ("upperTeeth", 17039, 19247), ("lowerTeeth", 19247, 21451))


LAYOUT = Layout()


@dataclass
class IctParts:
    """Meshes beside the skin, in the source's unit; M vertices of Q parts.

    Attributes:
        names: Q.
        of: (M,) int32, the part that each vertex belongs to.
        vertices: (M, 3) float32.
        triangles: (T, 3) int32 into ``vertices``.
        identity: (M, 3, Ki) float32.
        expression: (M, 3, Ke) float32.
    """

    names: tuple
    of: np.ndarray
    vertices: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray
    expression: np.ndarray


@dataclass
class IctSource:
    """Skin and eyeball fronts of ICT-FaceKit, in its own unit (about 1 cm).

    Attributes:
        mean: (n, 3) float32 the neutral face, skin first, then the eyeballs.
        identity: (n, 3, Ki) float32 modes, coefficients N(0, 1).
        expression: (n, 3, Ke) float32 modes, coefficients 0..1.
        expression_names: Ke names, ``_L`` and ``_R`` for the sides.
        triangles: (f, 3) int32; the two halves of a quad follow each other.
        eye: (n,) bool, vertices of the eyeballs.
        narrow: number of the skin vertices that belong to the frontal face; they come first.
        landmarks: (68,) int32, Multi-PIE (iBUG) order.
        uv: (n, 2) float32 texture coordinates, NaN where there are none, or None.
        parts: eyeballs, teeth, gums and tongue, or None: an extract has none.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: list
    triangles: np.ndarray
    eye: np.ndarray
    narrow: int
    landmarks: np.ndarray
    uv: np.ndarray | None
    parts: IctParts | None = None


def read_source(path: str, layout: Layout = LAYOUT) -> IctSource:
    """Reads a checkout (its root or ``FaceXModel``) or an extracted ``.npz``.

    Raises:
        UserError: nothing usable is there; names the missing file or array and the cure.
    """
    if os.path.isdir(path):
        return read_checkout(path, layout)
    if os.path.isfile(path):
        return read_extract(path)
    raise UserError(f"--source {path}: there is no such folder or file; {WHERE_FROM}")


# -------------------------------------------------------------------- checkout
def read_checkout(folder: str, layout: Layout = LAYOUT) -> IctSource:
    """Reads the OBJ files of a checkout; works with any number of modes and warns when some lack.

    Raises:
        UserError: a file is missing or is not ICT-FaceKit's.
    """
    inner = os.path.join(folder, "FaceXModel")
    folder = inner if os.path.isdir(inner) else folder
    names = set(os.listdir(folder))
    missing = [n for n in (_NEUTRAL, _INDICES) if n not in names]
    if missing:
        raise UserError(f"{folder} lacks {' and '.join(missing)}, so it is no FaceXModel folder; {WHERE_FROM}")
    facts = _read_json(os.path.join(folder, _INDICES))
    landmarks = np.array(facts["idx_to_landmark_verts"])
    _check_range(os.path.join(folder, _INDICES), "idx_to_landmark_verts", landmarks, layout.face)
    landmarks = landmarks.astype(np.int32)
    identities = sorted(n for n in names if n.startswith("identity") and n.endswith(".obj"))
    expressions = [n for n in facts["expressions"] if f"{n}.obj" in names]
    if not identities or not expressions:
        raise UserError(f"{folder} has {len(identities)} identity and {len(expressions)} expression OBJ files; "
                        f"at least one of each is needed: {WHERE_FROM}")
    _warn_incomplete(folder, len(identities), len(expressions))
    neutral, texture, quads = _read_neutral(os.path.join(folder, _NEUTRAL), layout)
    kept, triangles, eye = _select(neutral, quads, layout)
    if not np.array_equal(kept[:layout.face], np.arange(layout.face)):
        raise UserError(f"{folder}/{_NEUTRAL}: its faces leave out vertices of the skin; {WHERE_FROM}")
    files = identities + [f"{n}.obj" for n in expressions]
    names, of, beside, part_triangles = _select_parts(quads, layout)
    used = np.concatenate([kept, beside])
    modes = np.stack([_read_vertices(os.path.join(folder, n), layout)[used] - neutral[used]
                      for n in tqdm(files, desc="ICT-FaceKit", unit="file")], axis=2).astype(np.float32)
    of_parts, modes = modes[len(kept):], modes[:len(kept)]
    parts = IctParts(names, of, neutral[beside].astype(np.float32), part_triangles, of_parts[..., :len(identities)],
                     of_parts[..., len(identities):]) if names else None
    uv = None if texture is None else np.where(eye[:, None], np.nan, texture[kept]).astype(np.float32)
    return IctSource(neutral[kept].astype(np.float32), modes[..., :len(identities)], modes[..., len(identities):],
                     expressions, triangles, eye, layout.narrow, landmarks, uv, parts)


def _check_range(path, name, index, count):
    if not 0 <= index.min() <= index.max() < count:
        raise UserError(f"{path}: {name} must lie in 0..{count - 1}, found {index.min()}..{index.max()}; {WHERE_FROM}")


def _warn_incomplete(folder, identities, expressions):
    log.info("%s: %s identity and %s expression modes", folder, identities, expressions)
    if identities < IDENTITIES or expressions < EXPRESSIONS:
        log.warning("warning: a complete checkout has %s and %s; the model will know fewer faces and expressions",
                    IDENTITIES, EXPRESSIONS)


def _read_json(path):
    """The index file; raises UserError when it is broken or lacks an entry."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        landmarks, names = facts["idx_to_landmark_verts"], facts["expressions"]
        if len(landmarks) == 68 and names and set(map(type, landmarks)) == {int} and set(map(type, names)) == {str}:
            return facts
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as ICT-FaceKit's index file ({type(error).__name__} {brief(error)}); "
                        f"{WHERE_FROM}") from error
    raise UserError(f"{path} must list 68 landmarks and the expressions; {WHERE_FROM}")


def _lines(path):
    try:
        with open(path, "rb") as file:
            return file.read().splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _numbers(lines, prefix, width, path):
    """The numbers of all lines that start with ``prefix``, (lines, width) float64."""
    chosen = [line[len(prefix):] for line in lines if line.startswith(prefix)]
    try:
        numbers = np.array(b" ".join(chosen).split(), dtype=np.float64).reshape(len(chosen), width)
    except ValueError as error:
        raise UserError(f"{path} is not a readable OBJ file: a line '{prefix.decode().strip()}' must hold "
                        f"{width} numbers") from error
    if not (np.abs(numbers) < _FARTHEST).all():  # False for NaN
        raise UserError(f"{path}: a line '{prefix.decode().strip()}' has a number that is no place")
    return numbers


def _read_vertices(path, layout, lines=None):
    """Vertex positions (total, 3) of an OBJ file."""
    vertices = _numbers(_lines(path) if lines is None else lines, b"v ", 3, path)
    if len(vertices) != layout.total:
        raise UserError(f"{path} has {len(vertices)} vertices, ICT-FaceKit's light model has {layout.total}; "
                        "the file is cut short or of another model")
    return vertices


def _read_neutral(path, layout):
    """Vertices, texture coordinates by vertex (first use wins) or None, faces as (vertex, texture) pairs."""
    lines = _lines(path)
    vertices = _read_vertices(path, layout, lines)
    table = _numbers(lines, b"vt ", 2, path)
    try:
        faces = [[tuple(int(i or 0) - 1 for i in (corner + b"/").split(b"/")[:2]) for corner in line.split()[1:]]
                 for line in lines if line.startswith(b"f ")]
    except ValueError as error:
        raise UserError(f"{path} is not a readable OBJ file: a face has a corner that is no number") from error
    if not faces or min(map(len, faces)) < 3 or not all(0 <= v < len(vertices) for face in faces for v, _ in face):
        raise UserError(f"{path} is not a readable OBJ file: a face has less than three corners, or one that is no "
                        f"vertex of 1..{len(vertices)}; {WHERE_FROM}")
    texture = np.full((len(vertices), 2), np.nan)
    for face in reversed(faces):
        for vertex, coordinate in face:
            if 0 <= coordinate < len(table):
                texture[vertex] = table[coordinate]
    return vertices, None if np.isnan(texture).all() else texture, [[v for v, _ in face] for face in faces]


def _fans(faces):
    """Triangles of polygons."""
    return np.array([(f[0], f[k], f[k + 1]) for f in faces for k in range(1, len(f) - 1)])


def _select_parts(faces, layout):
    """Names of the parts, part of each vertex, these vertices, and their triangles renumbered."""
    fans, names, ids, triangles, first = _fans(faces), [], [], [], 0
    for name, start, stop in layout.parts:
        own = fans[((start <= fans) & (fans < stop)).all(axis=1)]
        if len(own):
            kept = np.unique(own)
            names.append(name)
            ids.append(kept)
            triangles.append(np.searchsorted(kept, own) + first)
            first += len(kept)
    of = np.repeat(np.arange(len(ids)), [len(kept) for kept in ids]).astype(np.int32)
    return (tuple(names), of, np.concatenate(ids or [np.zeros(0, np.int64)]),
            np.concatenate(triangles or [np.zeros((0, 3))]).astype(np.int32))


def _select(vertices, faces, layout):
    """Skin and the front of the eyeballs: kept vertices, their triangles renumbered, eye flags."""
    fans = _fans(faces)
    lowest, highest = fans.min(axis=1), fans.max(axis=1)
    skin = np.arange(len(fans)) < sum(len(f) - 2 for f in faces[:layout.skin_faces])
    eyeball = np.any([(first <= lowest) & (highest < stop) for first, stop in layout.eyeballs], axis=0)
    a, b, c = vertices[fans.T]
    normal = np.cross(b - a, c - a)
    forward = normal[:, 2] > _EYE_FORWARD * np.linalg.norm(normal, axis=1)
    chosen = fans[skin | eyeball & forward]
    kept = np.unique(chosen)
    return kept, np.searchsorted(kept, chosen).astype(np.int32), kept >= layout.face


# -------------------------------------------------------------------- extract
def _check_array(path, name, array, shape):
    """Raises UserError where an array is not of a shape, None = any length, or no numbers that can be."""
    if array.ndim != len(shape) or any(want not in (None, have) for have, want in zip(array.shape, shape)):
        expected = ", ".join("any" if want is None else str(want) for want in shape)
        raise UserError(f"{path}: array '{name}' has shape {array.shape}, expected ({expected})")
    if name == "expression_names":
        good = array.dtype.kind == "U"
    elif name == "uv":  # there may be none at the eyes
        good = array.dtype.kind == "f"
    else:
        good = array.dtype.kind in "biuf" and (np.abs(array.astype(np.float64)) < _FARTHEST).all()
    if not good:
        raise UserError(f"{path}: array '{name}' has values that are not what they should be: {array.dtype}, or not "
                        "finite")


def read_extract(path: str) -> IctSource:
    """Reads an ``.npz`` with mean, triangles, identity_basis, expression_basis, landmarks68, n_narrow ...

    Raises:
        UserError: unreadable, or an array is missing.
    """
    wanted = ("mean", "triangles", "identity_basis", "expression_basis", "expression_names", "landmarks68",
              "n_narrow")
    try:
        arrays = read_npz(path)
    except BrokenFile as error:
        raise UserError(f"--source {path} is neither a folder nor a readable .npz: {error.reason}") from error
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise UserError(f"{path} lacks the arrays {', '.join(missing)}; {WHERE_FROM}")
    count, names = arrays["mean"].shape[:1], arrays["expression_names"].shape
    shapes = {"mean": (*count, 3), "identity_basis": (*count, 3, None), "expression_basis": (*count, 3, *names),
              "part": count, "uv": (*count, 2), "landmarks68": (68,), "triangles": (None, 3), "n_narrow": (),
              "expression_names": (None,)}
    for name, shape in shapes.items():
        if name in arrays:
            _check_array(path, name, arrays[name], shape)
    count = len(arrays["mean"])
    for name, least, most in (("triangles", 0, count - 1), ("landmarks68", 0, count - 1), ("n_narrow", 1, count)):
        array = arrays[name]
        if array.dtype.kind not in "iu" or not array.size or not least <= array.min() <= array.max() <= most:
            raise UserError(f"{path}: array '{name}' must hold whole numbers from {least} to {most}")
    eye = arrays["part"] > 0 if "part" in arrays else np.zeros(count, bool)
    if not eye.any():
        log.warning("warning: this extract has no eyeballs; the model will have holes at the eyes")
    return IctSource(arrays["mean"].astype(np.float32), arrays["identity_basis"].astype(np.float32),
                     arrays["expression_basis"].astype(np.float32), [str(n) for n in arrays["expression_names"]],
                     arrays["triangles"].astype(np.int32), eye, int(arrays["n_narrow"]),
                     arrays["landmarks68"].astype(np.int32), arrays.get("uv"))
