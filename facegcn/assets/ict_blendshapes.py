"""ICT-FaceKit's expressions under ARKit's names, with eyes that turn.

ICT-FaceKit's names are ARKit's with ``_L`` and ``_R`` for the sides, and it parts browInnerUp and cheekPuff into sides,
which ARKit does not. Its looking expressions move the lids and leave the eyeballs where they are, so those are
turned here.
"""

from __future__ import annotations

import numpy as np

from facegcn.blendshapes import ARKIT_NAMES

_SIDES = {"_L": "Left", "_R": "Right"}
_FORMER_NAMES = {"cheekRaiser": "cheekSquint"}  # of some checkouts
_TURNS = {"eyeLookIn": (0, -1), "eyeLookOut": (0, 1), "eyeLookUp": (-1, 0), "eyeLookDown": (1, 0)}  # pitch, outward yaw
_YAW, _PITCH = np.radians(30.0), np.radians(22.0)  # of an eye at full activation; people reach some 45 at most
_WHOLE_TURN, _NO_TURN = np.radians(15.0), np.radians(78.0)  # from the gaze; the eyeballs' fronts end near the second
_GRID = 2.0 ** -17  # decimetre, 0.8 micrometres: steps of stored displacements
_MOVES = 1e-3  # decimetre: an eyeball that the source moves more than that is left to the source


def arkit_mixture(names: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Which of the source's expressions make up which of ARKit's.

    Args:
        names: the source's, Ke.

    Returns:
        those of ``ARKIT_NAMES`` that it has, in ARKit's order, and a matrix (Ke, A) of 0 and 1.
    """
    found = {}
    for former in (False, True):  # a former name counts where the present one is not there
        present = set(found)
        for column, name in enumerate(names):
            target = _arkit_name(name, former)
            if target and target not in present:
                found.setdefault(target, []).append(column)
    kept = tuple(name for name in ARKIT_NAMES if name in found)
    mixture = np.zeros((len(names), len(kept)), np.float32)
    for k, name in enumerate(kept):
        mixture[found[name], k] = 1.0
    return kept, mixture


def _arkit_name(name, former):
    """ARKit's name of an expression of the source, or None."""
    stem, side = (name[:-2], _SIDES[name[-2:]]) if name[-2:] in _SIDES else (name, "")
    if former:
        stem = _FORMER_NAMES.get(stem, "")
    return next((known for known in (stem + side, stem) if known in ARKIT_NAMES), None)


def eyes_turned(shapes: np.ndarray, names: tuple[str, ...], vertices: np.ndarray, eye: np.ndarray,
                whole: bool = False) -> np.ndarray:
    """The shapes with eyeballs that follow eyeLook..., where the source leaves them still.

    Where only the front of an eyeball is there, its rim, hidden behind the lids, stays where it is: the middle, iris
    and all, turns about the eyeball's centre by the whole angle, and what lies further out by less.

    Args:
        shapes: (N, 3, A) decimetre.
        names: A of ARKit's.
        vertices: (N, 3) neutral face, decimetre, looking along +z.
        eye: (N,) bool, vertices of eyeballs.
        whole: whether the eyeballs are whole, and turn as such.

    Returns:
        (N, 3, A).
    """
    shapes = np.array(shapes)
    for side, sign in (("Left", 1), ("Right", -1)):
        ball = np.flatnonzero(eye & (sign * vertices[:, 0] > 0))
        for stem, (pitch, outward) in _TURNS.items():
            name = stem + side
            if name not in names or not ball.size or np.abs(shapes[ball, :, names.index(name)]).max() > _MOVES:
                continue
            centre = sphere_centre(vertices[ball])
            shapes[ball, :, names.index(name)] = _turned(
                vertices[ball] - centre, pitch * _PITCH, sign * outward * _YAW, whole)
    return shapes


def on_grid(shapes: np.ndarray) -> np.ndarray:
    """Displacements rounded to steps of 0.8 micrometres: the rounding of the source's files becomes 0, and a file of
    them shorter by up to two fifths."""
    return np.round(np.asarray(shapes) / _GRID) * _GRID


def sphere_centre(points: np.ndarray) -> np.ndarray:
    """Centre (3,) of the sphere that fits points (n, 3) best, by linear least squares."""
    middle = points.mean(axis=0)
    offset = points - middle
    system = np.hstack([2 * offset, np.ones((len(points), 1))])
    return middle + np.linalg.lstsq(system, (offset ** 2).sum(axis=1), rcond=None)[0][:3]


def _turned(offset, pitch, yaw, whole):
    """Displacements (n, 3) of points at ``offset`` from an eye's centre; the gaze is +z."""
    from_gaze = np.arccos(np.clip(offset[:, 2] / np.linalg.norm(offset, axis=1), -1, 1))
    place = np.clip((from_gaze - _WHOLE_TURN) / (_NO_TURN - _WHOLE_TURN), 0, 1)
    share = np.ones(len(offset)) if whole else 1 - place ** 2 * (3 - 2 * place)
    a, b = share * pitch, share * yaw
    x, y, z = offset.T
    y, z = np.cos(a) * y - np.sin(a) * z, np.sin(a) * y + np.cos(a) * z
    x, z = np.cos(b) * x + np.sin(b) * z, np.cos(b) * z - np.sin(b) * x
    return np.stack([x, y, z], axis=1) - offset
