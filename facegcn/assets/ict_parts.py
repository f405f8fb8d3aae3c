"""ICT-FaceKit's eyeballs, teeth, gums and tongue as the parts of a face model."""

from __future__ import annotations

import numpy as np

from facegcn.assets.ict_albedo import eye_colors
from facegcn.assets.ict_blendshapes import arkit_mixture, eyes_turned, on_grid
from facegcn.assets.ict_mesh import EYE, FaceMesh
from facegcn.assets.ict_source import IctParts
from facegcn.face_parts import FaceParts

_COLORS = {"gumsAndTongue": (158.0, 82.0, 78.0), "upperTeeth": (226.0, 216.0, 196.0),
           "lowerTeeth": (220.0, 210.0, 190.0)}
_EYEBALL = "eyeball"  # how the names of eyes begin


def face_parts(source: IctParts, expression_names: list[str], mesh: FaceMesh, modes: np.ndarray, basis: np.ndarray,
               unit: float) -> FaceParts:
    """The parts for a finished mesh.

    Args:
        source: as it was read, in its own unit.
        expression_names: of the source's expressions.
        mesh: the final mesh of the face.
        modes: (n, 3, Ki) the source's identity modes on the face, before they were made orthogonal.
        basis: (n, 3, K') what ``orthogonal_basis`` made of them.
        unit: decimetres per unit of the source.
    """
    vertices = source.vertices.astype(np.float64) * unit
    names, mixture = arkit_mixture(expression_names)
    eye = np.isin(source.of, [q for q, name in enumerate(source.names) if name.startswith(_EYEBALL)])
    shapes = eyes_turned(source.expression @ mixture * unit, names, vertices, eye, whole=True)
    colors = eye_colors(vertices, eye)[0]
    for q, name in enumerate(source.names):
        if name in _COLORS:
            colors[source.of == q] = _COLORS[name]
    return FaceParts(
        names=source.names, of=source.of, vertices=vertices, triangles=source.triangles, colors=colors,
        identity=_affine(vertices, source.of, source.identity * unit) @ _coefficients(modes, basis),
        blendshapes=on_grid(shapes),
        replaces=np.flatnonzero((mesh.kind[mesh.triangles] == EYE).all(axis=1)), recess=mesh.recess)


def _coefficients(modes, basis):
    """(Ki, K'): the source's coefficients of one deviation of each new component, the smallest that make it."""
    flat, new = modes.reshape(-1, modes.shape[2]), basis.reshape(-1, basis.shape[2])
    return flat.T @ new / (new ** 2).sum(axis=0)


def _affine(vertices, of, modes):
    """The affine maps (Q, 4, 3, Ki) that come nearest to displacements (M, 3, Ki)."""
    maps = []
    for q in range(of.max() + 1):
        points = vertices[of == q]
        system = np.hstack([points, np.ones((len(points), 1))])
        found = np.linalg.lstsq(system, modes[of == q].reshape(len(points), -1), rcond=None)[0]
        maps.append(found.reshape(4, 3, modes.shape[2]))
    return np.stack(maps)
