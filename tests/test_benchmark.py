"""The benchmark times what is shipped, its references do the same work, and its table is printed."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import mesh_sampling
import model
from facegcn.benchmark import __main__ as benchmark
from facegcn.benchmark import references, rows
from facegcn.benchmark.rows import drawing, growth, packing, photos, step_growth, steps, timing
from facegcn.config import load_config
from facegcn.errors import UserError
from facegcn.face_model import FaceModel
from facegcn.graph import ChebConv, MeshPool
from facegcn.mesh.decimation import decimate
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import to_network_range
from facegcn.rasterizer import rasterize
from tests.faces import half_ellipsoid

TINY = timing.Sizes(vertices=900, pixels=48, batch=2, columns=8, images=6, small_mesh=100, embedding=8, repetitions=1)


@pytest.fixture(scope="module")
def mesh():
    return timing.bumpy_mesh(TINY.vertices)


@pytest.fixture(scope="module")
def hierarchy(mesh):
    return mesh_sampling.generate_transform_matrices(*mesh)


def test_default_mesh_is_as_large_as_the_basel_face_model():
    vertices, triangles = timing.bumpy_mesh(timing.Sizes.vertices)
    assert vertices.shape == (35_721, 3) and triangles.shape == (70_688, 3)
    assert benchmark.BASEL_FACE_MODEL == timing.Sizes.vertices


def test_naive_decimation_keeps_as_many_and_mostly_the_same(mesh):
    kept, _ = decimate(*mesh, 450)
    naive = references.naive_decimate(*mesh, 450)
    assert len(naive) == len(kept)
    assert len(np.intersect1d(naive, kept)) > 0.8 * len(kept)


def test_naive_drawing_gives_the_same_pictures_and_colour_gradient(mesh):
    vertices, triangles = mesh
    clip, triangles = drawing.posed(vertices, 2), tf.constant(triangles)
    ids, barycentrics = references.naive_rasterize(clip, triangles, 48, 48)
    exact = rasterize(clip, triangles, 48, 48)
    same = np.asarray(ids) == np.asarray(exact.triangle_ids)
    assert same.mean() > 0.995 and (np.asarray(ids) >= 0).mean() > 0.2
    np.testing.assert_allclose(np.asarray(barycentrics)[same], np.asarray(exact.barycentrics)[same], atol=2e-3)
    colours, gradients = tf.random.stateless_uniform((2, len(vertices), 3), (0, 1)), []
    for function in (drawing.draw, references.naive_draw):
        with tf.GradientTape() as tape:
            tape.watch(colours)
            loss = tf.reduce_sum(tf.square(function(clip, triangles, [colours], 48)[0]))
        gradients.append(np.asarray(tape.gradient(loss, colours)))
    difference = np.abs(gradients[0] - gradients[1])
    assert difference.sum() < 0.02 * np.abs(gradients[0]).sum()


@pytest.mark.parametrize("order, use_bias", [(1, False), (2, True), (6, True)])
def test_naive_graph_convolution_is_chebconv(hierarchy, order, use_bias):
    matrix = hierarchy.laplacians[1]
    x = tf.random.stateless_normal((matrix.shape[0], 2, 5), (0, 1))
    ours, naive = (layer(3, matrix, order, "elu", use_bias, vertex_major=True)
                   for layer in (ChebConv, references.NaiveChebConv))
    ours.build(x.shape)
    naive.build(x.shape)
    naive.set_weights(ours.get_weights())
    np.testing.assert_allclose(naive(x), ours(x), atol=1e-5)


def test_naive_pool_is_meshpool(hierarchy):
    matrix = hierarchy.upsamples[0]
    x = tf.random.stateless_normal((matrix.shape[1], 2, 5), (0, 1))
    ours, naive = (layer(matrix, vertex_major=True) for layer in (MeshPool, references.NaiveMeshPool))
    np.testing.assert_allclose(naive(x), ours(x), atol=1e-6)


@pytest.mark.parametrize("options", steps.NETWORKS.values(), ids=["residual", "paper"])
def test_both_training_steps_learn_the_same(options, mesh, hierarchy):
    vertices, triangles = mesh
    scene = drawing.posed(vertices, 2), tf.constant(triangles), 48
    ours = model.build_texture_network(hierarchy=hierarchy, embedding_dim=8, **options)
    losses = []
    for network, draw in ((ours, drawing.draw), (references.naive_network(ours), references.naive_draw)):
        step = steps.training_step(network, draw, *scene)
        losses.append([float(step()) for _ in range(2)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    assert losses[0][1] != losses[0][0], "a step changes the network"


def test_every_graph_layer_of_the_naive_network_is_naive(hierarchy):
    ours = model.build_texture_network("resnet", hierarchy, embedding_dim=8)
    naive = references.naive_network(ours)
    assert [w.path for w in naive.weights] == [w.path for w in ours.weights]
    kinds = {type(layer) for layer in naive.layers}
    assert {references.NaiveChebConv, references.NaiveMeshPool} < kinds and not {ChebConv, MeshPool} & kinds


def test_what_is_timed_is_what_is_shipped(monkeypatch):
    """The root modules' own functions, with the options of the demo world and of the paper."""
    parts, built = benchmark.parts(), []
    assert parts == (mesh_sampling.generate_transform_matrices, mesh_sampling.adjacency,
                     mesh_sampling.graph_laplacian, model.build_texture_network, model.build_critic)

    def network(**options):
        built.append(parts.network(**options))
        return built[-1]

    stepped = []
    monkeypatch.setattr(steps, "training_step", lambda network, *scene: stepped.append(network) or (lambda: None))
    monkeypatch.setattr(steps, "compare", lambda ours, naive, repetitions: (1.0, 2.0))
    assert len(steps.step_rows(TINY, parts._replace(network=network))) == 2
    assert stepped[::2] == built and {type(network) for network in stepped} == {type(built[0])}
    config = load_config(None)
    channels = FaceModel(half_ellipsoid(), delit=config.delit, mirror=config.mirror,
                         completed=config.completed).refiner_channels
    shipped = dict(kind=config.model, residual=config.residual, refiner_channels=channels)
    assert list(steps.NETWORKS.values())[0] == shipped and not config.wide


def test_naive_records_hold_the_same_images(tmp_path, rng):
    images, names = rng.integers(0, 256, (6, 6, 6, 4), np.uint8), list("abcdef")
    references.naive_write(str(tmp_path / "naive.bin"), images)
    packed_file.write_bin(str(tmp_path / "ours.bin"), names, images)
    naive = list(references.naive_dataset(str(tmp_path / "naive.bin"), 6, (6, 6, 4), 4))
    ours = [rgba for rgba, in packing.epoch(str(tmp_path / "ours.bin"), names, 4)]
    assert [len(batch) for batch in naive] == [4, 2] and [len(batch) for batch in ours] == [4, 4]
    orders = (np.random.default_rng(seed).permutation(6) for seed in (0, [0, 0]))
    for found, order in zip((naive, ours), orders):
        np.testing.assert_allclose(np.concatenate(found)[:6], to_network_range(images[order]), atol=1e-6)


def test_compare_takes_medians_without_the_first_call(monkeypatch):
    clock = iter(np.cumsum([0, 100, 0, 100, 0, 1, 0, 5, 0, 2, 0, 6, 0, 9, 0, 7]))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    assert timing.compare(lambda: None, lambda: None, 3) == (2.0, 6.0)


def test_line_gives_both_times_and_their_ratio():
    line = benchmark.table_line(timing.Row("work", 0.0025, 1.5, ">= 8x"))
    assert line.split() == ["work", "2.5", "ms", "1.50", "s", "600.0x", ">=", "8x"]
    line = benchmark.table_line(timing.Row("work", 3.0, None, "<= 5 s"))
    assert line.split() == ["work", "3.00", "s", "<=", "5", "s"]


@pytest.mark.parametrize("name", [*rows.TABLE, *rows.BY_NAME])
def test_every_name_has_its_function(name):
    assert callable(rows.rows_function(name))


@pytest.mark.parametrize("name", ["training_resnet", pytest.param("training_gan", marks=pytest.mark.long)])
def test_a_training_has_its_first_step_and_the_others(name):
    first, step = rows.rows_function(name)(TINY, benchmark.parts())
    assert first.ours > step.ours > 0 and first.naive is step.naive is None


@pytest.mark.parametrize("name", ["rasterize", "laplacian", "hierarchy", "packing", "growth"])
def test_rows_have_times(name):
    found = rows.rows_function(name)(TINY, benchmark.parts())
    assert found and all(row.ours > 0 and (row.naive is None or row.naive > 0) for row in found)


def test_growth_is_a_line_through_the_times(rng):
    work = rng.uniform(1, 1e6, (12, 2))
    times = 2e-3 + work @ [3e-8, 5e-9]
    fit, line = growth.linear_fit(work, times)
    np.testing.assert_allclose(fit, [2e-3, 3e-8, 5e-9], rtol=1e-6)
    np.testing.assert_allclose(line, times, rtol=1e-6)
    assert (growth.linear_fit(work, work @ [3e-8, 5e-9] - 1e-5 * work[:, 1].min())[0] >= 0).all()


def test_operations_of_a_step_are_counted():
    embedding = keras.Input((5,))
    vertices = keras.layers.Reshape((8, 3))(keras.layers.Dense(24)(embedding))
    network = keras.Model(embedding, ChebConv(2, scipy.sparse.identity(8), order=2)(vertices))
    dense, graph, sparse = 5 * 24, 8 * (3 * 2) * 2, 8 * 7 * (3 * 2)
    assert step_growth.step_operations(network, 4) == (3 * 2 * 4 * (dense + graph + sparse), 5 * 24 + 24 + 12 + 2)


def test_step_growth_changes_one_thing_at_a_time(monkeypatch):
    seen = []
    monkeypatch.setattr(step_growth, "_measure", lambda sizes, wide, parts: seen.append(
        (sizes.vertices, sizes.pixels, sizes.batch, wide)))
    step_growth.step_growth_rows(timing.Sizes(vertices=1000, pixels=64), None)
    middle = (500, 64, 4, False)
    assert len(set(seen)) == len(seen) and middle in seen
    assert all(sum(a != b for a, b in zip(scene, middle)) <= 1 for scene in seen)


def test_growth_takes_the_sizes_of_the_documentation(monkeypatch):
    seen = []
    monkeypatch.setattr(growth, "_measure", lambda vertices, pixels, sizes: seen.append((vertices, pixels))
                        or (4 * 2 * vertices, 4 * pixels ** 2, 1e-9 * vertices))
    rows_found = growth.growth_rows(timing.Sizes(), None)
    assert {pixels for _, pixels in seen} == {112, 224, 336, 448, 672, 1024} and len(rows_found) == len(seen) + 1
    assert min(seen)[0] * 2 < 7_200 and max(seen)[0] * 2 > 280_000


def test_table_is_printed_and_written(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        steps, "step_rows",
        lambda sizes, parts: seen.append(sizes.vertices) or [timing.Row("  step", 1.0, 7.0, ">= 5x")])
    path = tmp_path / "new" / "table.json"
    assert benchmark.main(["--rows", "step", "--vertices", "900", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert seen == [900] and "7.0x   >= 5x" in printed
    assert float(printed.split("included: ")[1].split()[0]) > 0.1
    written = json.loads(path.read_text())
    assert written["rows"] == [{"work": "step", "ours_s": 1.0, "naive_s": 7.0, "bar": ">= 5x"}]
    assert written["vertices"] == 900 and written["tensorflow"] == tf.__version__


def test_help_needs_no_tensorflow():
    run = subprocess.run([sys.executable, "-X", "importtime", "-m", "facegcn.benchmark", "--help"],
                         capture_output=True, text=True, check=True)
    assert "--json" in run.stdout and "--debug" in run.stdout
    assert "tensorflow" not in run.stderr and "numba" not in run.stderr


@pytest.mark.parametrize("arguments, word", [(["--rows", "speed"], "speed"), (["--vertices", "10"], "576")])
def test_bad_arguments_are_named(capsys, arguments, word):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2 and word in capsys.readouterr().err


def test_test_mode_is_timed_in_a_process_of_its_own(tmp_path, monkeypatch):
    """A stand-in that writes its first result after some time, and its second after some more."""
    out = tmp_path / "out"
    words = (f"import os, time\nos.makedirs({str(out)!r})\n"
             f"for name in 'ab':\n time.sleep(0.3)\n for ending in ('_input.png', '.npz'):\n"
             f"  open(os.path.join({str(out)!r}, name + ending), 'w').close()\n")
    first, whole = photos.seconds_of([sys.executable, "-c", words], str(out))
    assert 0.3 <= first < whole - 0.25
    with pytest.raises(UserError, match="code 3: no weights"):
        photos.seconds_of([sys.executable, "-c", "print('no weights'); raise SystemExit(3)"], str(tmp_path / "none"))
    photos.make_photos(str(tmp_path / "in"), 3, 64)
    assert len({file.read_bytes() for file in (tmp_path / "in").iterdir()}) == 3
    monkeypatch.setattr(photos, "seconds_of", lambda command, output: os.makedirs(output) or [
        open(os.path.join(output, f"{name}{ending}"), "w").close() for name in "abcd"
        for ending in ("_input.png", ".npz")] and (3.0, 8.0))
    each, start = photos.photos_rows(timing.Sizes(config="c.yaml", photos=str(tmp_path / "in")), None)
    assert each.ours == 2.0 and "0.50 a second" in each.work and start.ours == 3.0
