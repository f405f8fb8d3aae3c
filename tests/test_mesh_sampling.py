"""Mesh hierarchy: exact decimation, closest points, matrices, files, command line."""

import ast
import heapq
import logging
import math
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import trimesh

import mesh_sampling
import utils
from facegcn import files
from facegcn.errors import BrokenFile
from facegcn.mesh.closest_point import closest_points
from facegcn.mesh.decimation import DecimationError, decimate
from mesh_sampling import adjacency, generate_transform_matrices, graph_laplacian
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


def fma(a, b, c):
    """a * b + c with one rounding, on every processor."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def error_at(quadric, x, y, z):
    """(x, y, z, 1) times the quadric (4, 4 lists) times itself, rounded as the BLAS of the released code rounds.

    NumPy's products and einsum sum in an order of each processor's own, and cheapest edges are often tied.
    """
    columns = [fma(z, quadric[2][j], fma(x, quadric[0][j], quadric[1][j] * y)) + quadric[3][j] for j in range(4)]
    return fma(columns[2], z, fma(columns[1], y, columns[0] * x)) + columns[3]


def slow_decimation(vertices, triangles, target):
    """The released code's rule, spelled out: every collapse rewrites the whole queue and mesh."""
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)
    quadrics = np.zeros((len(vertices), 4, 4))
    for face, plane in zip(triangles, np.linalg.svd(homogeneous[triangles])[2][:, 3]):
        a, b, c, _ = plane.tolist()
        plane = plane / math.sqrt(fma(c, c, fma(b, b, a * a)))
        for vertex in face:
            quadrics[vertex] += plane[:, None] * plane

    def errors(a, b):
        total = (quadrics[a] + quadrics[b]).tolist()
        return [error_at(total, *vertices[v].tolist()) for v in (a, b)]

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


def test_same_vertices_and_triangles_as_the_released_code():
    with np.load(Path(__file__).parent / "data" / "decimation_576.npz") as case:
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
    dense = graph_laplacian(matrix).toarray()
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense[0, :3], [1, -1 / math.sqrt(8), -1 / math.sqrt(8)], rtol=1e-6)
    np.testing.assert_array_equal(dense[4], [0, 0, 0, 0, 1])  # a lone vertex


def test_matrices_equal_the_reference_case(released_case):
    def matrix(name):
        part = {key: released_case[f"sampling/{name}/{key}"] for key in ("row", "col", "data", "shape")}
        return sp.csr_matrix((part["data"], (part["row"], part["col"])), shape=part["shape"])

    level0 = adjacency(released_case["model/triangles"], len(released_case["model/mean_shape"]))
    assert abs(level0 - matrix("adjacency0")).max() == 0
    for k in range(5):
        assert abs(graph_laplacian(matrix(f"adjacency{k}")) - matrix(f"laplacians{k}")).max() < 1e-6


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


@pytest.fixture
def saved(tmp_path, rng):
    """The path of a saved hierarchy with one level."""
    path = str(tmp_path / "hierarchy.npz")
    mesh_sampling.save_hierarchy(path, generate_transform_matrices(*bumpy(rng, 8, 8), (4,)))
    return path


def test_names_of_the_arrays(saved):
    assert sorted(mesh_sampling.array_names(1)) == sorted(np.load(saved).files)


def test_load_names_what_is_wrong(saved, tmp_path):
    with pytest.raises(FileNotFoundError):
        mesh_sampling.load_hierarchy(str(tmp_path / "absent.npz"))
    arrays = dict(np.load(saved))
    np.savez(saved, **{**arrays, "laplacians1_col": arrays["laplacians1_col"] + 1000})
    with pytest.raises(BrokenFile, match="is no mesh hierarchy"):
        mesh_sampling.load_hierarchy(saved)
    del arrays["laplacians1_col"]
    np.savez(saved, **arrays)
    with pytest.raises(BrokenFile, match="'laplacians1_col' is missing"):
        mesh_sampling.load_hierarchy(saved)
    os.truncate(saved, 1000)
    with pytest.raises(BrokenFile, match="hierarchy.npz: is no whole .npz"):
        mesh_sampling.load_hierarchy(saved)


# -------------------------------------------------------------------- the kept hierarchy
def kept_files(folder):
    return sorted(folder.glob("sampling-*.npz"))


def test_hierarchy_is_kept_by_template_and_factors(tmp_path, caplog, rng):
    caplog.set_level(logging.INFO, "facegcn")
    vertices, triangles = bumpy(rng, 20, 20)
    first = utils.init_sampling(vertices, triangles, str(tmp_path), (4, 4))
    assert "making the mesh hierarchy of 400 vertices" in caplog.text
    caplog.clear()
    again = utils.init_sampling(vertices, triangles, str(tmp_path), (4, 4))
    assert caplog.text == "", "nothing is made"
    for name in first._fields:
        for a, b in zip(getattr(first, name), getattr(again, name), strict=True):
            assert abs(a - b).max() == 0
    utils.init_sampling(vertices + 0.1, triangles, str(tmp_path), (4, 4))
    utils.init_sampling(vertices, triangles[:, ::-1], str(tmp_path), (4, 4))
    utils.init_sampling(vertices, triangles, str(tmp_path), (4, 3))
    assert len(kept_files(tmp_path)) == 4


@pytest.mark.parametrize("module", ["facegcn.mesh.decimation", "facegcn.mesh.closest_point", "mesh_sampling"])
def test_hierarchy_of_other_code_is_not_used(module, tmp_path, rng, monkeypatch):
    """One statement more in any of the makers, and the key is another."""
    def changed(name, original=files._code):
        tree = original(name)
        return ast.Module(tree.body + ast.parse("x = 1").body, []) if name == module else tree

    mesh = bumpy(rng, 8, 8)
    utils.init_sampling(*mesh, str(tmp_path), (4,))
    monkeypatch.setattr(files, "_code", changed)
    files.code_version.cache_clear()
    utils.init_sampling(*mesh, str(tmp_path), (4,))
    files.code_version.cache_clear()
    assert len(kept_files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "an array less"])
def test_damaged_hierarchy_is_made_anew_and_said(damage, tmp_path, caplog, rng):
    mesh = bumpy(rng, 8, 8)
    whole = utils.init_sampling(*mesh, str(tmp_path), (4,))
    path, = kept_files(tmp_path)
    if damage == "an array less":
        arrays = dict(np.load(path))
        del arrays["upsamp_trans0_data"]
        np.savez(path, **arrays)
    else:
        path.write_bytes({"cut": path.read_bytes()[:900], "empty": b"", "text": b"not an archive"}[damage])
    again = utils.init_sampling(*mesh, str(tmp_path), (4,))
    assert path.name in caplog.text and "is damaged" in caplog.text and "made anew" in caplog.text
    assert abs(whole.upsamples[0] - again.upsamples[0]).max() == 0
    assert len(mesh_sampling.load_hierarchy(str(path)).sizes) == 2


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
    assert mesh_sampling.main(["--model", str(tmp_path / "absent.npz"), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_needs_neither_tensorflow_nor_numba():
    run = subprocess.run([sys.executable, "-X", "importtime", mesh_sampling.__file__, "--help"],
                         capture_output=True, text=True, check=True)
    assert "--model" in run.stdout and "--debug" in run.stdout
    assert "tensorflow" not in run.stderr and "numba" not in run.stderr
