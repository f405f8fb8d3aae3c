"""What is in a run's folder: settings, statistics, weights."""

import json
import os

import h5py
import numpy as np

from facegcn.config import Config
from facegcn.runs import RunFolder, _check_whole
from tests.fuzzing import archives, attempts
from tests.fuzzing.changes import damaged, misspelt


class Reader(attempts.Reader):
    """A run of one stage."""

    def seeds(self):
        run = RunFolder(self.folder)
        os.makedirs(self.folder, exist_ok=True)
        run.save_config(Config(), vertices=12, morphable="0" * 12)
        with open(run.file("config.yaml"), "rb") as file:
            settings = file.read().partition(b"found:")[0].splitlines(keepends=True)
        saved = b"".join(settings[::9]) + b"found:\n  morphable: x\n"
        for step in (20, 40, 60):
            run.stats(stage="render", step=step, loss=0.5)
        with open(run.file("stats.jsonl"), "rb") as file:
            stats = file.read()
        with h5py.File(run.file("a.h5"), "w") as file:
            file["layers/dense/vars/0"] = np.arange(6.0)
        with open(run.file("a.h5"), "rb") as file:
            weights = file.read()
        return [{"config.yaml": saved, "stats.jsonl": stats, "texture.weights.h5": weights,
                 "regressor.npz": archives.packed_arrays({"a": np.arange(3.0)})}]

    def change(self, rng, name, data, others):
        return (misspelt if name.endswith(("yaml", "jsonl")) else damaged)(rng, data, others)

    def read(self, folder):
        run = RunFolder(folder)
        for name in ("texture.weights.h5", "regressor.npz"):
            _check_whole(run.file(name))
        run.forget_stats("render", 40)
        with open(run.file("stats.jsonl"), encoding="utf-8", errors="replace") as file:
            return run.saved(), file.read()

    def wrong(self, answer):
        for line in answer[1].splitlines():
            values = json.loads(line)
            if values.get("stage") == "render" and values.get("step", 0) > 40:
                return "statistics of steps that are to come again"
        return ""
