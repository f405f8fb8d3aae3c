"""Completion of the coarse texture with what the photo shows."""

import numpy as np
import pytest
import scipy.sparse as sp

from facegcn.reconstruction.completion import (
    DECAY,
    MIRROR_TRUST,
    SMOOTHNESS,
    UNLIKELY,
    color_trust,
    complete_texture,
)
from tests.faces import half_ellipsoid

NO_PAIRS = np.zeros((0, 2), int)


def chain(count):
    """Adjacency of vertices in a row, inner edges weighted 2 as in the mesh hierarchy."""
    return sp.diags([np.full(count - 1, 2.0)] * 2, [-1, 1]).tocsr()


def test_seen_colours_are_kept_and_hidden_ones_return_to_the_coarse_texture():
    count = 60
    coarse = np.zeros((1, count, 3), np.float32)
    seen = np.full((1, count, 3), 0.5, np.float32)
    trust = np.zeros((1, count))
    trust[0, :30] = 1
    fine = complete_texture(coarse, seen, trust, chain(count), NO_PAIRS)[0, :, 0]
    np.testing.assert_allclose(fine[:25], 0.5, atol=0.01)
    assert np.all(np.diff(fine[25:]) <= 1e-6), "the difference fades with the distance"
    assert fine[30] > 0.05 and abs(fine[-1]) < 1e-3, "it reaches the neighbours, not the other side of the head"


def test_nothing_seen_leaves_the_coarse_texture(rng):
    coarse = rng.uniform(-1, 1, (2, 20, 3)).astype(np.float32)
    fine = complete_texture(coarse, np.ones_like(coarse), np.zeros((2, 20)), chain(20), NO_PAIRS)
    np.testing.assert_allclose(fine, coarse, atol=1e-6)


def test_mirrored_vertices_learn_from_what_is_seen():
    coarse = np.zeros((1, 4, 3), np.float32)
    seen = np.zeros((1, 4, 3), np.float32)
    seen[0, 0] = 0.8
    apart = sp.csr_matrix((4, 4))
    fine = complete_texture(coarse, seen, np.array([[1.0, 0, 0, 0]]), apart, np.array([[0, 3]]))[0, :, 0]
    assert fine[0] == pytest.approx(0.8, abs=1e-6) and abs(fine[1]) < 1e-6
    assert fine[3] == pytest.approx(0.8 * MIRROR_TRUST / (MIRROR_TRUST + DECAY), abs=1e-6)


def test_the_result_is_the_minimum_of_what_is_minimised(rng):
    """Of the energy as the docstring writes it, term by term: no step away from the result lowers it."""
    count = 12
    upper = np.triu((rng.random((count, count)) < 0.4).astype(float), 1)
    edges = np.argwhere(upper)
    coarse, seen = rng.uniform(-0.3, 0.3, (2, 1, count, 3)).astype(np.float32)
    trust = rng.random((1, count))
    mirror = np.arange(count)
    mirror[[0, 7, 2, 9]] = [7, 0, 9, 2]
    found = complete_texture(coarse, seen, trust, sp.csr_matrix(upper + upper.T), np.array([[0, 7], [2, 9]]))[0]

    def energy(texture):
        d, r = texture - coarse[0], (seen - coarse)[0].astype(np.float64)
        total = 0.0
        for v in range(count):
            t, w = trust[0, v], mirror[v]
            total += t * ((d[v] - r[v]) ** 2).sum() + DECAY * (1 - t) * (d[v] ** 2).sum()
            total += MIRROR_TRUST * (1 - t) * trust[0, w] * ((d[v] - r[w]) ** 2).sum()
        return total + SMOOTHNESS * sum(((d[v] - d[w]) ** 2).sum() for v, w in edges)
    least = energy(found.astype(np.float64))
    for _ in range(30):
        step = rng.normal(size=found.shape)
        assert energy(found + 1e-2 * step / np.linalg.norm(step)) > least


def test_trust_falls_towards_the_silhouette_and_with_what_the_coarse_face_cannot_explain():
    coarse = np.zeros((1, 5, 3), np.float32)
    seen = np.zeros((1, 5, 3), np.float32)
    seen[0, 3] = UNLIKELY
    normals = np.array([[[0, 0, 1], [0.6, 0, 0.8], [1, 0, 0], [0, 0, 1], [0, 0, 1]]], np.float32)
    trust = color_trust(coarse, seen, np.array([[1, 1, 1, 1, 0.25]]), normals)
    np.testing.assert_allclose(trust, [[1.0, 0.64, 0.0, 0.5, 0.25]], atol=1e-6)


def test_hidden_skin_is_no_worse_than_the_coarse_face_and_seen_skin_is_better(rng):
    """A head turned aside whose skin the coarse face has nearly right; its light is wrong towards the silhouette."""
    face = half_ellipsoid(25, 31)
    truth = face.mean_albedo / 127.5 - 1.0
    normals = face.mean_shape / np.linalg.norm(face.mean_shape, axis=1, keepdims=True)
    turn = np.radians(35.0)
    normals = normals @ np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
    facing = normals[:, 2]
    visible = (facing > 0.0).astype(float)
    coarse = truth + 0.15 * np.sin(9 * face.mean_shape)  # 12 levels off, here brighter, there darker
    silhouette = np.exp(-(facing / 0.2) ** 2)[:, None]
    seen = truth + rng.normal(0, 0.03, truth.shape) + silhouette * 0.5  # too little light is divided out
    triangles = face.triangles
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    adjacency = sp.coo_matrix((np.ones(len(pairs)), pairs.T), (len(truth), len(truth)))
    trust = color_trust(coarse[None], seen[None], visible[None], normals[None])
    fine = complete_texture(coarse[None], seen[None], trust, adjacency + adjacency.T, face.symmetry_pairs)[0]

    def error(texture, vertices):
        return np.abs(texture - truth)[vertices].mean()
    assert 0.1 < np.mean(visible == 0) < 0.5
    assert np.abs(seen - truth)[(visible == 1) & (facing < 0.1)].mean() > 2 * error(coarse, visible == 0)
    assert error(fine, visible == 0) <= error(coarse, visible == 0)
    assert error(fine, visible == 1) < 0.7 * error(coarse, visible == 1)
