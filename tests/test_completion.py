"""Trust in seen colours, and completion of the coarse texture with them."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg

from facegcn.completion import (
    DECAY,
    LITTLE_TRUST,
    MIRROR_TRUST,
    SMOOTHNESS,
    UNKNOWN,
    UNLIKELY,
    TextureCompletion,
    angle_weight,
    correction_weight,
    likelihood_weight,
    vertex_adjacency,
)
from facegcn.face_model import mirror_index
from tests.faces import half_ellipsoid


def strip(count):
    """Triangles of a band of vertices: each shares an edge with the two before and behind it."""
    first = np.arange(count - 2)
    return np.stack([first, first + 1, first + 2], axis=1)


def alone(count):
    """No triangles at all, so that no vertex has a neighbour."""
    return np.zeros((0, 3), int), np.arange(count)


def solved(triangles, mirror, coarse, seen, trust):
    """The minimum (N, 3) of the docstring's energy for one face, by a direct sparse solve in double precision."""
    count, t = len(mirror), np.asarray(trust, np.float64)
    edges = {tuple(sorted(edge)) for a, b, c in triangles for edge in ((a, b), (b, c), (c, a))}
    rows, columns = np.array(sorted(edges)).reshape(-1, 2).T
    half = sp.coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count))
    adjacency = half + half.T
    laplacian = sp.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    mirrored = MIRROR_TRUST * (1 - t) * t[mirror]
    difference = np.where(t[:, None] > 0, seen - coarse, 0).astype(np.float64)
    right = t[:, None] * difference + mirrored[:, None] * difference[mirror]
    system = sp.diags(t + mirrored + DECAY * (1 - t)) + SMOOTHNESS * laplacian
    return coarse + scipy.sparse.linalg.spsolve(system.tocsc(), right)


# ---------------------------------------------------------------- completion
def test_adjacency_counts_an_edge_of_two_triangles_once():
    wanted = np.ones((4, 4)) - np.eye(4)
    wanted[0, 3] = wanted[3, 0] = 0
    found = vertex_adjacency(np.array([[0, 1, 2], [2, 1, 3]]), 5).toarray()
    np.testing.assert_array_equal(found[:4, :4], wanted)
    assert not found[4].any() and not found[:, 4].any(), "a loose vertex has no neighbour"


@pytest.mark.parametrize(("options", "tolerance"), [({}, 0.03), ({"rounds": 2500}, 2e-6)])
def test_the_result_is_that_of_a_direct_solve(rng, options, tolerance):
    """On a face with mirror pairs, for each of three photos; the usual rounds end early where little is seen."""
    face, mirror = half_ellipsoid(), mirror_index(half_ellipsoid())
    coarse, seen = rng.uniform(-0.4, 0.4, (2, 3, face.vertex_count, 3)).astype(np.float32)
    trust = rng.random((3, face.vertex_count), np.float32) * (rng.random((3, face.vertex_count)) < [[0.1], [0.5], [1]])
    found = TextureCompletion(face.triangles, mirror)(coarse, seen, trust, **options).numpy()
    for row in range(3):
        wanted = solved(face.triangles, mirror, coarse[row], seen[row], trust[row])
        np.testing.assert_allclose(found[row], wanted, atol=tolerance)


def test_disconnected_parts_keep_to_themselves(rng):
    """An eyeball among them: no colour of one part reaches another."""
    triangles = np.concatenate([strip(6), 6 + strip(5)])
    coarse, seen = rng.uniform(-0.4, 0.4, (2, 1, 12, 3)).astype(np.float32)
    trust = np.zeros((1, 12), np.float32)
    trust[0, :3] = 1.0
    fine = TextureCompletion(triangles, np.arange(12))(coarse, seen, trust, rounds=2500).numpy()[0]
    np.testing.assert_allclose(fine, solved(triangles, np.arange(12), coarse[0], seen[0], trust[0]), atol=1e-6)
    np.testing.assert_array_equal(fine[6:], coarse[0, 6:])
    assert np.abs(fine[5] - coarse[0, 5]).max() > 1e-3


def test_whole_trust_gives_the_seen_colour(rng):
    """Where the neighbours have the same difference, or there are none."""
    coarse = rng.uniform(-0.4, 0.4, (1, 20, 3)).astype(np.float32)
    fine = TextureCompletion(strip(20), np.arange(20))(coarse, coarse + 0.3, np.ones((1, 20)))
    np.testing.assert_allclose(fine, coarse + 0.3, atol=1e-6)
    seen = rng.uniform(-1, 1, (1, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(TextureCompletion(*alone(20))(coarse, seen, np.ones((1, 20))), seen, atol=1e-6)


def test_seen_colours_are_kept_and_hidden_ones_return_to_the_coarse_texture():
    count = 60
    coarse, seen = np.zeros((1, count, 3), np.float32), np.full((1, count, 3), 0.5, np.float32)
    trust = np.zeros((1, count), np.float32)
    trust[0, :30] = 1
    fine = TextureCompletion(strip(count), np.arange(count))(coarse, seen, trust).numpy()[0, :, 0]
    np.testing.assert_allclose(fine[:25], 0.5, atol=0.01)
    assert np.all(np.diff(fine[25:]) <= 1e-6), "the difference fades with the distance"
    assert fine[30] > 0.05 and abs(fine[-1]) < 5e-3, "it reaches the neighbours, not the other side of the head"


def test_nothing_seen_leaves_the_coarse_texture_whatever_the_colours(rng):
    coarse = rng.uniform(-1, 1, (2, 20, 3)).astype(np.float32)
    complete = TextureCompletion(strip(20), np.arange(20))
    for unseen in (np.ones_like(coarse), np.full_like(coarse, np.nan)):
        np.testing.assert_array_equal(complete(coarse, unseen, np.zeros((2, 20))), coarse)


def test_mirrored_vertices_learn_from_what_is_seen():
    coarse, seen = np.zeros((2, 1, 4, 3), np.float32)
    seen[0, 0] = 0.8
    fine = TextureCompletion(alone(4)[0], [3, 1, 2, 0])(coarse, seen, np.array([[1.0, 0, 0, 0]])).numpy()[0, :, 0]
    np.testing.assert_allclose(fine, [0.8, 0, 0, 0.8 * MIRROR_TRUST / (MIRROR_TRUST + DECAY)], atol=1e-6)


def test_albedo_stays_in_its_range():
    coarse, seen = np.full((1, 4, 3), 0.9, np.float32), np.full((1, 4, 3), 1.4, np.float32)
    assert TextureCompletion(*alone(4))(coarse, seen, np.ones((1, 4))).numpy().max() == 1.0


def test_the_result_is_the_minimum_of_what_is_minimised(rng):
    """Of the energy as the docstring writes it, term by term: no step away from the result lowers it."""
    count, triangles = 12, rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1)[:, :3]
    coarse, seen = rng.uniform(-0.3, 0.3, (2, 1, count, 3)).astype(np.float32)
    trust = rng.random((1, count))
    mirror = np.arange(count)
    mirror[[0, 7, 2, 9]] = [7, 0, 9, 2]
    found = TextureCompletion(triangles, mirror)(coarse, seen, trust, rounds=300).numpy()[0]
    edges = {tuple(sorted(edge)) for a, b, c in triangles for edge in ((a, b), (b, c), (c, a))}

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


# ---------------------------------------------------------------- trust
def test_trust_falls_towards_the_silhouette():
    normals = np.array([[[0, 0, 1], [0.6, 0, 0.8], [0, 1, 0], [0, 0.6, -0.8]]])
    np.testing.assert_allclose(angle_weight(normals), [[1.0, 0.64, 0.0, 0.0]], atol=1e-6)


def test_trust_falls_with_what_the_coarse_face_cannot_explain():
    coarse = np.full((1, 4, 3), 0.1, np.float32)
    seen = coarse + np.float32([0, UNLIKELY, -3 * UNLIKELY, 0])[None, :, None]
    seen[0, 3] += np.float32([3 * UNLIKELY, 0, 0])  # of the mean of the channels
    np.testing.assert_allclose(likelihood_weight(coarse, seen), [[1.0, 0.5, 0.1, 0.5]], atol=1e-6)


def test_belief_in_a_correction_falls_where_the_photo_shows_what_the_model_does_not_know():
    coarse = np.full((1, 5, 3), 0.1, np.float32)
    completed = coarse.copy()
    completed[0, :, 1] += np.float32([0, UNKNOWN, -UNKNOWN, 2 * UNKNOWN, 2 * UNKNOWN])  # the farthest channel counts
    trust = np.float32([[1.0, 1e6, LITTLE_TRUST, 1e6, 0.0]])
    wanted = [1.0, np.exp(-1), 0.5 + 0.5 * np.exp(-1), np.exp(-4), 1.0]
    np.testing.assert_allclose(correction_weight(coarse, completed, trust)[0, :, 0], wanted, atol=1e-5)


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
    trust = visible * angle_weight(normals).numpy() * likelihood_weight(np.float32(coarse), np.float32(seen)).numpy()
    complete = TextureCompletion(face.triangles, mirror_index(face))
    fine = complete(coarse[None], seen[None], trust[None]).numpy()[0]

    def error(texture, vertices):
        return np.abs(texture - truth)[vertices].mean()
    assert 0.1 < np.mean(visible == 0) < 0.5
    assert np.abs(seen - truth)[(visible == 1) & (facing < 0.1)].mean() > 2 * error(coarse, visible == 0)
    assert error(fine, visible == 0) <= error(coarse, visible == 0)
    assert error(fine, visible == 1) < 0.7 * error(coarse, visible == 1)
