"""The three commands on a small world: pack, train, test; before training, after it, and with mistakes."""

import csv
import json
import os

import cv2
import numpy as np
import pytest
import tensorflow as tf
import trimesh
import yaml

import create_bin
import main
from tests.faces import half_ellipsoid

VERTICES = 775
SETTINGS = {"model_file": "model.npz", "demo_portraits": 14, "val_count": 2, "test_count": 3, "img_size": 64,
            "regressor_pixels": 32, "regressor_start": "", "rec_steps": 3, "rec_batch_size": 4, "rec_reuse": 2,
            "rec_photo_batch": 2, "epoch": 2, "batch_size": 4, "log_steps": 1, "buffer_size": 8, "render_start": 1.0,
            "made_portraits": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data folder with a small model, and the flags that point everything at it."""
    folder = tmp_path_factory.mktemp("world")
    half_ellipsoid(25, 31).save(str(folder / "data" / "model.npz"))
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump({**SETTINGS, "root_dir": str(folder / "data"), "runs_dir": str(folder / "runs")}))
    return folder, ["--config", str(config)]


@pytest.fixture(scope="module")
def packed(world):
    folder, flags = world
    assert create_bin.main(flags) == 0
    return folder


@pytest.fixture(scope="module")
def untrained(world, packed):
    folder, flags = world
    assert main.main([*flags, "--mode", "test", "--output", str(folder / "untrained")]) == 0
    return folder / "untrained"


@pytest.fixture(scope="module")
def trained(world, packed, untrained):
    folder, flags = world
    assert main.main([*flags, "--mode", "train"]) == 0
    return folder / "runs" / "00000-demo-resnet"


@pytest.fixture(scope="module")
def tested(world, trained):
    folder, flags = world
    assert main.main([*flags, "--mode", "test", "--output", str(folder / "tested")]) == 0
    return folder / "tested"


def test_packing_writes_portraits_lists_and_sheet(packed):
    data = packed / "data"
    assert len(list(data.glob("portraits-*/*.png"))) == 14
    sizes = {name: len((data / f"faces.{name}.txt").read_text().split()) for name in ("train", "val", "test")}
    assert sizes == {"train": 9, "val": 2, "test": 3}
    assert cv2.imread(str(data / "faces.sheet.png")) is not None


def test_before_training_the_texture_is_completed_and_says_so(untrained):
    metrics = json.loads((untrained / "metrics.json").read_text())
    assert "not trained" in metrics["fine_texture"]
    assert metrics["mean"]["fine_l1"] < 0.7 * metrics["mean"]["coarse_l1"], "colours seen in the photo are on the mesh"


def test_a_run_folder_explains_itself(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["seed"] == 2 and config["found"]["vertices"] == VERTICES and config["found"]["tensorflow"]
    stats = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert {"rec", "render"} == {line["stage"] for line in stats}
    render = [line for line in stats if line["stage"] == "render" and "total" in line]
    assert {"refine", "project", "pixel", "symmetry", "variance", "regularization", "truth"} <= set(render[0])
    assert any("photo_landmark" in line for line in stats), "the second half of stage rec looks at photos"
    assert any("val_total" in line for line in stats)
    assert {p.name for p in (trained / "samples").iterdir()} == {"start.png", "epoch001.png", "epoch002.png"}
    assert list((trained / "checkpoints" / "texture").iterdir()) and list((trained / "tensorboard").rglob("events*"))
    log = (trained / "log.txt").read_text()
    assert "run folder" in log and "regressor: 3 steps in " in log and "texture: 6 steps in " in log
    assert "encoding photos: 14 " in log, "bars leave a line"


def test_every_output_file_is_there_and_right(tested):
    name = json.loads((tested / "metrics.json").read_text())["photos"]
    name = next(iter(name))
    for suffix, channels in (("input", 3), ("mask", None), ("coarse", 4), ("fine", 4), ("coarse_overlay", 3),
                             ("fine_overlay", 3)):
        image = cv2.imread(str(tested / f"{name}_{suffix}.png"), cv2.IMREAD_UNCHANGED)
        assert image.shape == ((64, 64, channels) if channels else (64, 64)), suffix
    render = cv2.imread(str(tested / f"{name}_fine.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(render[..., 3])) == {0, 255}
    for kind in ("coarse", "fine"):
        mesh = trimesh.load(str(tested / f"{name}_{kind}.obj"), process=False)
        assert len(mesh.vertices) == VERTICES and len(np.unique(mesh.visual.vertex_colors, axis=0)) > 10
    assert "decimetre" in (tested / f"{name}_fine.obj").read_text().splitlines()[0]
    metres = trimesh.load(str(tested / f"{name}_fine.glb"), force="mesh")
    assert len(metres.vertices) == VERTICES and 0.15 < np.ptp(metres.vertices[:, 1]) < 0.25
    with np.load(tested / f"{name}.npz") as arrays:
        assert arrays["vertices"].shape == (VERTICES, 3) and arrays["crop_transform"].shape == (2, 3)
        assert np.abs(arrays["fine_texture"]).max() <= 1
    assert (tested / "overview.png").exists()
    with open(tested / "metrics.csv", encoding="utf-8", newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)] == ["photo"] * 3 + ["mean of 3"]


def test_overlay_is_the_render_inside_coverage_and_skin_and_the_photo_elsewhere(tested):
    name = next(iter(json.loads((tested / "metrics.json").read_text())["photos"]))

    def read(suffix):
        return cv2.imread(str(tested / f"{name}_{suffix}.png"), cv2.IMREAD_UNCHANGED)
    inside = (read("fine")[..., 3] == 255) & (read("mask") == 255)
    np.testing.assert_array_equal(read("fine_overlay")[inside], read("fine")[inside][:, :3])
    np.testing.assert_array_equal(read("fine_overlay")[~inside], read("input")[~inside])


def test_metrics_hold_truth_distances_of_made_portraits(tested):
    mean = json.loads((tested / "metrics.json").read_text())["mean"]
    assert {"coarse_l1", "fine_psnr", "fine_ssim", "landmark_error", "coarse_albedo_visible",
            "fine_albedo_hidden"} <= set(mean)
    assert 0 < mean["landmark_error"] < 6, "pixels of 64; a face in the wrong place is off by more"
    for row in json.loads((tested / "metrics.json").read_text())["photos"].values():
        assert all(0 < row[f"{kind}_albedo_{part}"] < 80
                   for kind in ("coarse", "fine") for part in ("visible", "hidden"))


def test_truth_distances_are_those_of_the_written_arrays(world, tested):
    metrics = json.loads((tested / "metrics.json").read_text())["photos"]
    for name, row in metrics.items():
        with np.load(tested / f"{name}.npz") as found, np.load(_truth_folder(world[0]) / f"{name}.npz") as truth:
            error = np.linalg.norm(found["landmarks"] - truth["landmarks"], axis=1).mean()
            albedo = np.abs((found["fine_texture"] + 1) * 127.5 - truth["albedo"]).mean(axis=1)
            assert row["landmark_error"] == pytest.approx(error, rel=1e-4)
            assert row["fine_albedo_hidden"] == pytest.approx(albedo[~truth["visible"]].mean(), rel=1e-4)


def _truth_folder(folder):
    """Of the packed portraits."""
    return next(path.parent for path in (folder / "data").rglob("truth/*.npz"))


def test_a_second_run_reuses_the_regressor(world, trained, capsys):
    folder, flags = world
    assert main.main([*flags, "--mode", "train", "--suffix", "second", "--epoch", "1"]) == 0
    run = folder / "runs" / "00001-demo-second"
    assert f"regressor: from {trained}" in capsys.readouterr().out
    first, second = (dict(np.load(path / "regressor.npz")) for path in (trained, run))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert not (run / "checkpoints" / "regressor").exists()
    assert len(list((folder / "data").glob("faces.bin.encoding-*.npy"))) == 1, "one regressor, one encoding"


def test_restore_continues_weights_optimizer_and_settings(world, trained):
    folder, flags = world
    before, written = last_checkpoint(trained), (trained / "config.yaml").read_text()
    other = folder / "other.yaml"  # the same data, but settings that are none of this run's
    other.write_text(yaml.safe_dump({**yaml.safe_load((folder / "small.yaml").read_text()), "lr": 0.5, "batch_size": 1,
                                     "losses": "released", "render_start": 0.5}))
    assert main.main(["--config", str(other), "--mode", "train", "--restore", "--epoch", "2"]) == 0
    for name, array in before.items():
        np.testing.assert_array_equal(last_checkpoint(trained)[name], array, err_msg=name)
    assert main.main(["--config", str(other), "--mode", "train", "--restore", "--epoch", "3", "--lr", "1e-12"]) == 0
    after = last_checkpoint(trained)
    iterations = next(name for name in before if "optimizer/_iterations" in name)
    assert (before[iterations], after[iterations]) == (6, 9), "the optimiser's count goes on"
    for name, array in before.items():
        if name.startswith("network/") and np.issubdtype(array.dtype, np.floating) and "norm" not in name:
            np.testing.assert_allclose(after[name], array, atol=1e-9, err_msg=name)  # steps of 1e-12 change nothing
    assert (trained / "config.yaml").read_text() == written
    saved = [yaml.safe_load((trained / f"config-restored-{number}.yaml").read_text()) for number in (1, 2)]
    own = yaml.safe_load(written)
    for restored, changes in zip(saved, ({}, {"epoch": 3, "lr": 1e-12})):
        assert {key: value for key, value in restored.items() if key != "found"} == {
            **{key: value for key, value in own.items() if key != "found"}, **changes}
    assert "lr: 0.0001 -> 1e-12, by hand" in (trained / "log.txt").read_text()
    steps = [line["step"] for line in map(json.loads, (trained / "stats.jsonl").read_text().splitlines())
             if line["stage"] == "render" and "total" in line]
    assert steps == list(range(1, 10))


def last_checkpoint(run):
    """The arrays of a run's newest texture checkpoint by name."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / "texture"))
    return {name: np.array(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()
            if "save_counter" not in name and "OBJECT_GRAPH" not in name and "py_state" not in name}


def test_gan_normal_wide_and_released_losses_train(world, trained):
    folder, flags = world
    code = main.main([*flags, "--mode", "train", "--stage", "render", "--gan", "--model", "normal", "--nz", "16",
                      "--epoch", "1", "--wide", "--set", "losses=released", "--set", "residual=false",
                      "--set", "delit=false", "--set", "visibility=normal", "--set", "critic_steps=1"])
    assert code == 0
    run = next((folder / "runs").glob("*-demo-normal_wide_gan"))
    stats = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert {"critic", "gradient_penalty", "adversarial"} <= set(stats[0])
    losses = [line for line in stats if "total" in line]
    assert all(np.isfinite(value) for line in losses for value in line.values() if isinstance(value, float))
    assert all(line["gradient_penalty"] > 0 for line in losses)
    assert len({line["critic"] for line in losses}) == len(losses) > 1, "the critic learns"
    # Test mode finds the run by the flags alone: the other settings are the run's own.
    out = folder / "tested-gan"
    assert main.main([*flags, "--mode", "test", "--gan", "--model", "normal", "--wide", "--output", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["fine_texture"] == "texture network" and metrics["mean_of"] == 3
    assert metrics["mean"]["fine_l1"] != pytest.approx(metrics["mean"]["coarse_l1"], rel=1e-3)


def test_photos_without_a_face_or_unreadable_are_reported(world, tested, tmp_path, capsys):
    folder, flags = world
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "noise.png"), rng.integers(0, 255, (80, 80, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "noise.bmp"), rng.integers(0, 255, (80, 80, 3), np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    out = tmp_path / "out"
    assert main.main([*flags, "--mode", "test", "--input", str(tmp_path), "--output", str(out)]) == 1
    said = capsys.readouterr()
    assert "no face" in said.out and "unreadable" in said.out and "nothing was written" in said.err
    photos = json.loads((out / "metrics.json").read_text())["photos"]
    assert {name: row["status"] for name, row in photos.items()} == {
        "broken": "unreadable", "noise.bmp": "no face", "noise.png": "no face"}


@pytest.mark.parametrize(("flags", "words"), [
    (["--set", "learning_rate=1"], ["unknown setting 'learning_rate'"]),
    (["--mode", "test", "--input", "nowhere"], ["--input nowhere", "no such file"]),
    (["--mode", "train", "--restore", "--name", "other"], ["--restore", "other-resnet"]),
    (["--mode", "train", "--root_dir", "empty"], ["create_bin.py"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    (["--model", "unet"], ["'model'", "resnet, normal"])])
def test_mistakes_end_with_one_message_and_code_2(world, packed, capsys, monkeypatch, tmp_path, flags, words):
    monkeypatch.chdir(tmp_path)
    half_ellipsoid(25, 31).save(str(tmp_path / "empty" / "model.npz"))
    assert main.main([*world[1], *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(word in error for word in words)


def test_a_truncated_packed_file_is_named(world, packed, capsys, tmp_path):
    half_ellipsoid(25, 31).save(str(tmp_path / "model.npz"))
    for name in os.listdir(packed / "data"):
        if name.startswith("faces") or name.endswith(".txt"):
            (tmp_path / name).write_bytes((packed / "data" / name).read_bytes())
    whole = (tmp_path / "faces.bin").read_bytes()
    (tmp_path / "faces.bin").write_bytes(whole[:-5])
    assert main.main([*world[1], "--root_dir", str(tmp_path), "--mode", "train"]) == 2
    assert "cut short" in capsys.readouterr().err
