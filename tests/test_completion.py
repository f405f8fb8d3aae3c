"""Completion of the coarse texture with what the photo shows."""

import numpy as np
import scipy.sparse as sp

from facegcn.reconstruction.completion import DECAY, MIRROR_TRUST, SMOOTHNESS, complete_texture


def chain(count):
    """Adjacency of vertices in a row, inner edges weighted 2 as in the mesh hierarchy."""
    return sp.diags([np.full(count - 1, 2.0)] * 2, [-1, 1]).tocsr()


def test_seen_colours_are_kept_and_hidden_ones_follow_their_neighbours():
    count = 60
    coarse = np.zeros((1, count, 3), np.float32)
    seen = np.full((1, count, 3), 0.5, np.float32)
    visible = np.zeros((1, count))
    visible[0, :30] = 1
    fine = complete_texture(coarse, seen, visible, chain(count), np.zeros((0, 2), int))[0, :, 0]
    np.testing.assert_allclose(fine[:25], 0.5, atol=0.01)
    assert np.all(np.diff(fine[25:]) <= 1e-6), "the difference fades with the distance"
    assert 0.02 < fine[-1] < 0.45


def test_nothing_seen_leaves_the_coarse_texture(rng):
    coarse = rng.uniform(-1, 1, (2, 20, 3)).astype(np.float32)
    fine = complete_texture(coarse, np.ones_like(coarse), np.zeros((2, 20)), chain(20), np.zeros((0, 2), int))
    np.testing.assert_allclose(fine, coarse, atol=1e-6)


def test_mirrored_vertices_learn_from_what_is_seen():
    coarse = np.zeros((1, 4, 3), np.float32)
    seen = np.zeros((1, 4, 3), np.float32)
    seen[0, 0] = 0.8
    apart = sp.csr_matrix((4, 4))
    fine = complete_texture(coarse, seen, np.array([[1.0, 0, 0, 0]]), apart, np.array([[0, 3]]))[0, :, 0]
    assert abs(fine[3] - 0.8) < 0.01 and abs(fine[1]) < 1e-6


def test_against_a_dense_solve(rng):
    count = 12
    adjacency = np.triu((rng.random((count, count)) < 0.4).astype(float), 1)
    adjacency += adjacency.T
    coarse, seen = rng.uniform(-0.4, 0.4, (2, 1, count, 3)).astype(np.float32)
    visible = (rng.random((1, count)) < 0.5).astype(float)
    pairs = np.array([[0, 7], [2, 9]])
    mirror = np.arange(count)
    mirror[[0, 7, 2, 9]] = [7, 0, 9, 2]
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    hidden = (1 - visible[0]) * visible[0][mirror] * MIRROR_TRUST
    difference = (seen - coarse)[0] * visible[0][:, None]
    system = np.diag(visible[0] + hidden + DECAY) + SMOOTHNESS * laplacian
    wanted = coarse[0] + np.linalg.solve(system, difference + hidden[:, None] * difference[mirror])
    found = complete_texture(coarse, seen, visible, sp.csr_matrix(adjacency), pairs)[0]
    np.testing.assert_allclose(found, np.clip(wanted, -1, 1), atol=1e-5)
