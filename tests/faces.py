"""A small smooth face-like model for tests: half an ellipsoid with a nose, in no one's likeness."""

import numpy as np

from facegcn.landmarks import DENSE_COUNT
from facegcn.morphable import MorphableModel
from facegcn.surface_points import LandmarkEmbedding

LOST = 40  # landmarks of ``embedded`` that lie on no surface


def half_ellipsoid(rows: int = 17, columns: int = 21, components: tuple[int, int, int] = (6, 4, 5),
                   seed: int = 0) -> MorphableModel:
    """A MorphableModel on a rows x columns grid; columns must be odd for exact mirror pairs."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(1, -1, rows))
    x, y = 0.75 * np.sin(1.35 * u), 0.95 * np.sin(1.3 * v)
    z = 0.75 * np.cos(1.35 * u) * np.cos(1.0 * v) + 0.25 * np.exp(-(x / 0.12) ** 2 - ((y + 0.05) / 0.22) ** 2)
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    mirrored = index[:, ::-1]
    pairs = np.stack([index[:, :columns // 2].ravel(), mirrored[:, :columns // 2].ravel()], axis=1)
    pattern = np.stack([np.sin(3 * x), np.cos(4 * y), np.sin(5 * y)], axis=-1).reshape(-1, 3)
    tone = np.array([200.0, 150.0, 120.0]) + 20 * pattern
    return MorphableModel(
        mean_shape=points, id_basis=_smooth(rng, points, components[0], 0.03),
        exp_basis=_smooth(rng, points, components[1], 0.02), mean_albedo=tone,
        albedo_basis=_smooth(rng, points, components[2], 12.0), triangles=triangles,
        landmarks=_nearest(points, _landmark_layout()), skin_index=np.arange(len(points)),
        symmetry_pairs=pairs)


def embedded(model, noise=0.3, shared=0.0, bias=0.0, seed=0):
    """The model with random dense landmarks, of a detector with such errors, pixels of a 224 crop."""
    rng = np.random.default_rng(seed)
    triangles = rng.integers(0, len(model.triangles), DENSE_COUNT)
    triangles[rng.permutation(DENSE_COUNT)[:LOST]] = -1
    model.embedding = LandmarkEmbedding(
        triangles, rng.dirichlet((1, 1, 1), DENSE_COUNT), bias * rng.normal(size=(DENSE_COUNT, 2)),
        np.full(DENSE_COUNT, noise), shared * rng.normal(size=(DENSE_COUNT, 2, 5)))
    return model


def _smooth(rng, points, count, size):
    """(N, 3, count) smooth random fields."""
    frequencies = rng.normal(size=(3, count)) * 2.0
    waves = np.sin(points @ frequencies + rng.uniform(0, 6, count))
    return waves[:, None, :] * rng.normal(size=(1, 3, count)) * size


def _landmark_layout():
    """(68, 2) x, y of roughly iBUG-shaped landmarks, decimetre."""
    angle = np.linspace(np.pi, 2 * np.pi, 17)
    jaw = np.stack([0.62 * np.cos(angle), 0.15 + 0.9 * np.sin(angle)], -1)
    brow = np.stack([np.linspace(-0.48, -0.14, 5), [0.42, 0.48, 0.5, 0.48, 0.44]], -1)
    bridge = np.stack([np.zeros(4), np.linspace(0.3, -0.05, 4)], -1)
    base = np.stack([np.linspace(-0.12, 0.12, 5), np.full(5, -0.16)], -1)
    turn = np.array([180, 120, 60, 0, 300, 240]) * np.pi / 180
    eye = np.stack([-0.3 + 0.11 * np.cos(turn), 0.3 + 0.05 * np.sin(turn)], -1)
    lip = np.linspace(np.pi, -np.pi, 13)[:12]
    outer = np.stack([0.22 * np.cos(lip), -0.42 + 0.1 * np.sin(lip)], -1)
    lip = np.linspace(np.pi, -np.pi, 9)[:8]
    inner = np.stack([0.17 * np.cos(lip), -0.42 + 0.04 * np.sin(lip)], -1)
    flip = np.array([-1.0, 1.0])
    right_eye = (eye * flip)[[3, 2, 1, 0, 5, 4]]
    return np.concatenate([jaw, brow, (brow * flip)[::-1], bridge, base, eye, right_eye, outer, inner])


def _nearest(points, layout):
    return np.argmin(((points[None, :, :2] - layout[:, None]) ** 2).sum(-1), axis=1)
