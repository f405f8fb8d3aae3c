"""Converts ICT-FaceKit (see ict_source.py) into a MorphableModel.

What changes on the way: centimetre to decimetre; only the chosen region is kept; eyeball fronts
close the eyes and a recessed surface the mouth; the bases are re-orthogonalised on what is kept
and scaled to standard deviations, while the expressions also stay by name; optionally one step of
Loop subdivision; colours are added.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from facegcn.assets import ict_albedo
from facegcn.assets.converters import converter_version
from facegcn.assets.ict_blendshapes import arkit_mixture, eyes_turned, on_grid
from facegcn.assets.ict_mesh import EYE, MOUTH, SKIN, FaceMesh, orthogonal_basis
from facegcn.assets.ict_parts import face_parts
from facegcn.assets.ict_source import LAYOUT, IctSource, Layout, read_source
from facegcn.assets.mouth_patch import mouth_patch
from facegcn.errors import UserError
from facegcn.mesh.subdivision import loop_subdivision
from facegcn.mesh.symmetry import mirror_pairs, mirrored_diagonals
from facegcn.morphable import MorphableModel
from facegcn.rasterizer import rasterize_numpy

REGIONS = ("narrow", "face")

_DECIMETRE = 0.1  # per unit of ICT-FaceKit
_MOUTH_DEPTH = 0.09  # the mouth's surface lies this far behind the lips, decimetre
_TEETH_DEPTH = 0.35  # and this much further where there are teeth to be seen, decimetre
_EYE_UV_SHARE = 0.75  # of the width and height of the eye's hole in the texture
_MIRROR_TOLERANCE = 2e-3  # decimetre
_SPREAD = 0.25  # standard deviation of an expression's activation, which ICT-FaceKit lets run from 0 to 1
_SPREADS = {"jawOpen": 0.2, "mouthClose": 0.08, "jawForward": 0.15, "jawLeft": 0.12, "jawRight": 0.12,
            "mouthLeft": 0.15, "mouthRight": 0.15, "mouthFunnel": 0.15, "cheekPuff": 0.2}
_SIDES_TOGETHER = 0.8  # correlation of the left and the right half of an expression


def convert_ict(source: str, albedo: str | None = None, region: str = "narrow", subdivide: int = 0,
                layout: Layout = LAYOUT) -> MorphableModel:
    """Makes a model from ICT-FaceKit.

    Args:
        source: folder of a checkout, or an extracted ``.npz``.
        albedo: ``.npz`` with ``mean`` (n, 3) and ``basis`` (n, 3, K) in sRGB 0..1 for ICT-FaceKit's
            face vertices, K components scaled by their deviations; None: made-up skin.
        region: ``narrow`` (the front of the face) or ``face`` (with ears and the front of the neck).
        subdivide: 0, or 1 for about four times the vertices.
        layout: vertex numbering of the source.

    Raises:
        UserError: a file is missing or unsuitable.
    """
    if region not in REGIONS or subdivide not in (0, 1):
        raise UserError(f"--region is one of {', '.join(REGIONS)} and --subdivide is 0 or 1, "
                        f"got {region} and {subdivide}")
    read = read_source(source, layout)
    mesh = close_mouth(cut(read, region))
    # before the subdivision, so that coefficients mean the same with and without it
    modes, basis = mesh.identity, orthogonal_basis(mesh.identity)
    mesh.identity, mesh.expression = basis, orthogonal_basis(mesh.expression)
    skin = ict_albedo.skin_colors(mesh, albedo)
    if subdivide:
        mesh, skin = refine(mesh, skin)
    parts = None if read.parts is None or not mesh.blendshape_names else face_parts(
        read.parts, read.expression_names, mesh, modes, basis, _DECIMETRE)
    mean_albedo, albedo_basis = ict_albedo.complete(mesh, skin)
    return MorphableModel(
        mean_shape=mesh.vertices, id_basis=mesh.identity, exp_basis=mesh.expression, mean_albedo=mean_albedo,
        albedo_basis=albedo_basis, triangles=mesh.triangles, landmarks=mesh.landmarks,
        skin_index=np.flatnonzero((mesh.kind == SKIN) & seen_from_front(mesh.vertices, mesh.triangles)),
        symmetry_pairs=mirror_pairs(mesh.vertices, _MIRROR_TOLERANCE), uv=mesh.uv, made_by=converter_version("ict"),
        blendshapes=on_grid(mesh.blendshapes) if mesh.blendshape_names else None,
        blendshape_names=mesh.blendshape_names, parts=parts)


# -------------------------------------------------------------------- steps
def cut(source: IctSource, region: str) -> FaceMesh:
    """Keeps a region and the eyes, in decimetre, with modes for coefficients of unit deviation.

    Raises:
        UserError: a landmark lies outside the region.
    """
    index = np.arange(len(source.mean))
    kept = np.flatnonzero(source.eye | (index < source.narrow) | (region == "face"))
    new = np.full(len(index), -1)
    new[kept] = np.arange(len(kept))
    triangles = new[source.triangles]
    landmarks = new[source.landmarks]
    if landmarks.min() < 0:
        raise UserError(f"landmark {landmarks.argmin()} is vertex {source.landmarks[landmarks.argmin()]}, "
                        f"which is outside the region '{region}'")
    vertices = source.mean[kept].astype(np.float64) * _DECIMETRE
    spread = activation_spread(source.expression_names)
    eye = source.eye[kept]
    names, mixture = arkit_mixture(source.expression_names)
    shapes = eyes_turned(source.expression[kept] @ mixture * _DECIMETRE, names, vertices, eye)
    return FaceMesh(
        vertices=vertices, triangles=mirrored_diagonals(vertices, triangles[(triangles >= 0).all(axis=1)]),
        identity=source.identity[kept] * _DECIMETRE,
        expression=source.expression[kept] @ spread * _DECIMETRE,
        kind=np.where(eye, EYE, SKIN), source_index=np.where(eye, -1, kept), landmarks=landmarks,
        uv=None if source.uv is None else _with_eye_uv(source.uv[kept], vertices, eye, landmarks),
        blendshapes=shapes, blendshape_names=names, recess=np.zeros(len(kept)))


def activation_spread(names: list[str]) -> np.ndarray:
    """A square root (Ke, Ke) of the covariance that we give to the activations of expressions.

    ICT-FaceKit lets every activation run from 0 to 1; a linear model needs coefficients around 0.
    The neutral face stays the mean. Each activation has deviation 0.25 (less where a full one is
    rare or odd by itself), and both sides of a face mostly act together. Eyes turn together, so
    looking inwards on one side goes with outwards on the other.

    Args:
        names: ICT-FaceKit's names, which end with ``_L`` or ``_R`` for one side.
    """
    deviations = np.array([_SPREADS.get(n.removesuffix("_L").removesuffix("_R"), _SPREAD) for n in names])
    covariance = np.diag(deviations ** 2)
    for i, name in enumerate(names):
        partner = _other_side(name)
        if partner in names:
            j = names.index(partner)
            covariance[i, j] = _SIDES_TOGETHER * deviations[i] * deviations[j]
    return np.linalg.cholesky(covariance)


def _other_side(name):
    """The expression of the other side that goes with this one; None for one of both sides."""
    swapped = {"_L": "_R", "_R": "_L"}.get(name[-2:])
    if swapped is None:
        return None
    stem = name[:-2]
    return {"eyeLookIn": "eyeLookOut", "eyeLookOut": "eyeLookIn"}.get(stem, stem) + swapped


def _with_eye_uv(uv, vertices, eye, landmarks):
    """Gives each eyeball's front the place in the texture that the eye's hole leaves free."""
    uv = uv.copy()
    for side, marks in ((vertices[:, 0] < 0, landmarks[36:42]), (vertices[:, 0] >= 0, landmarks[42:48])):
        ids = np.flatnonzero(eye & side)
        if ids.size:
            low, high = vertices[ids, :2].min(axis=0), vertices[ids, :2].max(axis=0)
            hole_low, hole_high = uv[marks].min(axis=0), uv[marks].max(axis=0)
            place = (vertices[ids, :2] - (low + high) / 2) / (high - low)  # -0.5 .. 0.5
            uv[ids] = (hole_low + hole_high) / 2 + place * _EYE_UV_SHARE * (hole_high - hole_low)
    return uv


def close_mouth(mesh: FaceMesh) -> FaceMesh:
    """Adds a surface between the lips that follows them, recessed into the mouth."""
    lips = mesh.vertices[mesh.landmarks[60:68]].mean(axis=0)
    patch = mouth_patch(mesh.vertices, mesh.triangles, lips)
    count = len(patch.depth)
    result = mesh.mapped(scipy.sparse.vstack([scipy.sparse.identity(len(mesh.vertices)), patch.matrix], format="csr"))
    result.vertices[-count:, 2] -= _MOUTH_DEPTH * patch.depth
    result.recess[-count:] = _TEETH_DEPTH * patch.depth
    triangles = np.vstack([mesh.triangles, mirrored_diagonals(result.vertices, patch.triangles)])
    result.triangles = triangles
    result.kind = np.concatenate([mesh.kind, np.full(count, MOUTH)])
    result.source_index = np.concatenate([mesh.source_index, np.full(count, -1)])
    return result


def refine(mesh: FaceMesh, skin: np.ndarray) -> tuple[FaceMesh, np.ndarray]:
    """One step of Loop subdivision of everything; ``skin`` (N, ...) is any further vertex array."""
    step = loop_subdivision(len(mesh.vertices), mesh.triangles)
    result = mesh.mapped(step.matrix)
    result.triangles = step.triangles
    shares = step.matrix @ np.eye(3)[mesh.kind]
    result.kind = np.concatenate([mesh.kind, shares[len(mesh.kind):].argmax(axis=1)])
    result.source_index = np.concatenate([mesh.source_index, np.full(len(result.kind) - len(mesh.kind), -1)])
    return result, step.apply(skin)


def seen_from_front(vertices: np.ndarray, triangles: np.ndarray, pixels: int = 900) -> np.ndarray:
    """Whether each vertex (N,) belongs to a triangle seen from the front, the side or half above.

    What lies in nostrils, between the lips or behind the lids is not.
    """
    seen = np.zeros(len(vertices), bool)
    centered = vertices - (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    scale = 0.98 / np.linalg.norm(centered, axis=1).max()
    for yaw, pitch in ((-75, 0), (-40, 0), (0, 0), (40, 0), (75, 0), (0, 20), (-30, 20), (30, 20)):
        a, b = np.radians((yaw, pitch))
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        posed = centered @ (tilt @ turn).T * scale
        clip = np.hstack([posed * (1, 1, -1), np.ones((len(posed), 1))]).astype(np.float32)
        ids = rasterize_numpy(clip, triangles.astype(np.int32), pixels, pixels)[0]
        seen[triangles[np.unique(ids[ids >= 0])]] = True
    return seen
