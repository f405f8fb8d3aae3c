"""Settings: files, overrides, and messages that name the mistake and its cure."""

import dataclasses
import os

import pytest
import yaml

from facegcn.config import Config, load_config, parse_assignments, read_saved_config, save_config
from facegcn.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["demo", "ict", "ict_start", "bfm09"])
def test_shipped_configs_load_and_differ_from_the_defaults(name):
    path = ROOT / "configs" / f"{name}.yaml"
    config = load_config(str(path))
    assert config.world == name.removesuffix("_start")
    values = yaml.safe_load(path.read_text())
    assert all(getattr(config, key) == value for key, value in values.items())


def test_the_paper_s_world_has_nothing_of_ours():
    config = load_config(str(ROOT / "configs" / "bfm09.yaml"))
    ours = ("residual", "delit", "mirror", "trust", "relight", "detail", "fit", "made_portraits", "second_view_weight",
            "texture_start", "regressor_start")
    assert not [name for name in ours if getattr(config, name)]
    assert (config.visibility, config.sampling, config.losses, config.correction) == (
        "normal", "released", "released", 1.0)


def test_later_sources_win(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("lr: 0.5\nepoch: 3\n")
    config = load_config(str(file), {"lr": "1e-3"})
    assert (config.lr, config.epoch, config.batch_size) == (1e-3, 3, Config().batch_size)


@pytest.mark.parametrize(("key", "text", "value"), [
    ("lr", "1e-4", 1e-4), ("lr", "1", 1.0), ("gan", "true", True), ("epoch", "7", 7),
    ("suffix", "7", "7"), ("eval", "0", 0.0)])
def test_text_becomes_the_fields_type(key, text, value):
    found = getattr(load_config(None, {key: text}), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("overrides", "words"), [
    ({"learning_rat": "1"}, ["unknown setting 'learning_rat'"]),
    ({"fit_steps": "5"}, ["unknown setting 'fit_steps'; facegcn/config.py lists all"]),
    ({"rec_step": "5"}, ["did you mean 'rec_steps'"]), ({"modle": "normal"}, ["did you mean 'model'"]),
    ({"epochs": "1"}, ["unknown setting 'epochs'", "did you mean 'epoch'"]),
    ({"lr": "fast"}, ["'lr'", "float", "'fast'"]),
    ({"epoch": "1.5"}, ["'epoch'", "int"]),
    ({"gan": "maybe"}, ["'gan'", "bool"]),
    ({"model": "unet"}, ["'model'", "resnet, normal", "'unet'"]),
    ({"precision": "float16"}, ["'precision'", "float32, mixed_bfloat16, mixed_float16", "'float16'"]),
    ({"batch_size": "0"}, ["'batch_size'", "1 or more"]),
    ({"val_count": "-1"}, ["'val_count'", "0 or more"]),
    ({"lr": "nan"}, ["'lr'", "above 0", "nan"]), ({"clip_norm": "inf"}, ["'clip_norm'", "inf"]),
    ({"img_size": "7"}, ["'img_size'", "32 or more and at most 2,048"]), ({"img_size": "99999999"}, ["'img_size'"]),
    ({"workers": "100000000000"}, ["'workers'", "at most 256"]), ({"workers": "1e11"}, ["'workers'", "int"]),
    ({"rec_photo_after": "5"}, ["'rec_photo_after'", "at most 1"]), ({"drop_rate": "1"}, ["'drop_rate'", "below 1"]),
    ({"demo_vertices": "1"}, ["'demo_vertices'"]), ({"demo_vertices": "999999999"}, ["'demo_vertices'"]),
    ({"name": "../../x"}, ["'name'", "slash"]), ({"suffix": "a\nb"}, ["'suffix'", "line break"]),
    ({"name": ""}, ["'name' is empty"]), ({"name": "n" * 300}, ["'name'", "300 bytes"]),
    ({"checkpoint_seconds": "-1"}, ["'checkpoint_seconds'", "0 or more"]),
    ({"eval": "0.5"}, ["'eval'", "whole number"]), ({"erosion": "4"}, ["'erosion'", "odd"])])
def test_mistakes_are_named(overrides, words):
    with pytest.raises(UserError) as caught:
        load_config(None, overrides)
    assert all(word in str(caught.value) for word in words)


def test_a_typo_in_a_file_names_the_file(tmp_path):
    file = tmp_path / "typo.yaml"
    file.write_text("batchsize: 4\n")
    with pytest.raises(UserError, match="typo.yaml: unknown setting 'batchsize'; did you mean 'batch_size'"):
        load_config(str(file))


@pytest.mark.parametrize(("text", "words"), [("- a\n- b\n", "key: value"), ("a: [1", "not valid YAML")])
def test_files_that_are_no_mapping(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        load_config(str(file))


def test_an_absent_file_is_named():
    with pytest.raises(UserError, match="nowhere.yaml"):
        load_config("nowhere.yaml")


def test_assignments():
    assert parse_assignments(["lr=1e-3", "name = x=y"]) == {"lr": "1e-3", "name": "x=y"}
    with pytest.raises(UserError, match="key=value"):
        parse_assignments(["lr"])


def test_saved_settings_load_again(tmp_path):
    config = dataclasses.replace(Config(), lr=3e-4, gan=True)
    save_config(config, str(tmp_path / "config.yaml"), images=12)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["found"] == {"images": 12}
    found, late = read_saved_config(str(tmp_path / "config.yaml"))
    assert late == {"images": 12}
    assert found == dataclasses.replace(config, root_dir=saved["root_dir"], runs_dir=saved["runs_dir"])


def test_every_setting_has_an_origin_and_no_default_is_out_of_range():
    for field in dataclasses.fields(Config):
        assert field.metadata["origin"] in ("[paper]", "[released code]", "[ours]"), field.name
    defaults = dataclasses.asdict(Config())
    assert load_config(None, defaults) == Config()


@pytest.mark.parametrize("key", [f.name for f in dataclasses.fields(Config) if f.type in ("int", "float")])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e400"])
def test_no_number_is_out_of_range(key, text):
    with pytest.raises(UserError, match=f"'{key}'"):
        load_config(None, {key: text})


def test_folders_of_a_shipped_config_are_the_project_s(tmp_path, monkeypatch):
    here = load_config(str(ROOT / "configs" / "demo.yaml"))
    monkeypatch.chdir(tmp_path)
    there = load_config(str(ROOT / "configs" / "demo.yaml"), {"runs_dir": "mine"})
    assert os.path.realpath(there.root_dir) == os.path.realpath(ROOT / here.root_dir)
    assert there.runs_dir == "mine", "what is written by hand is relative to the working directory"
    (tmp_path / "own.yaml").write_text("root_dir: faces\n")
    own = load_config("own.yaml")
    assert own.root_dir == "faces" and os.path.realpath(own.runs_dir) == os.path.realpath(ROOT / "runs")


def test_a_saved_config_starts_the_same_run_from_anywhere(tmp_path, monkeypatch):
    config = dataclasses.replace(Config(), root_dir=str(tmp_path / "data"), runs_dir=str(tmp_path / "runs"), lr=2e-4)
    path = str(tmp_path / "runs" / "00000-x" / "config.yaml")
    save_config(config, path, git="abc")
    monkeypatch.chdir(tmp_path)
    assert load_config(path) == config and read_saved_config(path)[1] == {"git": "abc"}


def test_an_empty_saved_config_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(UserError, match="config.yaml is empty"):
        read_saved_config(str(tmp_path / "config.yaml"))
