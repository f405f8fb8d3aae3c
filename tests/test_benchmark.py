"""The benchmark's references do the same work as ours, and its table is printed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import mesh_sampling
import model
from facegcn.benchmark import __main__ as benchmark
from facegcn.benchmark import references
from facegcn.graph import ChebConv, MeshPool
from facegcn.mesh.decimation import decimate
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import to_network_range
from facegcn.rasterizer import rasterize

TINY = benchmark.Sizes(vertices=900, pixels=48, batch=2, columns=8, images=6, small_mesh=100, repetitions=1)


@pytest.fixture(scope="module")
def mesh():
    return benchmark.bumpy_mesh(TINY.vertices)


@pytest.fixture(scope="module")
def levels(mesh):
    return benchmark.build_levels(*mesh)


def test_default_mesh_is_as_large_as_the_basel_face_model():
    vertices, triangles = benchmark.bumpy_mesh(benchmark.Sizes.vertices)
    assert vertices.shape == (35_721, 3) and triangles.shape == (70_688, 3)


def test_levels_are_those_of_mesh_sampling(mesh, levels):
    hierarchy = mesh_sampling.generate_transform_matrices(*mesh)
    for name in levels._fields:
        for ours, theirs in zip(getattr(levels, name), getattr(hierarchy, name), strict=True):
            np.testing.assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-5)


def test_naive_decimation_keeps_as_many_and_mostly_the_same(mesh):
    kept, _ = decimate(*mesh, 450)
    naive = references.naive_decimate(*mesh, 450)
    assert len(naive) == len(kept)
    assert len(np.intersect1d(naive, kept)) > 0.8 * len(kept)


def test_naive_drawing_gives_the_same_pictures_and_colour_gradient(mesh):
    vertices, triangles = mesh
    clip, triangles = benchmark.posed(vertices, 2), tf.constant(triangles)
    ids, barycentrics = references.naive_rasterize(clip, triangles, 48, 48)
    exact = rasterize(clip, triangles, 48, 48)
    same = np.asarray(ids) == np.asarray(exact.triangle_ids)
    assert same.mean() > 0.995 and (np.asarray(ids) >= 0).mean() > 0.2
    np.testing.assert_allclose(np.asarray(barycentrics)[same], np.asarray(exact.barycentrics)[same], atol=2e-3)
    colours, gradients = tf.random.stateless_uniform((2, len(vertices), 3), (0, 1)), []
    for function in (benchmark.draw, references.naive_draw):
        with tf.GradientTape() as tape:
            tape.watch(colours)
            loss = tf.reduce_sum(tf.square(function(clip, triangles, [colours], 48)[0]))
        gradients.append(np.asarray(tape.gradient(loss, colours)))
    difference = np.abs(gradients[0] - gradients[1])
    assert difference.sum() < 0.02 * np.abs(gradients[0]).sum()


@pytest.mark.parametrize("order, use_bias", [(1, False), (2, True), (6, True)])
def test_naive_graph_convolution_is_chebconv(levels, order, use_bias):
    matrix = levels.laplacians[1]
    x = tf.random.stateless_normal((2, matrix.shape[0], 5), (0, 1))
    ours = ChebConv(3, matrix, order, "elu", use_bias)
    naive = references.NaiveChebConv(3, matrix, order, "elu", use_bias)
    ours.build(x.shape)
    naive.build(x.shape)
    naive.set_weights(ours.get_weights())
    np.testing.assert_allclose(naive(x), ours(x), atol=1e-5)


def test_naive_pool_is_meshpool(levels):
    matrix = levels.upsamples[0]
    x = tf.random.stateless_normal((2, matrix.shape[1], 5), (0, 1))
    np.testing.assert_allclose(references.NaiveMeshPool(matrix)(x), MeshPool(matrix)(x), atol=1e-6)


def test_both_training_steps_learn_the_same(mesh, levels):
    vertices, triangles = mesh
    scene = benchmark.posed(vertices, 2), tf.constant(triangles), 48
    ours, naive = (benchmark.texture_network(levels, plain, embedding=8) for plain in (False, True))
    naive.set_weights(ours.get_weights())
    losses = []
    for network, draw in ((ours, benchmark.draw), (naive, references.naive_draw)):
        step = benchmark.training_step(network, draw, *scene)
        losses.append([float(step()) for _ in range(2)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    assert losses[0][1] < losses[0][0]


def test_timed_network_is_the_paper_s(mesh, levels):
    hierarchy = mesh_sampling.generate_transform_matrices(*mesh)
    theirs = model.build_texture_network("resnet", hierarchy, embedding_dim=8)
    ours = benchmark.texture_network(levels, plain=False, embedding=8)
    assert isinstance(ours, keras.Model)
    assert sorted(tuple(w.shape) for w in ours.weights) == sorted(tuple(w.shape) for w in theirs.weights)


def test_naive_records_hold_the_same_images(tmp_path, rng):
    images = rng.integers(0, 256, (5, 6, 6, 4), np.uint8)
    references.naive_write(str(tmp_path / "naive.bin"), images)
    packed_file.write_bin(str(tmp_path / "ours.bin"), list("abcde"), images)
    naive = list(references.naive_dataset(str(tmp_path / "naive.bin"), 5, (6, 6, 4), 2))
    ours = list(packed_file.dataset(str(tmp_path / "ours.bin"), batch_size=2).map(to_network_range))
    assert [batch.shape[0] for batch in naive] == [2, 2, 1]
    for left, right in zip(ours, naive, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_compare_takes_medians_without_the_first_call(monkeypatch):
    clock = iter(np.cumsum([0, 100, 0, 100, 0, 1, 0, 5, 0, 2, 0, 6, 0, 9, 0, 7]))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))
    assert benchmark.compare(lambda: None, lambda: None, 3) == (2.0, 6.0)


def test_line_gives_both_times_and_their_ratio():
    line = benchmark.line(benchmark.Row("work", 0.0025, 1.5, ">= 8x"))
    assert line.split() == ["work", "2.5", "ms", "1.50", "s", "600.0x", ">=", "8x"]
    assert benchmark.line(benchmark.Row("work", 3.0, None, "<= 5 s")).split() == ["work", "3.00", "s", "<=", "5", "s"]


@pytest.mark.parametrize("name", ["rasterize", "laplacian", "hierarchy", "packing"])
def test_rows_have_times(name):
    rows = benchmark.ROWS[name](TINY)
    assert rows and all(row.ours > 0 and (row.naive is None or row.naive > 0) for row in rows)


def test_table_is_printed(capsys, monkeypatch):
    seen = []
    monkeypatch.setitem(benchmark.ROWS, "step",
                        lambda sizes: seen.append(sizes.vertices) or [benchmark.Row("step", 1.0, 7.0, ">= 5x")])
    assert benchmark.main(["--rows", "step", "--vertices", "900"]) == 0
    printed = capsys.readouterr().out
    assert seen == [900] and "7.0x   >= 5x" in printed
    assert float(printed.split("included: ")[1].split()[0]) > 0.1


@pytest.mark.parametrize("arguments, word", [(["--rows", "speed"], "speed"), (["--vertices", "10"], "576")])
def test_bad_arguments_are_named(capsys, arguments, word):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2 and word in capsys.readouterr().err
