"""A small morphable model for tests of made portraits, and where its vertices are in them."""

import numpy as np

from facegcn import geometry
from facegcn.morphable import MorphableModel


def landmark_places():
    """Frontal places (68, 2) of the iBUG landmarks on a plain face, decimetre."""
    jaw = np.linspace(np.pi, 2 * np.pi, 17)
    places = [np.stack([0.72 * np.cos(jaw), 0.25 + 1.0 * np.sin(jaw)], axis=1)]
    brow = np.array([(0.56, 0.42), (0.47, 0.5), (0.36, 0.53), (0.24, 0.52), (0.12, 0.49)])
    places += [brow * (-1, 1), brow[::-1]]
    places.append(np.array([(0, 0.3), (0, 0.19), (0, 0.08), (0, -0.03)]))
    places.append(np.array([(-0.14, -0.17), (-0.07, -0.19), (0, -0.2), (0.07, -0.19), (0.14, -0.17)]))
    eye = np.array([(-0.45, 0.27), (-0.37, 0.33), (-0.26, 0.33), (-0.18, 0.27), (-0.26, 0.22), (-0.37, 0.22)])
    places += [eye, np.array([(-x, y) for x, y in eye[[3, 2, 1, 0, 5, 4]]])]
    around = np.linspace(np.pi, -np.pi, 12, endpoint=False)
    places.append(np.stack([0.25 * np.cos(around), -0.42 + 0.1 * np.sin(around)], axis=1))
    around = np.linspace(np.pi, -np.pi, 8, endpoint=False)
    places.append(np.stack([0.2 * np.cos(around), -0.42 + 0.03 * np.sin(around)], axis=1))
    return np.concatenate(places)


def plain_face():
    """A small model: half an ellipsoid, a few smooth modes of shape and colour."""
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.linspace(-0.74, 0.74, 36), np.linspace(0.95, -0.8, 42))
    inside = 1 - (x / 0.8) ** 2 - ((y - 0.05) / 1.1) ** 2
    z = 0.9 * np.sqrt(np.maximum(inside, 0.02)) - 0.3
    z += 0.2 * np.exp(-(x / 0.1) ** 2 - ((y + 0.05) / 0.2) ** 2)
    shape = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    index = np.arange(shape.shape[0]).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (c, b, d))])
    places = landmark_places()
    landmarks = np.linalg.norm(shape[None, :, :2] - places[:, None], axis=2).argmin(axis=1)
    waves = np.stack([np.sin(shape @ rng.normal(0, 3, 3) + k) for k in range(15)], axis=1)
    modes = waves[:, None] * rng.normal(0, 0.02, (3, 15))
    eye = [np.linalg.norm(shape[:, :2] - place, axis=1) < 0.07 for place in ((-0.31, 0.27), (0.31, 0.27))]
    return MorphableModel(
        mean_shape=shape, id_basis=modes[..., :8], exp_basis=0.5 * modes[..., 8:12],
        mean_albedo=np.tile((190.0, 140.0, 115.0), (len(shape), 1)),
        albedo_basis=waves[:, None, 12:] * 8.0 * np.ones((1, 3, 1)), triangles=triangles,
        landmarks=landmarks, skin_index=np.flatnonzero(~(eye[0] | eye[1])), symmetry_pairs=np.zeros((0, 2)))


def posed(face, portrait):
    """World vertices and normals (1, N, 3) of a portrait by the TensorFlow functions."""
    parts = face.split(portrait.coeff[None])
    vertices = geometry.rotate(face.vertices(parts.id, parts.exp), parts.angles) + parts.translation[:, None]
    return vertices, geometry.vertex_normals(vertices, face.triangles)
