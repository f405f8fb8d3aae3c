"""Mesh hierarchy: exact decimation, closest points, matrices, files, command line."""

import heapq
import math
import time

import numpy as np
import pytest
import scipy.sparse as sp
import trimesh

import mesh_sampling
from facegcn.mesh.closest_point import closest_points
from facegcn.mesh.decimation import DecimationError, decimate
from mesh_sampling import adjacency, generate_transform_matrices, laplacian
from tests.faces import half_ellipsoid


def grid(rows, columns, height):
    """Triangulated grid (rows * columns vertices), z = height(x, y)."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    vertices = np.stack([x, y, height(x, y)], axis=2).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return vertices, np.stack([a, b, d, a, d, c], axis=2).reshape(-1, 3)


def bumpy(rng, rows, columns):
    noise = rng.normal(scale=0.01, size=(rows, columns))
    return grid(rows, columns, lambda x, y: np.exp(-x * x - y * y) + 0.1 * np.sin(5 * x) + noise)


def slow_decimation(vertices, triangles, target):
    """The released code's rule, spelled out: every collapse rewrites the whole queue and mesh."""
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)[:, :, None]
    quadrics = [np.zeros((4, 4)) for _ in vertices]
    for face in triangles:
        plane = np.linalg.svd(homogeneous[face, :, 0])[2][3]
        plane = plane / np.linalg.norm(plane[:3])
        for vertex in face:
            quadrics[vertex] = quadrics[vertex] + np.outer(plane, plane)

    def errors(a, b):
        total = quadrics[a] + quadrics[b]
        return [(homogeneous[v].T @ total @ homogeneous[v]).item() for v in (a, b)]

    edges = {(min(p), max(p)) for f in triangles.tolist() for p in zip(f, f[1:] + f[:1]) if p[0] != p[1]}
    queue = []
    for a, b in sorted(edges, key=lambda edge: edge[::-1]):
        heapq.heappush(queue, (min(errors(a, b)), a, b))
    faces, count = triangles.tolist(), len(vertices)
    while count > target:
        cost, a, b = heapq.heappop(queue)
        if a == b:
            continue
        if min(errors(a, b)) > cost:
            heapq.heappush(queue, (min(errors(a, b)), a, b))
            continue
        kept, gone = (a, b) if errors(a, b)[0] < errors(a, b)[1] else (b, a)
        quadrics[kept] = quadrics[a] + quadrics[b]
        queue[:] = [(c, *(kept if v == gone else v for v in pair)) for c, *pair in queue]
        faces = [[kept if v == gone else v for v in face] for face in faces]
        faces = [face for face in faces if len(set(face)) == 3]
        count = len({v for face in faces for v in face})
    kept = sorted({v for face in faces for v in face})
    return kept, [[kept.index(v) for v in face] for face in faces]


def test_same_vertices_and_triangles_as_the_released_code(shared):
    with np.load(shared / "reference" / "decimation_576.npz") as case:
        hierarchy = generate_transform_matrices(case["V"], case["F"], (4,))
        np.testing.assert_array_equal(hierarchy.downsamples[0].indices, case["kept"])
        np.testing.assert_array_equal(hierarchy.triangles[1], case["newF"])


@pytest.mark.parametrize("name", ["bumpy", "flat", "mirrored", "sphere", "unused_and_degenerate", "fans"])
def test_decimation_equals_the_slow_oracle(name, rng):
    """Ties (flat, mirrored), closed surfaces, loose vertices, degenerate and doubled triangles."""
    vertices, triangles = {
        "bumpy": lambda: bumpy(rng, 9, 12),
        "flat": lambda: grid(8, 9, lambda x, y: 0 * x),
        "mirrored": lambda: grid(9, 9, lambda x, y: np.cos(x) * np.cos(2 * y)),
        "sphere": lambda: (lambda s: (np.array(s.vertices), np.array(s.faces)))(
            trimesh.creation.icosphere(subdivisions=2)),
        "unused_and_degenerate": lambda: bumpy(rng, 9, 10),
        "fans": lambda: (rng.normal(size=(40, 3)), rng.integers(0, 40, (60, 3))),
    }[name]()
    if name == "unused_and_degenerate":
        triangles = np.concatenate([[[3, 3, 4], [0, 1, 0]], triangles[12:], triangles[20:30]])
    for target in (len(vertices) // 2, len(vertices) // 4, 5):
        kept, faces = decimate(vertices, triangles, target)
        slow_kept, slow_faces = slow_decimation(vertices, triangles, target)
        np.testing.assert_array_equal(kept, slow_kept)
        np.testing.assert_array_equal(faces, slow_faces)


def test_decimation_refuses_to_end_with_nothing():
    vertices, triangles = grid(2, 2, lambda x, y: x * y)
    with pytest.raises(DecimationError, match="no triangle left before it reaches 1"):
        decimate(vertices, triangles, 1)


def test_closest_points_equal_a_search_over_all_triangles(rng):
    vertices, triangles = bumpy(rng, 7, 11)
    vertices[:, 0] *= 9.0  # long thin triangles
    points = np.concatenate([rng.normal(size=(200, 3)) * [6, 1, 1], vertices])
    ids, weights = closest_points(points, vertices, triangles)
    found = np.einsum("pk,pkc->pc", weights, vertices[triangles[ids]])
    corners = vertices[triangles]
    best = [np.linalg.norm(trimesh.triangles.closest_point(corners, np.tile(p, (len(corners), 1))) - p,
                           axis=1).min() for p in points]
    np.testing.assert_allclose(np.linalg.norm(found - points, axis=1), best, atol=1e-12)
    assert weights.min() >= 0.0
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 17])
def test_closest_points_on_few_triangles(count, rng):
    vertices = rng.normal(size=(3 * count, 3))
    ids, _ = closest_points(vertices, vertices, np.arange(3 * count).reshape(-1, 3))
    np.testing.assert_array_equal(ids, np.repeat(np.arange(count), 3))


def test_adjacency_and_laplacian_of_two_triangles():
    matrix = adjacency(np.array([[0, 1, 2], [2, 1, 3]]), 5)
    expected = np.array([[0, 1, 1, 0, 0], [1, 0, 2, 1, 0], [1, 2, 0, 1, 0], [0, 1, 1, 0, 0], [0] * 5])
    np.testing.assert_array_equal(matrix.toarray(), expected)
    dense = laplacian(matrix).toarray()
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense[0, :3], [1, -1 / math.sqrt(8), -1 / math.sqrt(8)], rtol=1e-6)
    np.testing.assert_array_equal(dense[4], [0, 0, 0, 0, 1])  # a lone vertex


def test_matrices_equal_the_reference_case(shared):
    with np.load(shared / "reference" / "released_code_resnet.npz") as case:
        def matrix(name):
            part = {key: case[f"sampling/{name}/{key}"] for key in ("row", "col", "data", "shape")}
            return sp.csr_matrix((part["data"], (part["row"], part["col"])), shape=part["shape"])

        level0 = adjacency(case["model/triangles"], len(case["model/mean_shape"]))
        assert abs(level0 - matrix("adjacency0")).max() == 0
        for k in range(5):
            assert abs(laplacian(matrix(f"adjacency{k}")) - matrix(f"laplacians{k}")).max() < 1e-6


def test_hierarchy_is_consistent(rng):
    hierarchy = generate_transform_matrices(*bumpy(rng, 40, 30))
    assert hierarchy.sizes == [len(v) for v in hierarchy.vertices]
    for size, coarser in zip(hierarchy.sizes, hierarchy.sizes[1:]):
        assert coarser <= math.ceil(size / 4)
    assert len(hierarchy.sizes) == 5
    for k, (down, up) in enumerate(zip(hierarchy.downsamples, hierarchy.upsamples)):
        coarse = hierarchy.vertices[k + 1]
        np.testing.assert_array_equal(down @ hierarchy.vertices[k], coarse)
        np.testing.assert_allclose(up.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose((down @ up @ coarse), coarse, atol=1e-6)  # kept vertices stay
        assert {m.dtype for m in (down, up)} == {np.dtype(np.float32)}
    for matrix in hierarchy.laplacians:
        eigenvalues = np.linalg.eigvalsh(matrix.toarray())
        assert -1e-5 < eigenvalues[0] < 1e-5 and eigenvalues[-1] < 2 + 1e-5


def test_accepts_mesh_objects(rng):
    class Mesh:
        v, f = bumpy(rng, 8, 8)

    from_object = generate_transform_matrices(Mesh, factors=(4, 2))
    from_arrays = generate_transform_matrices(Mesh.v, Mesh.f, (4, 2))
    assert from_object.sizes == from_arrays.sizes


@pytest.mark.parametrize("change, message", [
    (dict(vertices=np.zeros((4, 2))), r"vertices must have shape \(N, 3\)"),
    (dict(triangles=np.zeros((0, 3), int)), "F above 0"),
    (dict(triangles=np.array([[0, 1, 64]])), r"outside 0\.\.63"),
    (dict(vertices=np.full((64, 3), np.nan)), "not finite"),
    (dict(factors=(4, 1)), "above 1"),
    (dict(triangles=None), "mesh object"),
    (dict(factors=(4, 4, 4, 4, 4)), "use fewer levels"),
])
def test_bad_input_is_named(change, message, rng):
    vertices, triangles = bumpy(rng, 8, 8)
    with pytest.raises(ValueError, match=message):
        generate_transform_matrices(**{"vertices": vertices, "triangles": triangles, **change})


def test_save_and_load(tmp_path, rng):
    path = str(tmp_path / "new" / "hierarchy.npz")
    hierarchy = generate_transform_matrices(*bumpy(rng, 10, 10), (4, 4))
    mesh_sampling.save_hierarchy(path, hierarchy)
    loaded = mesh_sampling.load_hierarchy(path)
    for name in hierarchy._fields:
        for first, second in zip(getattr(hierarchy, name), getattr(loaded, name), strict=True):
            assert first.shape == second.shape and first.dtype == second.dtype
            assert abs(first - second).max() == 0
    assert {"adjacency0_row", "upsamp_trans1_data", "laplacians2_shape"} <= set(np.load(path).files)


def test_load_names_what_is_wrong(tmp_path, rng):
    path = str(tmp_path / "hierarchy.npz")
    with pytest.raises(ValueError, match="not a readable mesh hierarchy"):
        mesh_sampling.load_hierarchy(path)
    mesh_sampling.save_hierarchy(path, generate_transform_matrices(*bumpy(rng, 8, 8), (4,)))
    arrays = dict(np.load(path))
    del arrays["laplacians1_col"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="lacks the array 'laplacians1_col'"):
        mesh_sampling.load_hierarchy(path)


def test_template_of_bfm_size_takes_seconds(rng):
    vertices, triangles = bumpy(rng, 189, 189)
    generate_transform_matrices(*bumpy(rng, 10, 10), (4,))  # compiles
    start = time.process_time()
    sizes = generate_transform_matrices(vertices, triangles).sizes
    assert time.process_time() - start < 5.0
    assert sizes[0] == 35721 and sizes[1:] == pytest.approx([8931, 2233, 559, 140], abs=2)


def test_command_line_prints_the_levels(tmp_path, capsys):
    half_ellipsoid(40, 30).save(str(tmp_path / "model.npz"))
    assert mesh_sampling.main(["--model", str(tmp_path / "model.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "1200", "2262", "3461"] and lines[2].split()[:2] == ["1", "300"]
    assert mesh_sampling.main(["--model", str(tmp_path / "absent.npz")]) == 2
    assert "there is no morphable model" in capsys.readouterr().err
