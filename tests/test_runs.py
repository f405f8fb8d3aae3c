"""Run folders: numbers, look-up, settings that are kept, log and statistics."""

import dataclasses
import json
import logging
import multiprocessing
import os
import subprocess
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import yaml

import main
from facegcn import runs
from facegcn.config import Config, load_config
from facegcn.errors import Terminated, UserError, guarded, log
from facegcn.runs import RunFolder
from model import find_trained
from tests.conftest import ROOT
from tests.faces import half_ellipsoid


@pytest.fixture
def config(tmp_path):
    return dataclasses.replace(Config(), runs_dir=str(tmp_path / "runs"), root_dir=str(tmp_path / "data"))


@pytest.fixture(scope="module")
def model():
    return half_ellipsoid()


def trained_run(config, model) -> RunFolder:
    """A run with settings and a regressor."""
    run = RunFolder.create(config)
    run.save_config(config, morphable=model.digest)
    np.savez(run.file("regressor.npz"), weight=np.zeros(100))
    return run


# ---------------------------------------------------------------- making and finding
def test_run_folders_are_numbered_and_never_reused(config):
    first, second = RunFolder.create(config), RunFolder.create(config)
    other = RunFolder.create(dataclasses.replace(config, gan=True))
    assert [os.path.basename(r.path) for r in (first, second, other)] == [
        "00000-demo-resnet", "00001-demo-resnet", "00002-demo-resnet_gan"]


def test_runs_are_counted_beyond_five_digits(config):
    os.makedirs(os.path.join(config.runs_dir, "123456-other-resnet"))
    assert os.path.basename(RunFolder.create(config).path) == "123457-demo-resnet"


def test_threads_that_start_at_once_get_folders_of_their_own(config):
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: RunFolder.create(config).path, range(64)))
    assert len(set(made)) == 64


def _create(runs_dir, gate, made):
    gate.wait()
    for _ in range(10):
        made.put(RunFolder.create(dataclasses.replace(Config(), runs_dir=runs_dir)).path)


def test_processes_that_start_at_once_get_folders_of_their_own(config):
    context = multiprocessing.get_context("fork")
    gate, made = context.Barrier(3), context.SimpleQueue()
    processes = [context.Process(target=_create, args=(config.runs_dir, gate, made)) for _ in range(3)]
    for process in processes:
        process.start()
    paths = [made.get() for _ in range(30)]
    for process in processes:
        process.join()
    assert len(set(paths)) == 30


def test_latest_run_holding_a_file(config, model):
    other = half_ellipsoid(seed=1)
    assert RunFolder.latest(config, model, "regressor.npz") is None
    first, second, third = (trained_run(config, m) for m in (model, model, other))
    RunFolder.create(config)
    assert RunFolder.latest(config, model, "regressor.npz").path == second.path
    assert RunFolder.latest(config, other, "regressor.npz").path == third.path
    normal = dataclasses.replace(config, model="normal")
    assert RunFolder.latest(normal, model, "regressor.npz") is None
    assert RunFolder.latest(normal, model, "regressor.npz", any_network=True).path == second.path
    small = dataclasses.replace(config, img_size=112)
    assert RunFolder.latest(small, model, "regressor.npz", any_network=True) is None


def test_the_whole_name_counts(config, model):
    """Runs of 'my-faces' and of 'demo-faces' are none of 'faces', with or without the network's name."""
    for name in ("my-faces", "faces-my", "facesresnet"):
        trained_run(dataclasses.replace(config, name=name), model)
    for any_network in (False, True):
        assert RunFolder.latest(dataclasses.replace(config, name="faces"), model, "regressor.npz",
                                any_network=any_network) is None


def test_runs_are_ordered_by_number_not_by_text(config, model):
    runs_made = [trained_run(config, model) for _ in range(2)]
    later = os.path.join(config.runs_dir, "100000-demo-resnet")
    os.rename(runs_made[0].path, later)
    assert RunFolder.latest(config, model, "regressor.npz").path == later


@pytest.mark.parametrize("name", ["set[1]", "a*b", "what?", "dot.dot", "größe", "with space"])
def test_any_name_is_found_again(config, model, name):
    config = dataclasses.replace(config, name=name, runs_dir=config.runs_dir + "[x]")
    run = trained_run(config, model)
    assert RunFolder.latest(config, model, "regressor.npz").path == run.path
    assert RunFolder.latest(config, model, "regressor.npz", any_network=True).path == run.path


def test_looking_makes_nothing(config, model):
    run = trained_run(config, model)
    before = sorted(os.listdir(run.path))
    assert RunFolder.latest(config, model, "texture.weights.h5") is None
    RunFolder.latest(config, model, "regressor.npz").saved()
    assert sorted(os.listdir(run.path)) == before == ["config.yaml", "regressor.npz"]
    empty = dataclasses.replace(config, runs_dir=config.runs_dir + "-none")
    assert RunFolder.latest(empty, model, "regressor.npz") is None and not os.path.exists(empty.runs_dir)


@pytest.mark.parametrize(("name", "words"), [("resnet", "is of another face model, or damaged"),
                                             ("gan", "give test mode the flags of training")])
def test_what_other_runs_there_are_is_said(config, model, name, words, caplog):
    caplog.set_level(logging.INFO)
    os.makedirs(os.path.join(config.runs_dir, f"00000-{config.name}-{name}"))
    open(os.path.join(config.runs_dir, f"00000-{config.name}-{name}", "texture.weights.h5"), "w").close()
    assert find_trained(config, model)[1] is None and words in caplog.text


def cut(path):
    whole = open(path, "rb").read()
    with open(path, "wb") as file:
        file.write(whole[:len(whole) // 2])


@pytest.mark.parametrize(("name", "damage"), [
    ("config.yaml", lambda path: open(path, "w").close()),
    ("config.yaml", lambda path: open(path, "w").write("lr: [1")),
    ("config.yaml", lambda path: open(path, "wb").write(b"\xff\xfe\0")),
    ("config.yaml", lambda path: open(path, "w").write("no_such_setting: 1\n")),
    ("regressor.npz", cut), ("texture.weights.h5", cut), ("texture.weights.h5", lambda path: open(path, "w").close())])
def test_a_damaged_run_is_named_and_the_one_before_it_used(config, model, name, damage, caplog):
    made = []
    for _ in range(2):
        made.append(trained_run(config, model))
        with h5py.File(made[-1].file("texture.weights.h5"), "w") as file:
            file["weight"] = np.zeros(10_000)
    damage(made[1].file(name))
    holding = name if name != "config.yaml" else "regressor.npz"
    assert RunFolder.latest(config, model, holding).path == made[0].path
    assert made[1].path in caplog.text and name in caplog.text


# ---------------------------------------------------------------- settings
def test_a_saved_config_starts_the_same_run_again(config):
    config = dataclasses.replace(config, wide=True, lr=3e-4)
    run = RunFolder.create(config)
    run.save_config(config, vertices=7, images={"train": 3})
    saved = yaml.safe_load(open(run.file("config.yaml")))
    found = saved["found"]
    assert found["vertices"] == 7 and found["images"] == {"train": 3} and found["command"]
    assert all(found[library] for library in ("python", "tensorflow", "keras", "numpy", "numba"))
    assert load_config(run.file("config.yaml")) == config
    again = RunFolder.create(load_config(run.file("config.yaml")))
    assert os.path.basename(again.path) == "00001-demo-resnet_wide"


def test_the_commit_is_recorded_and_changes_are_said(tmp_path):
    assert runs.git_commit(str(tmp_path)) == ""

    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       capture_output=True)
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "x")
    commit = runs.git_commit(str(tmp_path))
    assert len(commit) == 40
    (tmp_path / "a.py").write_text("2")
    assert runs.git_commit(str(tmp_path)) == commit + "+changes"
    (tmp_path / "inner").mkdir()
    assert runs.git_commit(str(tmp_path / "inner")) == "", "another project's commit says nothing"


def test_without_git_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.git_commit(str(ROOT)) == ""


def arguments(*pairs, **flags):
    return types.SimpleNamespace(set=list(pairs), **flags)


def test_a_continued_run_keeps_all_its_settings_but_those_given_by_hand(config, caplog):
    caplog.set_level(logging.INFO)
    first = dataclasses.replace(config, lr=5e-4, losses="released", seed=7, truth_weight=9.0, batch_size=16)
    run = RunFolder.create(first)
    run.save_config(first)
    written = open(run.file("config.yaml")).read()
    assert run.continued(arguments()) == first
    second = run.continued(arguments("truth_weight=9", lr=1e-4, epoch=60))
    assert second == dataclasses.replace(first, lr=1e-4, epoch=60)
    assert "lr: 0.0005 -> 0.0001, by hand" in caplog.text and "epoch: 50 -> 60, by hand" in caplog.text
    assert "truth_weight" not in caplog.text, "it is what it was"
    run.save_config(second)
    assert open(run.file("config.yaml")).read() == written
    assert load_config(run.file("config-restored-1.yaml")) == second
    third = run.continued(arguments(batch_size=2))
    assert third == dataclasses.replace(second, batch_size=2), "what was changed once stays so"
    run.save_config(third)
    assert run.saved()[0] == third and os.path.exists(run.file("config-restored-2.yaml"))
    assert run.continued(arguments(runs_dir=config.runs_dir)) == third


@pytest.mark.parametrize("pair", ["img_size=128", "model=normal", "wide=true", "nz=3", "residual=false", "gan=true",
                                  "sampling=released", "erosion=3", "regressor=resnet50", "facenet_file=x.pb"])
def test_the_architecture_of_a_continued_run_stays(config, pair):
    run = RunFolder.create(config)
    run.save_config(config)
    with pytest.raises(UserError, match=rf"--restore continues .*'{pair.split('=')[0]}' is .*without --restore"):
        run.continued(arguments(pair))


def test_weights_are_used_with_the_networks_they_were_trained_in(config):
    run = RunFolder.create(config)
    run.save_config(dataclasses.replace(config, wide=True, sampling="released", erosion=3, facenet_file="a.pb", lr=0.5))
    asked = run.with_architecture(dataclasses.replace(config, epoch=3))
    assert asked == dataclasses.replace(config, wide=True, sampling="released", erosion=3, facenet_file="a.pb", epoch=3)
    assert run.with_architecture(dataclasses.replace(config, facenet_file="b.pb")).facenet_file == "b.pb"


# ---------------------------------------------------------------- log and statistics
def test_the_log_holds_all_that_the_terminal_showed(config, capsys):
    run = RunFolder.create(config)

    def program():
        log.info("before there was a folder")
        run.open_log()
        log.info("in %d", 1)
        warnings.warn_explicit("a library's warning", UserWarning, "library.py", 3)
        log.warning("\na warning of ours")
        raise UserError("the end")

    assert guarded(program) == 2
    printed = capsys.readouterr()
    text = open(run.file("log.txt")).read()
    for words in ("before there was a folder", "in 1", "a library's warning", "a warning of ours", "error: the end"):
        assert text.count(words) == 1 and words in printed.out + printed.err
    assert all(line[:2] == "20" for line in text.splitlines()), "every line has its time"
    log.warning("after the program")
    assert "after the program" not in open(run.file("log.txt")).read()


def test_the_log_holds_the_traceback_of_a_mistake_of_ours(config):
    run = RunFolder.create(config)

    def program():
        run.open_log()
        return {}["absent"]

    assert guarded(program) == 70
    assert "Traceback" in open(run.file("log.txt")).read() and "KeyError: 'absent'" in open(run.file("log.txt")).read()


def test_a_second_program_does_not_write_into_the_first_one_s_log(config):
    first, second = RunFolder.create(config), RunFolder.create(config)
    for run, words in ((first, "one"), (second, "two")):
        guarded(lambda run=run, words=words: (log.info(words), run.open_log()) and 0)
    assert "two" not in open(first.file("log.txt")).read() and "one" not in open(second.file("log.txt")).read()
    run = RunFolder.create(config)
    guarded(lambda: run.open_log() and 0)
    guarded(lambda: (run.open_log(), log.info("again")) and 0)
    assert open(run.file("log.txt")).read().count("again") == 1, "a continued run's log goes on"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only some systems have a device that is always full")
def test_a_log_on_a_full_disk_says_nothing_more_and_statistics_name_their_file(tmp_path, capsys):
    run = RunFolder(str(tmp_path))
    for name in ("log.txt", "stats.jsonl"):
        os.symlink("/dev/full", tmp_path / name)

    def program():
        run.open_log()
        for _ in range(100):
            log.info("x" * 100)
        run.stats(step=1)

    assert guarded(program) == 2
    found = capsys.readouterr()
    assert found.err == f"error: {tmp_path / 'stats.jsonl'}: No space left on device\n" and found.out.count("\n") == 100


def test_lines_behind_a_checkpoint_are_forgotten(config):
    run = RunFolder.create(config)
    run.forget_stats("rec", 0)
    assert not os.path.exists(run.file("stats.jsonl"))
    for stage, step in (("rec", 1), ("rec", 2), ("render", 1), ("render", 2), ("render", 3)):
        run.stats(stage=stage, step=step)
    with open(run.file("stats.jsonl"), "a") as file:
        file.write('{"stage": "render", "st')  # killed while writing
    run.forget_stats("render", 2)
    run.stats(stage="render", step=3)
    lines = [json.loads(line) for line in open(run.file("stats.jsonl"))]
    assert [(line["stage"], line["step"]) for line in lines] == [
        ("rec", 1), ("rec", 2), ("render", 1), ("render", 2), ("render", 3)]


# ---------------------------------------------------------------- the program
def test_from_another_folder_the_project_s_runs_and_data_are_used(tmp_path, model, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "configs").mkdir(parents=True)
    elsewhere.mkdir()
    (project / "configs" / "own.yaml").write_text("name: own\nroot_dir: data/own\n")
    monkeypatch.setattr("facegcn.config.PROJECT", str(project))
    run = trained_run(dataclasses.replace(Config(), name="own", runs_dir=str(project / "runs")), model)
    seen = []
    monkeypatch.setattr(main, "train", lambda config, args, begun: seen.append(config) or 0)
    monkeypatch.setattr("facegcn.assets.check.require_assets", lambda config, mode: None)
    monkeypatch.chdir(elsewhere)
    assert main.main(["--config", "../project/configs/own.yaml"]) == 0
    assert os.path.realpath(seen[0].root_dir) == str(project / "data" / "own")
    assert RunFolder.latest(seen[0], model, "regressor.npz").path == os.path.join(seen[0].runs_dir, os.path.basename(
        run.path))
    assert os.path.realpath(RunFolder.create(seen[0]).path) == str(project / "runs" / "00001-own-resnet")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(("kept", "words"), [
    ("", "has no checkpoint yet: --restore begins it anew"), ("regressor.npz", "--restore continues"),
    ("checkpoints/texture/ckpt-1.index", "--restore continues")])
@pytest.mark.parametrize(("kind", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_stopped_training_names_a_checkpoint_only_where_there_is_one(config, monkeypatch, capsys, kept, words, kind,
                                                                       code):
    run = RunFolder.create(config)
    if kept:
        os.makedirs(os.path.dirname(run.file(kept)), exist_ok=True)
        open(run.file(kept), "w").close()

    def train(config, args, begun):
        begun.append(run)
        raise kind

    monkeypatch.setattr(main, "train", train)
    monkeypatch.setattr("facegcn.assets.check.require_assets", lambda config, mode: None)
    assert main.main([]) == code
    error = capsys.readouterr().err
    assert words in error and run.path in error and "Traceback" not in error


def test_debug_shows_the_traceback_of_a_user_s_mistake(capsys):
    assert main.main(["--config", "nowhere.yaml"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main.main(["--config", "nowhere.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
