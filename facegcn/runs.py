"""Run folders: everything that one training run writes, and how later runs find it."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import sys
import time

import numpy as np
import yaml

from facegcn.config import Config, save_config
from facegcn.errors import UserError

#: Settings that decide the shapes of the trained weights and what the networks are shown.
ARCHITECTURE_SETTINGS = ("img_size", "regressor", "regressor_pixels", "model", "wide", "nz", "residual",
                         "delit", "mirror", "visibility", "sampling", "erosion", "relight")
REGRESSOR_SETTINGS = ("img_size", "regressor", "regressor_pixels")


class RunFolder:
    """``runs/00003-<name>-<model>/``: everything one training run writes, never reused by another.

    Attributes:
        path: the folder; inside it ``config.yaml``, ``log.txt``, ``stats.jsonl``, ``samples/``,
            ``checkpoints/`` and TensorBoard events.
    """

    def __init__(self, path: str):
        self.path = path
        for part in ("samples", "checkpoints"):
            os.makedirs(os.path.join(path, part), exist_ok=True)
        self._log_path = self.file("log.txt")
        self._stats_path = self.file("stats.jsonl")

    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """A new folder with the next free number."""
        os.makedirs(config.runs_dir, exist_ok=True)
        numbers = [int(name[:5]) for name in os.listdir(config.runs_dir) if re.match(r"\d{5}-", name)]
        number = max(numbers, default=-1) + 1
        return cls(os.path.join(config.runs_dir, f"{number:05d}-{config.run_name}"))

    @classmethod
    def latest(cls, config: Config, morphable, *holding: str, any_network: bool = False) -> RunFolder | None:
        """The newest run of this config and face model that holds one of the files ``holding``; None without one.

        Args:
            config: its name and network; a run made with another morphable model does not count.
            morphable: the MorphableModel.
            holding: paths inside the run folder, for example ``regressor.npz``.
            any_network: also runs with another suffix or texture network, if their regressor is of the same kind.
        """
        pattern = f"[0-9]*-{config.name}-*" if any_network else f"[0-9]*-{config.run_name}"
        for folder in sorted(glob.glob(os.path.join(config.runs_dir, pattern)), reverse=True):
            if any(os.path.exists(os.path.join(folder, name)) for name in holding):
                run, saved = cls(folder), cls(folder).saved_config()
                fits = not any_network or all(saved.get(key) == getattr(config, key) for key in REGRESSOR_SETTINGS)
                if fits and saved.get("morphable") == morphable.digest:
                    return run
        return None

    def file(self, *parts: str) -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, *parts)

    def log(self, message: str) -> None:
        """Prints a line and appends it to ``log.txt`` with the time."""
        print(message, flush=True)
        with open(self._log_path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def stats(self, **values) -> None:
        """Appends one line to ``stats.jsonl`` at once, so that nothing is lost in a crash."""
        with open(self._stats_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def saved_config(self) -> dict:
        """What ``config.yaml`` of the run holds; empty where the run ended before writing it."""
        if not os.path.exists(self.file("config.yaml")):
            return {}
        with open(self.file("config.yaml"), encoding="utf-8") as file:
            return yaml.safe_load(file)

    def with_architecture(self, config: Config) -> Config:
        """``config`` with the network settings that this run was made with: its weights need them."""
        saved = self.saved_config()
        kept = {key: saved[key] for key in ARCHITECTURE_SETTINGS if key in saved}
        if bool(saved.get("facenet_file")) != bool(config.facenet_file):
            # With or without FaceNet decides the embedding's width; where its file lies may change.
            kept["facenet_file"] = saved.get("facenet_file", "")
        return dataclasses.replace(config, **kept)

    def check_frozen(self, face_model) -> None:
        """Makes sure that the frozen networks are those the run was trained with.

        Raises:
            UserError: one is another; names it.
        """
        saved, now = self.saved_config().get("frozen_networks"), frozen_networks(face_model)
        for name in sorted(set(saved or {}) | set(now)) if saved is not None else ():
            if saved.get(name) != now.get(name):
                raise UserError(f"the run {self.path} was trained with another {name} than the one that is there: put "
                                "the former one back, or train a new run")

    def save_config(self, config: Config, **found_late) -> None:
        """Writes ``config.yaml``: every setting, the versions, and what was found at run time."""
        import keras
        import tensorflow as tf
        save_config(config, self.file("config.yaml"), python=sys.version.split()[0],
                    tensorflow=tf.__version__, keras=keras.__version__, numpy=np.__version__,
                    command=" ".join(sys.argv), **found_late)


def frozen_networks(face_model) -> dict[str, str]:
    """Digest of each frozen network that a FaceModel runs, by the name of its setting."""
    networks = {"regressor_file": face_model.regressor, "facenet_file": face_model.facenet}
    return {name: network.digest for name, network in networks.items() if hasattr(network, "digest")}
