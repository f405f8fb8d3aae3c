"""Root helpers: file lists, run folders, the cached hierarchy."""

import dataclasses
import json
import os

import pytest
import yaml

import utils
from facegcn.config import Config
from facegcn.errors import UserError
from tests.faces import half_ellipsoid


@pytest.fixture
def config(tmp_path):
    return dataclasses.replace(Config(), runs_dir=str(tmp_path / "runs"))


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [os.path.basename(p) for p in utils.find_images(str(tmp_path))] == ["a.jpg", "b.PNG"]
    assert utils.find_images(str(tmp_path / "notes.txt")) == [str(tmp_path / "notes.txt")]
    with pytest.raises(UserError, match="--photos .*nowhere"):
        utils.find_images(str(tmp_path / "nowhere"), "--photos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in this folder"):
        utils.find_images(str(tmp_path / "empty"))


def test_run_folders_are_numbered_and_never_reused(config):
    first, second = utils.RunFolder.create(config), utils.RunFolder.create(config)
    other = utils.RunFolder.create(dataclasses.replace(config, gan=True))
    assert [os.path.basename(r.path) for r in (first, second, other)] == [
        "00000-demo-resnet", "00001-demo-resnet", "00002-demo-resnet_gan"]


def test_latest_run_holding_a_file(config):
    model, other = half_ellipsoid(), half_ellipsoid(seed=1)
    runs = [utils.RunFolder.create(config) for _ in range(4)]
    assert utils.RunFolder.latest(config, model, "regressor.npz") is None
    for run, morphable in zip(runs, (model, model, other)):
        open(run.file("regressor.npz"), "w").close()
        run.save_config(config, morphable=morphable.digest)
    assert utils.RunFolder.latest(config, model, "regressor.npz").path == runs[1].path
    assert utils.RunFolder.latest(config, other, "regressor.npz").path == runs[2].path
    normal = dataclasses.replace(config, model="normal")
    assert utils.RunFolder.latest(normal, model, "regressor.npz") is None
    assert utils.RunFolder.latest(normal, model, "regressor.npz", any_network=True).path == runs[1].path


def test_log_stats_and_config_are_written_at_once(config, capsys):
    run = utils.RunFolder.create(config)
    run.log("hello")
    run.stats(step=1, total=0.5)
    run.stats(step=2, total=0.25)
    run.save_config(dataclasses.replace(config, wide=True), vertices=7)
    assert "hello" in capsys.readouterr().out and "hello" in open(run.file("log.txt")).read()
    assert [json.loads(line)["step"] for line in open(run.file("stats.jsonl"))] == [1, 2]
    saved = yaml.safe_load(open(run.file("config.yaml")))
    assert saved["vertices"] == 7 and saved["keras"] and saved["wide"] is True
    assert run.with_architecture(config).wide is True and run.with_architecture(config).epoch == config.epoch
