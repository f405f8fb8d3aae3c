"""Run folders: everything that one training run writes, and how later runs find it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import logging.handlers
import os
import platform
import re
import subprocess
import sys

import h5py

from facegcn.config import PROJECT, Config, given_by_hand, load_config, read_saved_config, save_config
from facegcn.errors import UserError
from facegcn.files import append_line, read_npz, write_text

log = logging.getLogger("facegcn")

#: Settings that decide the shapes of the trained weights and what the networks are shown.
ARCHITECTURE_SETTINGS = ("img_size", "regressor", "regressor_pixels", "model", "wide", "nz", "residual",
                         "delit", "mirror", "trust", "completed", "texture_start",
                         "visibility", "sampling", "erosion", "relight")
REGRESSOR_SETTINGS = ("img_size", "regressor", "regressor_pixels")
#: What a run that is continued cannot change: its checkpoints hold the critic, too.
_FIXED_SETTINGS = (*ARCHITECTURE_SETTINGS, "gan", "critic_norm", "world", "name", "suffix")
_LIBRARIES = ("tensorflow", "keras", "numpy", "scipy", "numba")
_NUMBERED = re.compile(r"(\d{5,})-(.+)", re.DOTALL)
_RESTORED = re.compile(r"config-restored-(\d+)\.yaml")


class RunFolder:
    """``runs/00003-<name>-<model>/``: everything one training run writes, never reused by another.

    Looking at a run makes nothing.

    Attributes:
        path: the folder; inside it ``config.yaml``, ``config-restored-1.yaml`` and so on for each time that the run
            was continued, ``log.txt``, ``stats.jsonl``, ``samples/``, ``checkpoints/`` and TensorBoard events.
    """

    def __init__(self, path: str):
        self.path = path

    # ---------------------------------------------------------------- making and finding
    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """A new folder with the next free number; no other training gets the same one."""
        os.makedirs(config.runs_dir, exist_ok=True)
        number = max((number for number, _, _ in _numbered(config.runs_dir)), default=-1) + 1
        while True:
            path = os.path.join(config.runs_dir, f"{number:05d}-{config.run_name}")
            try:
                os.mkdir(path)
                return cls(path)
            except FileExistsError:  # another training was quicker
                number += 1

    @classmethod
    def latest(cls, config: Config, morphable, *holding: str, any_network: bool = False) -> RunFolder | None:
        """The newest whole run of this config and face model that holds one of the files ``holding``.

        A run whose config, or one of these files, is damaged is passed over with a warning.

        Args:
            config: its name and network; a run made with another morphable model does not count.
            morphable: the MorphableModel.
            holding: paths inside the run folder, for example ``regressor.npz``.
            any_network: also runs with another suffix or texture network, if their regressor is of the same kind.

        Returns:
            None without one.
        """
        for _, name, folder in sorted(_numbered(config.runs_dir), reverse=True):
            run = cls(folder)
            there = [path for path in map(run.file, holding) if os.path.exists(path)]
            if not there or not (name.startswith(f"{config.name}-") if any_network else name == config.run_name):
                continue
            try:
                saved, found = run.saved()
                fits = saved.name == config.name and found.get("morphable") == morphable.digest and (
                    not any_network or _agree(saved, config, REGRESSOR_SETTINGS))
                if fits:
                    for path in there:
                        _check_whole(path)
                    return run
            except (UserError, OSError) as error:
                log.warning("passing over the run %s: %s", folder, error)
        return None

    def file(self, *parts: str) -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, *parts)

    def has_checkpoint(self) -> bool:
        """Whether a training that is continued here has something to begin at: a checkpoint or a whole regressor."""
        return os.path.exists(self.file("regressor.npz")) or any(
            name.endswith(".index") for _, _, names in os.walk(self.file("checkpoints")) for name in names)

    # ---------------------------------------------------------------- settings
    def saved(self) -> tuple[Config, dict]:
        """The run's settings as it was last continued with, and what was found with them.

        Raises:
            UserError: there are none, or they are damaged.
        """
        restored = self._restored()
        return read_saved_config(self.file(f"config-restored-{max(restored)}.yaml" if restored else "config.yaml"))

    def save_config(self, config: Config, **found) -> None:
        """Writes ``config.yaml``, or ``config-restored-N.yaml`` where that is: settings, versions, what was found."""
        name = "config.yaml"
        if os.path.exists(self.file(name)):
            name = f"config-restored-{max(self._restored(), default=0) + 1}.yaml"
        save_config(config, self.file(name), python=platform.python_version(),
                    **{library: importlib.import_module(library).__version__ for library in _LIBRARIES},
                    git=git_commit(PROJECT), command=" ".join(sys.argv), **found)

    def _restored(self) -> list[int]:
        """Numbers of the files ``config-restored-N.yaml``."""
        return [int(match[1]) for match in map(_RESTORED.fullmatch, os.listdir(self.path)) if match]

    def continued(self, args) -> Config:
        """The settings to continue this run with: its own, unless the command line says otherwise.

        What changes is logged.

        Args:
            args: the command line, see ``config.given_by_hand``.

        Raises:
            UserError: a setting that the run's weights depend on is changed.
        """
        saved, _ = self.saved()
        by_hand = given_by_hand(args)
        asked = load_config(None, by_hand)  # as its fields' types
        for key in by_hand:
            before, now = getattr(saved, key), getattr(asked, key)
            if before == now:
                continue
            if key in _FIXED_SETTINGS or key == "facenet_file" and bool(before) != bool(now):
                raise UserError(f"--restore continues {self.path}, whose '{key}' is {before!r}: leave the flag out, or "
                                f"train a new run with {now!r}, without --restore")
            log.info("%s: %s -> %s, by hand", key, before, now)
        here = {"runs_dir": os.path.dirname(self.path)}  # whatever it was called where it began
        return dataclasses.replace(saved, **{key: getattr(asked, key) for key in by_hand} | here)

    def with_architecture(self, config: Config) -> Config:
        """``config`` with the network settings that this run was made with: its weights need them."""
        saved, _ = self.saved()
        kept = {key: getattr(saved, key) for key in ARCHITECTURE_SETTINGS}
        if bool(saved.facenet_file) != bool(config.facenet_file):
            # With or without FaceNet decides the embedding's width; where its file lies may change.
            kept["facenet_file"] = saved.facenet_file
        return dataclasses.replace(config, **kept)

    def check_frozen(self, face_model) -> None:
        """Makes sure that the frozen networks are those the run was trained with.

        Raises:
            UserError: one is another; names it.
        """
        saved, now = self.saved()[1].get("frozen_networks"), frozen_networks(face_model)
        for name in sorted(set(saved or {}) | set(now)) if saved is not None else ():
            if saved.get(name) != now.get(name):
                raise UserError(f"the run {self.path} was trained with another {name} than the one that is there: put "
                                "the former one back, or train a new run")

    # ---------------------------------------------------------------- log and statistics
    def open_log(self) -> logging.Handler:
        """From here on ``log.txt`` gets all that the terminal shows, and first what it has shown already.

        ``errors.guarded`` closes it when the program ends.

        Returns:
            the handler.
        """
        handler = _LogFile(self.file("log.txt"), encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(_LogLines("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        root = logging.getLogger()
        for memory in [held for held in root.handlers if isinstance(held, logging.handlers.MemoryHandler)]:
            memory.setTarget(handler)
            memory.flush()
            root.removeHandler(memory)
            memory.close()
        root.addHandler(handler)
        return handler

    def stats(self, **values) -> None:
        """Appends one line to ``stats.jsonl`` at once, so that nothing is lost in a crash."""
        append_line(self.file("stats.jsonl"), json.dumps(values))

    def forget_stats(self, stage: str, step: int) -> None:
        """Takes a stage's lines behind a step, and a line that was cut short, out of ``stats.jsonl``.

        A run that is continued from a checkpoint writes them again.
        """
        path = self.file("stats.jsonl")
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        kept = [line for line in lines if _is_kept(line, stage, step)]
        if len(kept) < len(lines):
            write_text(path, "".join(line + "\n" for line in kept))


class _LogFile(logging.FileHandler):
    """Without a word when its disk is full: statistics and checkpoints lie on the same one, and say so."""

    def handleError(self, record):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self):
        with contextlib.suppress(OSError):  # of lines that it could not write before
            super().close()


class OthersRun(RunFolder):
    """A run folder that another process of the training writes; this one reads it."""

    def save_config(self, config: Config, **found) -> None:
        """Leaves it to the other process; so do the rest of these."""

    def open_log(self) -> None:
        """As ``save_config``."""

    def stats(self, **values) -> None:
        """As ``save_config``."""

    def forget_stats(self, stage: str, step: int) -> None:
        """As ``save_config``."""


class _LogLines(logging.Formatter):
    """Without the empty lines that set messages off from a bar on the terminal."""

    def format(self, record):
        record = logging.makeLogRecord({**record.__dict__, "msg": record.getMessage().strip("\n"), "args": None})
        return super().format(record)


def _is_kept(line: str, stage: str, step: int) -> bool:
    try:
        values = json.loads(line)
        return values.get("stage") != stage or values.get("step", 0) <= step
    except (ValueError, AttributeError, TypeError, RecursionError):  # no JSON, or none that was written here
        return False


def _numbered(runs_dir: str) -> list[tuple[int, str, str]]:
    """(number, name, path) of each run folder in ``runs_dir``."""
    if not os.path.isdir(runs_dir):
        return []
    found = [(match, os.path.join(runs_dir, match[0])) for match in map(_NUMBERED.fullmatch, os.listdir(runs_dir))
             if match]
    return [(int(match[1]), match[2], path) for match, path in found if os.path.isdir(path)]


def _agree(one: Config, other: Config, keys) -> bool:
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _check_whole(path: str) -> None:
    """Raises UserError, with the file's name, for weights that cannot be read to their end."""
    if path.endswith(".npz"):
        read_npz(path)
    elif path.endswith(".h5"):
        try:
            with h5py.File(path) as file:
                file.visititems(lambda name, item: None)
        except (OSError, RuntimeError, KeyError) as error:
            raise UserError(f"{path} is damaged ({error})") from error


def git_commit(folder: str) -> str:
    """Commit of the program's folder, with ``+changes`` where files differ from it; '' where git cannot say."""
    def git(*words):
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True,
                              stdin=subprocess.DEVNULL).stdout.strip()

    try:
        if os.path.realpath(git("rev-parse", "--show-toplevel")) != os.path.realpath(folder):
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def frozen_networks(face_model) -> dict[str, str]:
    """Digest of each frozen network that a FaceModel runs, by the name of its setting."""
    networks = {"regressor_file": face_model.regressor, "facenet_file": face_model.facenet}
    return {name: network.digest for name, network in networks.items() if hasattr(network, "digest")}
