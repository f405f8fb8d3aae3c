"""A world so small that a training takes seconds, whose files are all known."""

from __future__ import annotations

import os
import shutil

import yaml

from tests.faces import half_ellipsoid

SETTINGS = {"model_file": "model.npz", "demo_portraits": 14, "val_count": 2, "test_count": 2, "img_size": 64,
            "regressor_pixels": 32, "regressor_start": "", "rec_steps": 48, "rec_batch_size": 4, "rec_reuse": 3,
            "rec_photo_batch": 2, "rec_photo_after": 0.6, "epoch": 6, "batch_size": 2, "log_steps": 1,
            "render_start": 1.0, "drop_rate": 0.2, "made_portraits": 6, "lr": 1e-3, "seed": 11,
            "checkpoint_seconds": 0.5}


class SmallWorld:
    """A folder with a face model, made portraits, and a config file.

    Args:
        folder: made; what is in it stays.
        settings: in place of those of ``SETTINGS``.
    """

    def __init__(self, folder: str, **settings):
        self.folder = os.path.abspath(folder)
        self.data, self.runs = self.path("data"), self.path("runs")
        os.makedirs(self.data, exist_ok=True)
        if not os.path.exists(self.path("data", "model.npz")):
            half_ellipsoid(25, 31).save(self.path("data", "model.npz"))
        with open(self.config, "w", encoding="utf-8") as file:
            yaml.safe_dump({**SETTINGS, "root_dir": self.data, "runs_dir": self.runs, **settings}, file)

    def path(self, *parts: str) -> str:
        """A path in the folder."""
        return os.path.join(self.folder, *parts)

    @property
    def config(self) -> str:
        """The config file."""
        return self.path("small.yaml")

    def flags(self, *further: str) -> list[str]:
        """The config's flags, and others."""
        return ["--config", self.config, *further]

    def copied(self, folder: str, **settings) -> SmallWorld:
        """The same world, with all its files, in another folder; the folder is emptied before."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return SmallWorld(folder, **settings)
