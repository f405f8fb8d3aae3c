"""Colours for ICT-FaceKit, which has none for each vertex: a mean albedo and a linear basis.

The basis joins, each component scaled to its standard deviation in RGB levels:
- a measured skin basis when the user has one, else one tone component from dark to light skin;
- smooth functions on the skin (Laplacian eigenvectors) in lightness, redness and yellowness;
- regions where faces differ locally: brows, beard, lips, cheeks, eye sockets;
- eyes: colour and lightness of the iris, whiteness; the inside of the mouth.
It is then made orthogonal. Colours are sRGB levels in [0, 255]; lengths decimetre.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from facegcn.assets.ict_mesh import EYE, MOUTH, SKIN, FaceMesh, orthogonal_basis
from facegcn.errors import BrokenFile, UserError
from facegcn.files import read_npz
from facegcn.mesh.spectral import cotangent_laplacian, smooth_functions

_TONE_SHARE = 0.65  # deviation of a measured basis' first component, a two-humped tone, in its units
_SIDE_BLUR = 0.25  # decimetre
_MEAN_SKIN = (160.0, 114.0, 92.0)
_TONE = (33.0, 31.0, 28.0)  # one deviation; two lead from (94, 52, 36) to (226, 176, 148)

# (direction in RGB relative to the mean skin, deviation of the first function in levels,
#  how many beside a measured basis, how many beside made-up skin)
_SMOOTH = (((1.0, 1.0, 1.0), 3.5, 14, 22), ((0.5, -1.0, -0.8), 1.8, 8, 12), ((0.2, 0.3, -1.2), 1.5, 4, 8))

_LIPS_SHIFT = (-14.0, -26.0, -16.0)  # of made-up skin
_BROW_SHIFT = (0.62, 0.60, 0.62)  # factor on the mean at the middle of a brow
_REGIONS = {"brows": (-30, -26, -22), "beard": (-14, -11, -8), "lip_redness": (7, -7, -4),
            "lip_lightness": (14, 12, 11), "cheeks": (9, -5, -4), "sockets": (-10, -9, -7)}

IRIS_RADIUS, PUPIL_RADIUS = 0.06, 0.022  # decimetre
_WHITE, _IRIS, _PUPIL, _MOUTH = (206.0, 192.0, 186.0), (84.0, 58.0, 42.0), (14.0, 12.0, 12.0), (74.0, 34.0, 32.0)
_IRIS_COLOR, _IRIS_LIGHT = (-8.0, 9.0, 26.0), (22.0, 20.0, 16.0)  # brown to blue; dark to light
_WHITE_SPREAD, _MOUTH_SPREAD = (20.0, 20.0, 20.0), (28.0, 25.0, 23.0)


def skin_colors(mesh: FaceMesh, albedo: str | None) -> np.ndarray:
    """Mean and components of the skin at the vertices of an unrefined mesh.

    Args:
        mesh: the unrefined mesh.
        albedo: ``.npz`` file with ``mean`` and ``basis`` for ICT-FaceKit's face vertices, or None.

    Returns:
        (N, 3, 1 + K) levels, the mean first; vertices that are not skin carry the skin's average.

    Raises:
        UserError: the file is unreadable or does not fit.
    """
    skin = np.flatnonzero(mesh.source_index >= 0)
    place = np.full(len(mesh.vertices), -1)
    place[skin] = np.arange(len(skin))
    triangles = place[mesh.triangles[(mesh.source_index[mesh.triangles] >= 0).all(axis=1)]]
    vertices = mesh.vertices[skin]
    if albedo is None:
        measured = made_up_skin(mesh)[skin]
    else:
        eye_z = mesh.vertices[mesh.landmarks[[36, 45]], 2].mean()
        measured = _even_sides(_read_measured(albedo, mesh.source_index[skin]), vertices, triangles, eye_z)
    smooth = _smooth_components(vertices, triangles, measured[..., 0].mean(axis=0), albedo is None)
    colors = np.zeros((len(mesh.vertices), 3, measured.shape[2] + smooth.shape[2]))
    colors[skin] = np.concatenate([measured, smooth], axis=2)
    rest = np.flatnonzero(mesh.source_index < 0)
    colors[rest] = colors[skin].mean(axis=0)
    return colors


def complete(mesh: FaceMesh, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole albedo model: skin, regions, eyes and mouth.

    Args:
        mesh: the final mesh, refined or not.
        skin: (N, 3, 1 + K) mean and components at its vertices.

    Returns:
        mean (N, 3) and orthogonal basis (N, 3, Ka), levels.
    """
    is_skin = (mesh.kind == SKIN)[:, None, None]
    mean, basis = skin[..., 0].copy(), skin[..., 1:] * is_skin
    regions = face_regions(mesh)
    mean *= 1 - regions["brows"][:, None] * (1 - np.array(_BROW_SHIFT))
    local = [regions[name][:, None] * np.array(color, float) * is_skin[..., 0] for name, color in _REGIONS.items()]
    eye_mean, eye_parts = eye_colors(mesh.vertices, mesh.kind == EYE)
    mean = np.where((mesh.kind == EYE)[:, None], eye_mean, mean)
    inside = (mesh.kind == MOUTH)[:, None]
    mean = np.where(inside, _MOUTH, mean)
    extra = np.stack([*local, *eye_parts, inside * np.array(_MOUTH_SPREAD)], axis=2)
    return np.clip(mean, 0, 255), orthogonal_basis(np.concatenate([basis, extra], axis=2))


# -------------------------------------------------------------------- skin
def made_up_skin(mesh: FaceMesh) -> np.ndarray:
    """Mean skin with redder lips and one tone component, (N, 3, 2)."""
    lips = face_regions(mesh)["lip_redness"][:, None]
    mean = np.array(_MEAN_SKIN) + lips * _LIPS_SHIFT
    return np.stack([mean, np.broadcast_to(_TONE, mean.shape)], axis=2)


def _read_measured(path, index):
    """Mean and components (S, 3, 1 + K) in levels of the source vertices ``index``."""
    try:
        arrays = read_npz(path, ("mean", "basis"))
        mean, basis = arrays["mean"].astype(np.float64), arrays["basis"].astype(np.float64)
    except (FileNotFoundError, BrokenFile, ValueError) as error:
        raise UserError(f"--albedo {path} must be an .npz with the arrays 'mean' and 'basis': {error}") from error
    if mean.ndim != 2 or basis.ndim != 3 or mean.shape[1] != 3 or basis.shape[:2] != mean.shape:
        raise UserError(f"--albedo {path}: mean {mean.shape} and basis {basis.shape} should be (n, 3) and (n, 3, K)")
    if not basis.shape[2] or not (np.isfinite(mean).all() and np.isfinite(basis).all()):
        raise UserError(f"--albedo {path}: mean and basis must be finite, and have a component")
    if index.max() >= len(mean):
        raise UserError(f"--albedo {path} has colours for {len(mean)} vertices; this region needs {index.max() + 1}")
    basis[..., 0] *= _TONE_SHARE
    return 255 * np.concatenate([mean[..., None], basis], axis=2)[index]


def _even_sides(colors, vertices, triangles, eye_z):
    """Colours (S, 3, K) diffused behind the cheeks, where measured skin carries blots of ears and hair."""
    stiffness, areas = cotangent_laplacian(vertices, triangles)
    mass = scipy.sparse.diags(areas)
    flat = colors.reshape(len(colors), -1)
    diffused = scipy.sparse.linalg.splu((mass + _SIDE_BLUR ** 2 * stiffness).tocsc()).solve(mass @ flat)
    side = _ramp(vertices[:, 2], eye_z - 0.42, 0.1)[:, None]
    return ((1 - side) * flat + side * diffused).reshape(colors.shape)


def _smooth_components(vertices, triangles, mean_skin, alone):
    """Laplacian eigenvectors times colour directions (S, 3, K), weaker with frequency."""
    numbers = [beside_made_up if alone else beside_measured for *_, beside_measured, beside_made_up in _SMOOTH]
    functions, _ = smooth_functions(vertices, triangles, min(max(numbers), len(vertices) - 1))
    parts = []
    for (direction, deviation, *_), number in zip(_SMOOTH, numbers):
        color = np.array(direction) * mean_skin / np.mean(mean_skin)
        chosen = functions[:, None, :number]
        parts.append(chosen * color[:, None] * deviation / np.sqrt(1 + np.arange(chosen.shape[2]) / 4))
    return np.concatenate(parts, axis=2)


# -------------------------------------------------------------------- regions
def face_regions(mesh: FaceMesh) -> dict[str, np.ndarray]:
    """Soft masks (N,) in [0, 1] by name, from the landmarks of the mean face seen from the front."""
    marks, points = mesh.vertices[mesh.landmarks], mesh.vertices
    flat, front = marks[:, :2], points[:, 2] > marks[[36, 45], 2].mean() - 0.25
    brow_lines = [np.vstack([(line[:1] + line[1:2]) / 2, line[1:]]) for line in (flat[17:22], flat[26:21:-1])]
    brows = np.maximum(*(_near(points, line, (0.045, 0.032)) for line in brow_lines))
    lips = _inside(points, flat[48:60], 0.02) * front
    mouth_y, nose_y = flat[[48, 54], 1].mean(), flat[33, 1]
    low = _ramp(points[:, 1], 0.4 * mouth_y + 0.6 * nose_y + 0.3 * (np.abs(points[:, 0]) / 0.6) ** 2, 0.08)
    cheek = [0.45 * flat[eye] + 0.25 * flat[lip] + 0.3 * flat[jaw]
             for eye, lip, jaw in ((41, 48, 2), (46, 54, 14))]
    sockets = [_near(points, np.vstack([flat[a:a + 6], flat[a:a + 1]]), (0.09, 0.07)) for a in (36, 42)]
    return {"brows": brows * front, "beard": low * (1 - lips), "lip_redness": lips, "lip_lightness": lips,
            "cheeks": sum(_near(points, c[None], (0.2, 0.17)) for c in cheek) * front,
            "sockets": np.maximum(*sockets) * front}


def _near(points, line, width):
    """Gaussian fall-off (N,) of the distance in x, y to a polyline (M, 2); ``width`` in x and y."""
    dense = np.concatenate([np.linspace(p, q, 12) for p, q in zip(line[:-1], line[1:])]) if len(line) > 1 else line
    squares = [(((points[:, :2] - p) / width) ** 2).sum(axis=1) for p in dense]
    return np.exp(-0.5 * np.min(squares, axis=0))


def _inside(points, polygon, softness):
    """1 inside a polygon (M, 2) seen from the front, 0 outside, soft over ``softness``."""
    contour = polygon.astype(np.float32)[:, None]
    distance = np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in points[:, :2]])
    return np.clip(0.5 + distance / (2 * softness), 0, 1)


def _ramp(values, edge, softness):
    """1 well below ``edge``, 0 well above."""
    t = np.clip((edge - values) / (2 * softness) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


# -------------------------------------------------------------------- eyes
def eye_colors(vertices: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Albedo of the eyeballs: pupil, iris with a dark rim, white, darker under the upper lid.

    Args:
        vertices: (N, 3) mean shape.
        eye: (N,) bool; the eyeballs lie on both sides of x = 0.

    Returns:
        mean (N, 3) and components: iris colour, iris lightness, whiteness, each (N, 3); 0 off the eyes.
    """
    mean, parts = np.zeros_like(vertices), [np.zeros_like(vertices) for _ in range(3)]
    for side in (vertices[:, 0] < 0, vertices[:, 0] >= 0):
        ids = np.flatnonzero(eye & side)
        if not ids.size:
            continue
        pole = vertices[ids[vertices[ids, 2].argmax()]]
        radius = np.linalg.norm(vertices[ids, :2] - pole[:2], axis=1)
        pupil = _ramp(radius, PUPIL_RADIUS, 0.004)
        iris = _ramp(radius, IRIS_RADIUS, 0.005)
        rim = 1 - 0.45 * (1 - _ramp(radius, 0.8 * IRIS_RADIUS, 0.012))
        shade = (1 - 0.3 * (1 - _ramp(vertices[ids, 1] - pole[1], 0.045, 0.04)))[:, None]
        color = (1 - iris)[:, None] * _WHITE + (iris * rim)[:, None] * _IRIS
        mean[ids] = (color * (1 - pupil)[:, None] + pupil[:, None] * _PUPIL) * shade
        ring = (iris * rim * (1 - pupil))[:, None]
        for part, share, spread in zip(parts, (ring, ring, (1 - iris)[:, None]),
                                       (_IRIS_COLOR, _IRIS_LIGHT, _WHITE_SPREAD)):
            part[ids] = share * spread * shade
    return mean, parts
