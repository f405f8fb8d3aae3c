"""Checkpoints of the released code: names and shapes, round trips through TF1's Saver, every mistake, the commands."""

import dataclasses
import functools
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml

import create_bin
import main
from facegcn.assets import __main__ as assets
from facegcn.assets.tf1_checkpoint import import_checkpoint, imported_weights, read_checkpoint, recognised_settings
from facegcn.config import Config
from facegcn.errors import UserError
from mesh_sampling import generate_transform_matrices
from model import build_critic, build_texture_network, load_imported, load_released_weights, released_names
from tests.faces import half_ellipsoid
from tests.standin_graphs import write_standin_graphs
from utils import RunFolder

SIZE, EMBEDDING, VERTICES = 64, 3840, 775
KINDS = [("resnet", False), ("resnet", True), ("normal", False), ("normal", True)]


def face():
    """A small model with BFM09's 257 coefficients."""
    return half_ellipsoid(25, 31, (80, 64, 80))


@pytest.fixture(scope="module")
def hierarchy():
    model = face()
    return generate_transform_matrices(model.mean_shape, model.triangles)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A packed small world with frozen networks: its folder, config file and settings."""
    folder = tmp_path_factory.mktemp("tf1_world")
    face().save(str(folder / "data" / "model.npz"))
    write_standin_graphs(str(folder / "data"))
    settings = {"name": "carried", "root_dir": str(folder / "data"), "runs_dir": str(folder / "runs"),
                "model_file": "model.npz", "regressor": "frozen", "facenet_file": "FaceNetModel.pb",
                "demo_portraits": 6, "val_count": 1, "test_count": 1, "img_size": SIZE, "regressor_pixels": 32,
                "batch_size": 2, "log_steps": 1, "buffer_size": 8, "losses": "released", "critic_steps": 1}
    (folder / "world.yaml").write_text(yaml.safe_dump(settings))
    assert create_bin.main(["--config", str(folder / "world.yaml")]) == 0
    return folder, str(folder / "world.yaml"), dataclasses.replace(Config(), **settings)


def random_arrays(kind="resnet", wide=False, nz=20, coarsest=4, embedding=EMBEDDING, critic=False, size=SIZE):
    """Random values for every variable of a released network; positive where they are variances."""
    rng = np.random.default_rng(7)
    arrays = {}
    for name, shape in network_shapes(kind, wide, nz, coarsest, embedding, size if critic else None).items():
        if name.endswith("/bias") and "conv" in name and name.startswith("mesh_generator"):
            shape = (1, 1, *shape)  # as the released code shapes the biases of graph convolutions
        arrays[name] = rng.normal(size=shape, scale=0.5 / np.sqrt(shape[0])).astype(np.float32)
        if name.endswith("moving_variance"):
            arrays[name] = np.abs(arrays[name]) + np.float32(0.5)
    return arrays


@functools.cache
def network_shapes(kind, wide, nz, coarsest, embedding, critic_size=None):
    """Shapes by TF1 name of our networks, on a mesh whose coarsest one has 4 or 13 vertices."""
    model = half_ellipsoid(*{4: (25, 31), 13: (57, 57)}[coarsest])
    hierarchy = generate_transform_matrices(model.mean_shape, model.triangles)
    assert len(hierarchy.vertices[-1]) == coarsest
    networks = [build_texture_network(kind, hierarchy, embedding, wide, nz)]
    networks += [build_critic(critic_size)] if critic_size else []
    return {name: tuple(variable.shape) for network in networks for name, variable in released_names(network).items()}


def write_checkpoint(prefix, arrays, extras=True) -> str:
    """Saves arrays by TF1's Saver, with what an optimiser and averages leave beside them."""
    with tf.Graph().as_default():
        variables = [tf.compat.v1.get_variable(name, initializer=array) for name, array in arrays.items()]
        if extras:
            for name, array in list(arrays.items())[:3]:
                for slot in ("Adam", "Adam_1", "ExponentialMovingAverage"):
                    variables.append(tf.compat.v1.get_variable(f"{name}/{slot}", initializer=np.zeros_like(array)))
            scope = "image_disc/conv1_1/BatchNorm/image_disc/conv1_1/BatchNorm/moving_mean"
            if any(name.startswith("image_disc") for name in arrays):
                variables.append(tf.compat.v1.get_variable(f"{scope}/biased", initializer=np.zeros(16, np.float32)))
                variables.append(tf.compat.v1.get_variable(f"{scope}/local_step", initializer=np.float32(3)))
            variables.append(tf.compat.v1.get_variable("training/global_step", initializer=np.int64(1234)))
            variables.append(tf.compat.v1.get_variable("training/beta1_power", initializer=np.float32(0.1)))
        saver = tf.compat.v1.train.Saver(variables)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            return saver.save(session, str(prefix), global_step=1234)


# ---------------------------------------------------------------- names and shapes
def test_the_importer_asks_the_networks_themselves(world, monkeypatch):
    """A network with a layer more would be asked for with that layer: no second list of names and shapes."""
    config = dataclasses.replace(world[2], model="normal", wide=True, gan=True, nz=20)
    assert assets.released_shapes(config, face(), 30) == network_shapes("normal", True, 20, 4, 30, SIZE)
    assert assets.released_shapes(dataclasses.replace(config, gan=False), face(), 30).keys() == {
        name for name in network_shapes("normal", True, 20, 4, 30, SIZE) if name.startswith("mesh_generator/")}
    monkeypatch.setattr("model.released_names", lambda network: {"one": np.zeros((2, 3))})
    assert assets.released_shapes(config, face(), 30) == {"one": (2, 3)}


def test_shapes_of_the_released_code_s_resnet(hierarchy):
    """Written out from the released code, independently of the tables here: E x 32 M, six Chebyshev terms."""
    shapes = network_shapes("resnet", False, 20, 4, 30, 224)
    for name, shape in {"mesh_decoder/fc/weights": (30, 128), "mesh_decoder/fc/bias": (128,),
                        "mesh_decoder/resblock1/shortcut/weights": (32, 16),
                        "mesh_decoder/resblock1/filter1/weights": (192, 16),
                        "mesh_decoder/resblock1/bias_relu1/bias": (16,),
                        "mesh_refiner/resblock1/filter1/weights": (42, 16),
                        "mesh_concat/weights": (36, 3)}.items():
        assert shapes[f"mesh_generator/{name}"] == shape, name
    assert shapes["image_disc/outputs/weights"] == (7, 7, 512, 1)
    assert shapes["image_disc/conv2_1/weights"] == (3, 3, 16, 32)


def test_names_of_normal_and_critic_are_the_released_codes(hierarchy):
    """Written out from the list of TF1 names, independently of the tables here."""
    scopes = (["mesh_decoder/fc", "mesh_decoder", "mesh_refiner/fc", "mesh_refiner/fc2", "mesh_refiner"]
              + [f"mesh_decoder/upconv{i}" for i in range(1, 5)] + [f"mesh_refiner/graph_conv{i}" for i in range(1, 9)])
    expected = {f"mesh_generator/{scope}/{part}" for scope in scopes for part in ("weights", "bias")}
    expected |= {"mesh_generator/mesh_refiner/graph_conv0/weights", "mesh_generator/mesh_concat/weights"}
    assert set(released_names(build_texture_network("normal", hierarchy, 30, nz=20))) == expected
    parts = ("weights", "bias", "BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance")
    expected = {f"image_disc/conv{i}_1/{part}" for i in range(1, 7) for part in parts}
    expected |= {"image_disc/outputs/weights", "image_disc/outputs/bias"}
    assert set(released_names(build_critic(64))) == expected


# ---------------------------------------------------------------- round trips
@pytest.mark.parametrize("kind, wide", KINDS)
@pytest.mark.parametrize("critic", [False, True])
def test_import_gives_the_network_of_the_checkpoint(kind, wide, critic, world, hierarchy, tmp_path):
    arrays = random_arrays(kind, wide, critic=critic)
    prefix = write_checkpoint(tmp_path / "model", arrays)
    config = dataclasses.replace(world[2], runs_dir=str(tmp_path / "runs"))
    run, config = import_checkpoint(config, prefix, assets.released_shapes)
    assert os.path.basename(run.path) == f"00000-carried-{kind}{'_wide' * wide}{'_gan' * critic}"
    assert (config.model, config.wide, config.gan, config.residual, config.delit) == (kind, wide, critic, False, False)
    kept = imported_weights(run)
    assert set(kept) == {*arrays, "epochs_done"} and kept["epochs_done"] == 5
    networks = [build_texture_network(kind, hierarchy, EMBEDDING, wide, config.nz) for _ in range(2)]
    load_released_weights(networks[0], arrays)
    critics = [build_critic(SIZE) for _ in range(2)] if critic else [None, None]
    assert load_imported(run, networks[1], critics[1]) == 5
    rng = np.random.default_rng(0)
    seen = [rng.normal(size=(2, EMBEDDING)).astype(np.float32),
            rng.uniform(-1, 1, (2, VERTICES, 7)).astype(np.float32)]
    first, second = (network(seen) for network in networks)
    np.testing.assert_array_equal(first, second)
    assert np.std(first) > 1e-3
    if critic:
        load_released_weights(critics[0], arrays)
        image = rng.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
        np.testing.assert_array_equal(critics[0](image), critics[1](image))
    saved, found = run.saved()
    assert found["morphable"] == face().digest and saved.model == kind and saved.erosion == 9
    assert saved.visibility == "normal" and saved.relight is False


@pytest.mark.parametrize("source", ["{prefix}", "{prefix}.index", "{prefix}.meta", "{prefix}.data-00000-of-00001",
                                    "{folder}"])
def test_every_way_to_name_a_checkpoint(source, tmp_path):
    arrays = random_arrays()
    prefix = write_checkpoint(tmp_path / "model", arrays)
    found = read_checkpoint(source.format(prefix=prefix, folder=tmp_path))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_old_checkpoint_format(tmp_path):
    arrays = random_arrays()
    with tf.Graph().as_default():
        variables = [tf.compat.v1.get_variable(name, initializer=array) for name, array in arrays.items()]
        saver = tf.compat.v1.train.Saver(variables, write_version=tf.compat.v1.train.SaverDef.V1)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            prefix = saver.save(session, str(tmp_path / "model"))
    assert read_checkpoint(prefix).keys() == arrays.keys()


@pytest.mark.parametrize("kind, wide", KINDS)
def test_the_kind_is_recognised(kind, wide):
    found = recognised_settings(random_arrays(kind, wide, nz=33, critic=wide))
    assert (found["model"], found["wide"], found["gan"]) == (kind, wide, wide)
    assert found.get("nz") == (33 if kind == "normal" else None)


# ---------------------------------------------------------------- mistakes
def refused(config, source) -> str:
    with pytest.raises(UserError) as caught:
        import_checkpoint(config, str(source), assets.released_shapes)
    assert not os.path.exists(config.runs_dir), "nothing is left behind"
    return str(caught.value)


@pytest.fixture
def config(world, tmp_path):
    return dataclasses.replace(world[2], runs_dir=str(tmp_path / "no_runs"))


def test_no_checkpoint_there(config, tmp_path):
    for source in (tmp_path / "model-7", tmp_path):
        assert "there is no TF1 checkpoint at --source" in refused(config, source)


def test_a_damaged_checkpoint(config, tmp_path):
    prefix = write_checkpoint(tmp_path / "model", random_arrays())
    data = prefix + ".data-00000-of-00001"
    whole = open(data, "rb").read()
    with open(data, "wb") as file:
        file.write(whole[:len(whole) // 2])
    assert "cannot be read as a TF1 checkpoint" in refused(config, prefix)
    os.remove(data)
    assert "cannot be read as a TF1 checkpoint" in refused(config, prefix)


def test_files_that_are_no_checkpoint(config, tmp_path):
    for name in ("model.index", "weights.h5"):
        (tmp_path / name).write_bytes(b"something else entirely" * 10)
    for name in ("model", "weights.h5"):
        assert "cannot be read as a TF1 checkpoint" in refused(config, tmp_path / name)


def test_a_checkpoint_of_another_program(config, tmp_path):
    prefix = write_checkpoint(tmp_path / "model", {"encoder/kernel": np.ones((3, 3), np.float32)}, extras=False)
    message = refused(config, prefix)
    assert "holds no texture network (variables mesh_generator/...)" in message and "encoder" in message


def test_a_texture_network_of_neither_kind(config, tmp_path):
    arrays = {name.replace("resblock", "stage"): array for name, array in random_arrays().items()}
    message = refused(config, write_checkpoint(tmp_path / "model", arrays))
    assert "neither the released code's 'resnet'" in message and "mesh_decoder/fc/bias" in message


def test_all_misfits_are_named_at_once(config, tmp_path):
    arrays = random_arrays("normal", coarsest=4)
    arrays["mesh_generator/mesh_concat/weights"] = np.ones((36, 4), np.float32)
    del arrays["mesh_generator/mesh_refiner/graph_conv3/bias"]
    arrays["mesh_generator/mesh_refiner/graph_conv9/weights"] = np.ones((2, 2), np.float32)
    message = refused(config, write_checkpoint(tmp_path / "model", arrays))
    for words in ("does not fit the 'normal' network", "mesh_concat/weights has shape (36, 4), expected (36, 3)",
                  "graph_conv3/bias is missing", "graph_conv9/weights is not part of the network"):
        assert words in message
    assert "It was trained with" not in message


def test_another_mesh_or_embedding(config, tmp_path):
    message = refused(config, write_checkpoint(tmp_path / "model", random_arrays("normal", coarsest=13)))
    for name in ("mesh_decoder/fc/weights", "mesh_decoder/fc/bias", "mesh_refiner/fc/weights", "mesh_refiner/fc2/bias"):
        assert f"mesh_generator/{name} has shape" in message
    assert "13 vertices in the coarsest mesh" in message and "fc/bias has shape (1, 1" not in message
    message = refused(config, write_checkpoint(tmp_path / "other", random_arrays(embedding=2048)))
    assert "mesh_decoder/fc/weights has shape (2048, 128), expected (3840, 128)" in message
    assert "trained with an embedding of 2048" in message


def test_a_critic_for_another_size(config, tmp_path):
    message = refused(config, write_checkpoint(tmp_path / "model", random_arrays(critic=True, size=224)))
    assert "image_disc/outputs/weights has shape (7, 7, 512, 1), expected (2, 2, 512, 1)" in message
    assert "64 pixels" in message


def test_numbers_that_are_not_finite(config, tmp_path):
    arrays = random_arrays()
    arrays["mesh_generator/mesh_concat/weights"][0, 0] = np.nan
    message = refused(config, write_checkpoint(tmp_path / "model", arrays))
    assert "not finite: mesh_generator/mesh_concat/weights; take an earlier" in message


@pytest.mark.parametrize("change", [{"regressor": "small"}, {"facenet_file": ""}])
def test_configs_without_the_frozen_networks(change, config, tmp_path):
    prefix = write_checkpoint(tmp_path / "model", random_arrays())
    assert "--config configs/bfm09.yaml" in refused(dataclasses.replace(config, **change), prefix)


def test_config_whose_files_are_absent(config, tmp_path):
    prefix = write_checkpoint(tmp_path / "model", random_arrays())
    assert "nowhere.pb is not there" in refused(dataclasses.replace(config, facenet_file="nowhere.pb"), prefix)
    assert "none.npz is not there" in refused(dataclasses.replace(config, model_file="none.npz"), prefix)


# ---------------------------------------------------------------- the commands
def test_imported_run_is_tested_and_continued(world, tmp_path, capsys):
    folder, config_file, config = world
    shutil.rmtree(folder / "runs", ignore_errors=True)
    arrays = random_arrays("normal", critic=True)
    prefix = write_checkpoint(tmp_path / "model", arrays)
    assert assets.main(["tf1-checkpoint", "--source", prefix, "--config", config_file]) == 0
    printed = capsys.readouterr().out
    flags = ["--config", config_file, "--model", "normal", "--gan"]
    assert "'normal' texture network and critic" in printed
    assert f"python main.py --mode test {' '.join(flags)}\n" in printed

    assert main.main(["--mode", "test", *flags, "--output", str(tmp_path / "first")]) == 0
    assert "released_weights.npz" in capsys.readouterr().out
    assert json.loads((tmp_path / "first" / "metrics.json").read_text())["fine_texture"] == "texture network"

    assert main.main(["--mode", "train", "--restore", *flags, "--epoch", "6"]) == 0
    assert "texture network and critic: " in capsys.readouterr().out
    run = RunFolder(str(folder / "runs" / "00000-carried-normal_gan"))
    stats = [json.loads(line) for line in open(run.file("stats.jsonl"))]
    assert {line["epoch"] for line in stats} == {5} and "gradient_penalty" in stats[0]
    assert os.listdir(run.file("checkpoints", "texture"))

    assert main.main(["--mode", "test", *flags, "--output", str(tmp_path / "second")]) == 0
    assert "released_weights.npz" not in capsys.readouterr().out, "what was trained since counts"


def test_mistakes_end_with_one_message(world, tmp_path, capsys):
    assert assets.main(["tf1-checkpoint", "--source", str(tmp_path / "none"), "--config", world[1]]) == 2
    assert capsys.readouterr().err.startswith("error: there is no TF1 checkpoint at --source")
    assert assets.main(["tf1-checkpoint", "--source", "x", "--config", world[1], "--set", "lr"]) == 2
    assert "--set lr" in capsys.readouterr().err
