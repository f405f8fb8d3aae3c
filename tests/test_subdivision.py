"""Subdivision matrices, smooth functions, mirror pairs and the mouth's surface."""

import numpy as np
import pytest
import trimesh

from facegcn.assets.mouth_patch import border_loops, mouth_patch
from facegcn.errors import UserError
from facegcn.mesh.spectral import cotangent_laplacian, smooth_functions
from facegcn.mesh.subdivision import find_edges, loop_subdivision
from facegcn.mesh.symmetry import mirror_pairs, mirrored_diagonals

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
SQUARE_TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])


def grid(columns, rows):
    """Vertices and triangles of a rectangle x in [-1, 1], y in [0, 1], row by row."""
    x, y = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(0, 1, rows))
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = np.stack([corner, corner + 1, corner + columns + 1, corner + columns], axis=1)
    return np.stack([x, y, 0 * x], axis=2).reshape(-1, 3), quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def area(vertices, triangles):
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


# -------------------------------------------------------------------- subdivision
def test_edges_of_two_triangles():
    edges = find_edges(SQUARE_TRIANGLES)
    assert edges.ends.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
    assert edges.sides.tolist() == [1, 2, 1, 1, 1]
    assert edges.of_triangle.tolist() == [[0, 3, 1], [1, 4, 2]]


def test_loop_known_values_on_a_tetrahedron():
    # valence 3: an old vertex keeps 1 - 3 * 3/16 = 7/16; an edge mixes its ends and the two others
    step = loop_subdivision(4, np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    dense = step.matrix.toarray()
    assert np.allclose(dense[:4], np.full((4, 4), 3 / 16) + np.eye(4) * 4 / 16)
    assert np.allclose(dense[4], [3 / 8, 3 / 8, 1 / 8, 1 / 8])  # edge 0-1
    assert step.triangles.shape == (16, 3)


def test_loop_known_values_on_a_border():
    dense = loop_subdivision(4, SQUARE_TRIANGLES).matrix.toarray()
    assert np.allclose(dense[0], [3 / 4, 1 / 8, 0, 1 / 8])
    assert np.allclose(dense[4], [1 / 2, 1 / 2, 0, 0])  # border edge 0-1
    assert np.allclose(dense[5], [3 / 8, 1 / 8, 3 / 8, 1 / 8])  # the diagonal


def disc():
    """A hexagon of 96 triangles; no inner edge joins two border vertices, which trimesh cannot take."""
    angle = np.arange(6) * np.pi / 3
    vertices = np.vstack([[0, 0, 0], np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)])
    triangles = np.array([[0, 1 + k, 1 + (k + 1) % 6] for k in range(6)])
    for _ in range(2):
        vertices, triangles = trimesh.remesh.subdivide(vertices, triangles)
    return vertices, triangles


@pytest.mark.parametrize("closed", [True, False])
def test_loop_gives_the_same_surface_as_trimesh(closed, rng):
    mesh = trimesh.creation.icosphere(1)
    vertices, triangles = (np.array(mesh.vertices), np.array(mesh.faces)) if closed else disc()
    vertices = vertices + rng.normal(0, 0.05, vertices.shape)
    step = loop_subdivision(len(vertices), triangles)
    expected, faces = trimesh.remesh.subdivide_loop(vertices, triangles, iterations=1)
    ours = step.apply(vertices)
    assert len(ours) == len(expected) and len(step.triangles) == len(faces)
    assert np.linalg.norm(ours[:, None] - expected[None], axis=2).min(axis=1).max() < 1e-9
    assert np.linalg.norm(ours[:, None] - expected[None], axis=2).min(axis=0).max() < 1e-9


def test_every_vertex_array_follows_alike(rng):
    vertices, triangles = grid(5, 4)
    basis = rng.normal(size=(20, 3, 2))
    step = loop_subdivision(20, triangles)
    moved = step.apply(vertices + basis @ [0.3, -2.0])
    assert np.allclose(moved, step.apply(vertices) + step.apply(basis) @ [0.3, -2.0])
    assert np.allclose(step.matrix.sum(axis=1), 1)


def test_fine_mesh_keeps_orientation_and_borders():
    vertices, triangles = grid(6, 5)
    step = loop_subdivision(len(vertices), triangles)
    fine = step.apply(vertices)
    assert len(fine) == len(vertices) + len(find_edges(triangles).ends)
    a, b, c = fine[step.triangles].transpose(1, 0, 2)
    assert np.cross(b - a, c - a)[:, 2].min() > 0
    coarse_border = (find_edges(triangles).sides == 1).sum()
    assert (find_edges(step.triangles).sides == 1).sum() == 2 * coarse_border


def test_loop_refuses_an_edge_with_three_triangles():
    with pytest.raises(ValueError, match="vertices 0 and 1 has more than two triangles"):
        loop_subdivision(5, np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))


# -------------------------------------------------------------------- smooth functions
def test_laplacian_of_a_right_angled_square():
    stiffness, areas = cotangent_laplacian(SQUARE, SQUARE_TRIANGLES)
    dense = stiffness.toarray()
    # the corner opposite the border edges has 45 degrees: weight cot / 2 = 1/2; the diagonal's have 90: 0
    assert np.allclose(dense, [[1, -.5, 0, -.5], [-.5, 1, -.5, 0], [0, -.5, 1, -.5], [-.5, 0, -.5, 1]])
    assert np.allclose(areas, [1 / 3, 1 / 6, 1 / 3, 1 / 6])


def test_smooth_functions_are_the_cosines_of_a_rectangle():
    vertices, triangles = grid(41, 21)
    functions, eigenvalues = smooth_functions(vertices, triangles, 3)
    _, areas = cotangent_laplacian(vertices, triangles)
    product = functions.T @ (functions * areas[:, None]) / areas.sum()
    assert np.allclose(product, np.eye(3), atol=1e-8)
    assert np.allclose(functions[:, 0], 1)
    # on a 2 x 1 rectangle: (pi / 2)^2, then pi^2 (twice: across, and twice along)
    assert np.allclose(eigenvalues, [0, (np.pi / 2) ** 2, np.pi ** 2], rtol=0.01, atol=1e-6)
    cosine = np.sqrt(2) * np.cos(np.pi * (vertices[:, 0] + 1) / 2)
    assert min(np.abs(functions[:, 1] - cosine).max(), np.abs(functions[:, 1] + cosine).max()) < 0.01


def test_smooth_functions_refuse_too_many():
    with pytest.raises(ValueError, match=r"count must lie in 1\.\.3"):
        smooth_functions(SQUARE, SQUARE_TRIANGLES, 4)


# -------------------------------------------------------------------- symmetry
def test_mirror_pairs_of_a_grid():
    vertices, _ = grid(5, 3)
    pairs = mirror_pairs(vertices, 1e-6)
    assert pairs.tolist() == [[0, 4], [1, 3], [5, 9], [6, 8], [10, 14], [11, 13]]
    vertices[9, 1] += 0.01
    assert [5, 9] not in mirror_pairs(vertices, 1e-6).tolist()


def test_diagonals_become_mirrored():
    vertices, triangles = grid(7, 5)
    vertices[:, 1] += 0.3 * np.abs(vertices[:, 0])  # leaning quads: one diagonal is shorter
    flipped = mirrored_diagonals(vertices, triangles)
    assert np.isclose(area(vertices, flipped), area(vertices, triangles))
    partner = np.arange(35).reshape(5, 7)[:, ::-1].ravel()
    edges = find_edges(flipped).ends
    assert {tuple(e) for e in np.sort(partner[edges], axis=1)} == {tuple(e) for e in edges}
    before = find_edges(triangles).ends
    assert {tuple(e) for e in np.sort(partner[before], axis=1)} != {tuple(e) for e in before}


# -------------------------------------------------------------------- mouth
def with_hole():
    """A 13 x 9 grid whose middle quads are cut out."""
    vertices, triangles = grid(13, 9)
    middle = np.repeat(vertices[triangles].reshape(-1, 6, 3).mean(axis=1), 2, axis=0)  # of the quads
    return vertices, triangles[~((np.abs(middle[:, 0]) < 0.5) & (np.abs(middle[:, 1] - 0.5) < 0.2))]


def test_borders_of_a_grid_with_a_hole():
    vertices, triangles = with_hole()
    assert sorted(len(loop) for loop in border_loops(triangles)) == [20, 40]


def test_mouth_patch_closes_the_hole_and_follows_the_rim(rng):
    vertices, triangles = with_hole()
    patch = mouth_patch(vertices, triangles, np.array([0, 0.5, 0]))
    every = np.vstack([triangles, patch.triangles])
    assert [len(loop) for loop in border_loops(every)] == [40]
    directed = every[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed), "triangles are oriented alike"
    assert np.allclose(patch.matrix.sum(axis=1), 1) and patch.depth.min() > 0 and patch.depth.max() <= 1
    closed = np.vstack([vertices, patch.matrix @ vertices])
    assert np.isclose(area(closed, every), 2), "that of the rectangle, so nothing overlaps"
    shift = rng.normal(size=3)
    assert np.allclose(patch.matrix @ (vertices + shift), patch.matrix @ vertices + shift)


def test_mouth_patch_needs_a_hole():
    vertices, triangles = grid(5, 5)
    with pytest.raises(UserError, match="no mouth opening"):
        mouth_patch(vertices, triangles, np.zeros(3))
