"""Whole trainings on two logical devices and in two processes, beside one process with the same batch."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml

import create_bin
from facegcn.training.peers import EXIT_PEER_GONE
from tests.conftest import ROOT
from tests.faces import half_ellipsoid

pytestmark = pytest.mark.long

#: Adam makes a step as long as the learning rate of any gradient, of one that is nothing but rounding, too. With small
#: rates the losses stay comparable, and the gradients are compared by what the optimiser keeps of them.
SETTINGS = {"model_file": "model.npz", "demo_portraits": 17, "val_count": 3, "test_count": 2, "img_size": 64,
            "regressor_pixels": 32, "regressor_start": "", "rec_steps": 4, "rec_batch_size": 4, "rec_photo_batch": 2,
            "rec_photo_after": 0.5, "rec_lr": 1e-6, "epoch": 2, "batch_size": 4, "log_steps": 1, "drop_rate": 0.2,
            "made_portraits": 5, "second_view_weight": 1.0, "gan": True, "critic_steps": 2, "lr": 1e-6, "seed": 11}
PATIENCE = 900  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    half_ellipsoid(25, 31).save(str(folder / "data" / "model.npz"))
    (folder / "small.yaml").write_text(yaml.safe_dump({**SETTINGS, "root_dir": str(folder / "data"),
                                                       "runs_dir": str(folder / "runs")}))
    assert create_bin.main(["--config", str(folder / "small.yaml")]) == 0
    return folder


def begun(folder, devices, *flags, **environment):
    """A training as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "tests.several_devices", str(folder), str(devices), *flags],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
                            env={**os.environ, **environment})


def cluster(folder, *flags):
    """Both processes of one training."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    return [begun(folder, 1, *flags, TF_CONFIG=json.dumps({
        "cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})) for index in range(2)]


def ended(*processes) -> list[str]:
    """What processes show that end well."""
    shown = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(shown)
    return shown


@pytest.fixture(scope="module")
def alone(folder):
    ended(begun(folder, 1, "--suffix", "alone", "--stage", "rec"))
    ended(begun(folder, 1, "--suffix", "alone", "--restore", "--stage", "render"))
    return folder / "runs" / "00000-demo-alone"


def stats(run) -> list[dict]:
    path = run / "stats.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def variables(run, stage) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / stage))
    return {name: np.array(reader.get_tensor(name), np.float64) for name in reader.get_variable_to_shape_map()
            if "OBJECT" not in name and "save_counter" not in name and not name.startswith("state")}


def same(run, alone, stages=("rec", "render")):
    """Losses of each step, and weights and what the optimiser keeps after them, within what rounding explains."""
    same_losses(run, alone, stages)
    for stage in {"rec": "regressor", "render": "texture"}[stages[-1]],:
        found, wanted = variables(run, stage), variables(alone, stage)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert np.linalg.norm(found[name] - value) <= 1e-3 * np.linalg.norm(value) + 1e-5, name


def same_losses(run, alone, stages):
    """Losses of each step within 1e-5."""
    lines, expected = ([line for line in stats(which) if line["stage"] in stages] for which in (run, alone))
    assert len(lines) == len(expected) > 3
    for line, one in zip(lines, expected):
        assert line.keys() == one.keys()
        for name in line.keys() - {"stage", "seconds"}:
            # The critic's distance is the small difference of scores about 1, and its weights move by Adam.
            # The length of all gradients together, no loss, has every weight's rounding in it.
            near = 1e-4 if name == "gradient_norm" else 1e-5
            assert line[name] == pytest.approx(one[name], rel=near, abs=1e-5), (line["stage"], line["step"], name)


def test_two_logical_devices_train_as_one(folder, alone):
    ended(begun(folder, 2, "--suffix", "two", "--devices", "all", "--stage", "rec"))
    run = folder / "runs" / "00001-demo-two"
    ended(begun(folder, 2, "--suffix", "two", "--devices", "all", "--restore", "--stage", "render"))
    same(run, alone, ("rec",))
    same(run, alone)


LONGER = "--stage", "rec", "--set", "rec_steps=60", "--set", "rec_photo_batch=0", "--set", "checkpoint_seconds=1"


def run_of(folder, suffix):
    """The folder of a run; None before it is there."""
    return next((folder / "runs").glob(f"*-demo-{suffix}"), None)


@pytest.fixture(scope="module")
def undisturbed(folder):
    """Two processes that nobody kills, and one.

    After sixty steps weights are no more comparable with those of one process: offsets of the residual branches begin
    at zero and are still near it, and where rounding gives one another sign, whole channels are cut off by ReLU.
    """
    ended(begun(folder, 1, "--suffix", "longer", *LONGER))
    ended(*cluster(folder, "--suffix", "both", *LONGER))
    same_losses(run_of(folder, "both"), run_of(folder, "longer"), ("rec",))
    return run_of(folder, "both")


def begun_until(folder, suffix, steps):
    """Both processes of a training that has made so many steps."""
    processes, limit = cluster(folder, "--suffix", suffix, *LONGER), time.monotonic() + PATIENCE
    while time.monotonic() < limit and all(process.poll() is None for process in processes):
        if (run := run_of(folder, suffix)) and len(stats(run)) >= steps:
            break
        time.sleep(0.05)
    return processes


def goes_on_as(undisturbed, folder, suffix):
    """Restored, both processes end with the weights of two that nobody stopped, to the last bit."""
    ended(*cluster(folder, "--suffix", suffix, *LONGER, "--restore"))
    same_losses(run_of(folder, suffix), undisturbed, ("rec",))
    found, wanted = variables(run_of(folder, suffix), "regressor"), variables(undisturbed, "regressor")
    assert found.keys() == wanted.keys() and [name for name in wanted if (found[name] != wanted[name]).any()] == []


@pytest.mark.parametrize("killed", [0, 1])
def test_two_processes_go_on_where_one_was_killed(undisturbed, folder, killed):
    processes = begun_until(folder, f"killed{killed}", 20)
    processes[killed].send_signal(signal.SIGKILL)
    start = time.monotonic()
    shown = processes[1 - killed].communicate(timeout=60)[0]
    assert processes[1 - killed].returncode == EXIT_PEER_GONE and time.monotonic() - start < 20
    assert len(re.findall(f"error: worker {killed} .* is gone, .*--restore", shown)) == 1 and "Traceback" not in shown
    processes[killed].communicate()
    goes_on_as(undisturbed, folder, f"killed{killed}")
    log = (run_of(folder, f"killed{killed}") / "log.txt").read_text()
    assert log.count("is gone") == (killed == 1) and log.count("continuing from") == 1


@pytest.mark.parametrize("asked", [0, 1])
def test_two_processes_stop_after_the_same_step_though_saving_takes_long(undisturbed, folder, asked, monkeypatch):
    monkeypatch.setenv("SLOW_CHECKPOINTS", "6")
    processes = begun_until(folder, f"asked{asked}", 8)
    processes[asked].send_signal(signal.SIGTERM)
    shown = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], "\n".join(shown)
    assert all("is gone" not in text and "Traceback" not in text for text in shown)
    monkeypatch.delenv("SLOW_CHECKPOINTS")
    run, steps = run_of(folder, f"asked{asked}"), len(stats(run_of(folder, f"asked{asked}")))
    goes_on_as(undisturbed, folder, f"asked{asked}")
    assert f": step {steps}" in (run / "log.txt").read_text(), "the step that was under way is saved"
