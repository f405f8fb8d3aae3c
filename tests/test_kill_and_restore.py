"""A training that is killed, stopped and continued writes what an undisturbed one writes, through the real commands."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import yaml

import create_bin
from tests.conftest import ROOT
from tests.faces import half_ellipsoid

SETTINGS = {"model_file": "model.npz", "demo_portraits": 14, "val_count": 2, "test_count": 2, "img_size": 64,
            "regressor_pixels": 32, "regressor_start": "", "rec_steps": 16, "rec_batch_size": 4, "rec_reuse": 3,
            "rec_photo_batch": 2, "rec_photo_after": 0.6, "epoch": 4, "batch_size": 2, "log_steps": 2,
            "render_start": 1.0, "drop_rate": 0.2, "made_portraits": 5, "lr": 1e-3, "seed": 11,
            "deterministic": True}
PATIENCE = 240  # seconds, on a machine that does other work, too


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small packed world with a config file ``small.yaml``."""
    folder = tmp_path_factory.mktemp("killed")
    half_ellipsoid(25, 31).save(str(folder / "data" / "model.npz"))
    (folder / "small.yaml").write_text(yaml.safe_dump({**SETTINGS, "root_dir": str(folder / "data"),
                                                       "runs_dir": str(folder / "runs")}))
    assert create_bin.main(["--config", str(folder / "small.yaml")]) == 0
    return folder


def command(folder, *flags):
    return [sys.executable, str(ROOT / "main.py"), "--config", str(folder / "small.yaml"), "--mode", "train", *flags]


def train(folder, *flags) -> str:
    """Trains to the end; returns what the terminal shows."""
    done = subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=PATIENCE, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def train_until(folder, run, stage, step, number, *flags) -> tuple[int, str]:
    """Trains until a line of the run's statistics has this step, then sends a signal; (exit code, what was shown)."""
    with open(folder / "shown.txt", "w+") as shown:
        # Tests that run in the background of a script ignore Ctrl-C, and so would what they start.
        process = subprocess.Popen(command(folder, *flags), stdout=shown, stderr=subprocess.STDOUT, cwd=folder,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        try:
            limit = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < limit:
                if any(line["stage"] == stage and line["step"] >= step for line in stats(run)):
                    process.send_signal(number)
                    break
                time.sleep(0.005)
            code = process.wait(PATIENCE)
        finally:
            process.kill()
        shown.seek(0)
        return code, shown.read()


def stats(run) -> list[dict]:
    """The whole lines of a run's statistics, without the time."""
    if not (run / "stats.jsonl").exists():
        return []
    lines = (run / "stats.jsonl").read_text().split("\n")[:-1]
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def weights(run) -> dict[str, np.ndarray]:
    """Everything of a run's last texture checkpoint, and its regressor."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / "texture"))
    arrays = {name: np.array(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()
              if name.startswith(("network/", "optimizer/")) and "OBJECT" not in name}
    return {**arrays, **dict(np.load(run / "regressor.npz"))}


def test_stopped_killed_and_restored_is_as_if_nothing_had_happened(folder):
    train(folder, "--suffix", "whole")
    whole, run = folder / "runs" / "00000-demo-whole", folder / "runs" / "00001-demo-resnet"

    # Stage rec is asked for, or the first run's regressor would be taken.
    code, shown = train_until(folder, run, "rec", 8, signal.SIGINT, "--stage", "rec")
    assert code == 130 and f"stopped; --restore continues {run}" in shown and "Traceback" not in shown
    code, shown = train_until(folder, run, "render", 16, signal.SIGKILL, "--restore")  # the third epoch
    assert code == -signal.SIGKILL and continued_at(shown) >= 8
    code, shown = train_until(folder, run, "render", 18, signal.SIGTERM, "--restore")
    assert code == 143 and f"--restore continues {run}" in shown and continued_at(shown) == 14
    shown = train(folder, "--restore", "--set", "runs_dir=runs")  # the same folder, named from where one is
    assert continued_at(shown) >= 18, "no step was lost"

    assert stats(run) == stats(whole)
    expected, found = weights(whole), weights(run)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)

    log = (run / "log.txt").read_text()
    assert log.count("run folder") == 4 and log.count("continuing from") == 3 and log.count("stopped; --restore") == 2
    assert "sample sheets are in" in log.splitlines()[-1]
    assert sorted(path.name for path in run.glob("config*.yaml")) == [
        "config-restored-1.yaml", "config-restored-2.yaml", "config-restored-3.yaml", "config.yaml"]
    assert {path.name for path in (run / "samples").iterdir()} == {
        "start.png", "epoch001.png", "epoch002.png", "epoch003.png", "epoch004.png"}


def continued_at(shown: str) -> int:
    """The step that a training says it continues from."""
    return int(re.search(r"continuing from \S+: step (\d+)", shown)[1])
