"""Settings: files, overrides, and messages that name the mistake and its cure."""

import dataclasses

import pytest
import yaml

from facegcn.config import Config, load_config, parse_assignments, save_config
from facegcn.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize("world", ["demo", "ict", "bfm09"])
def test_shipped_configs_load_and_differ_from_the_defaults(world):
    path = ROOT / "configs" / f"{world}.yaml"
    config = load_config(str(path))
    assert config.world == world
    values = yaml.safe_load(path.read_text())
    assert all(getattr(config, key) == value for key, value in values.items())


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
    ({"epochs": "1"}, ["unknown setting 'epochs'", "did you mean 'epoch'"]),
    ({"lr": "fast"}, ["'lr'", "float", "'fast'"]),
    ({"epoch": "1.5"}, ["'epoch'", "int"]),
    ({"gan": "maybe"}, ["'gan'", "bool"]),
    ({"model": "unet"}, ["'model'", "resnet, normal", "'unet'"]),
    ({"batch_size": "0"}, ["'batch_size'", "above 0"]),
    ({"val_count": "-1"}, ["'val_count'", "0 or more"])])
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
    assert saved.pop("images") == 12
    assert load_config(None, saved) == config
