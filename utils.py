"""Helpers of the root scripts: file lists, logging, run folders, and the cached mesh hierarchy."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import re
import sys
import time

import numpy as np
import yaml

from facegcn.config import Config, UserError, save_config
from mesh_sampling import MeshHierarchy, generate_transform_matrices, load_hierarchy, save_hierarchy

#: Settings that decide the shapes of the trained weights and what the networks are shown.
ARCHITECTURE_SETTINGS = ("img_size", "regressor", "regressor_pixels", "model", "wide", "nz", "residual",
                         "delit", "visibility", "erosion", "relight")
REGRESSOR_SETTINGS = ("img_size", "regressor", "regressor_pixels")
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def find_images(path: str, flag: str = "--input") -> list[str]:
    """The image files at a path: itself when a file, else those directly in the folder, by name.

    Args:
        path: file or folder.
        flag: what the user wrote it behind; part of the message.

    Raises:
        UserError: nothing is there, or the folder holds no image.
    """
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise UserError(f"{flag} {path}: there is no such file or folder")
    found = sorted(os.path.join(path, name) for name in os.listdir(path)
                   if name.lower().endswith(IMAGE_EXTENSIONS))
    if not found:
        raise UserError(f"{flag} {path}: no image in this folder (looked for {', '.join(IMAGE_EXTENSIONS)})")
    return found


def init_sampling(vertices: np.ndarray, triangles: np.ndarray, folder: str,
                  factors: tuple[int, ...] = (4, 4, 4, 4)) -> MeshHierarchy:
    """The mesh hierarchy of a template, from the cache when the template is the same.

    Args:
        vertices: (N, 3) mean shape.
        triangles: (F, 3).
        folder: where ``sampling-<hash>.npz`` is kept; the hash covers vertices, triangles and
            factors, so a stale file is never used.
        factors: each level keeps ceil(N / factor) vertices.
    """
    digest = template_hash(vertices, triangles, np.asarray(factors, np.int32))
    path = os.path.join(folder, f"sampling-{digest}.npz")
    if os.path.exists(path):
        return load_hierarchy(path)
    print(f"making the mesh hierarchy of {len(vertices):,} vertices: {path}")
    hierarchy = generate_transform_matrices(vertices, triangles, factors)
    os.makedirs(folder, exist_ok=True)
    save_hierarchy(path, hierarchy)
    return hierarchy


def template_hash(*arrays: np.ndarray) -> str:
    """Twelve hexadecimal digits that change when any array changes."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


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
    def latest(cls, config: Config, morphable, holding: str, any_network: bool = False) -> RunFolder | None:
        """The newest run of this config and face model that holds a file ``holding``; None without one.

        Args:
            config: its name and network; a run made with another morphable model does not count.
            morphable: the MorphableModel.
            holding: path inside the run folder, for example ``regressor.npz``.
            any_network: also runs with another suffix or texture network, if their regressor is of the same kind.
        """
        pattern = f"[0-9]*-{config.name}-*" if any_network else f"[0-9]*-{config.run_name}"
        for folder in sorted(glob.glob(os.path.join(config.runs_dir, pattern)), reverse=True):
            if os.path.exists(os.path.join(folder, holding)):
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
        return dataclasses.replace(config, **{key: saved[key] for key in ARCHITECTURE_SETTINGS if key in saved})

    def save_config(self, config: Config, **found_late) -> None:
        """Writes ``config.yaml``: every setting, the versions, and what was found at run time."""
        import keras
        import tensorflow as tf
        save_config(config, self.file("config.yaml"), python=sys.version.split()[0],
                    tensorflow=tf.__version__, keras=keras.__version__, numpy=np.__version__,
                    command=" ".join(sys.argv), **found_late)
