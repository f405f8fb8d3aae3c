"""Whether files that a killed program leaves are whole, which are half written, and whether two works are the same."""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import os
import zipfile
import zlib

import h5py
import numpy as np
import tensorflow as tf
import yaml
from PIL import Image

#: Files that grow, whose last line may be cut.
_GROWING = ("log.txt", "stats.jsonl", "events.out.tfevents.*")
_LEFT = (".partial-*", "*.partial-*", "*_temp", "*.tempstate*", "*.try")


def is_leftover(path: str) -> bool:
    """Whether a path is of a file that was being written, under a name that nothing reads."""
    return any(fnmatch.fnmatch(part, pattern) for part in path.split(os.sep) for pattern in _LEFT)


def names_seen(folders) -> set[str]:
    """Paths of all files and folders in some folders."""
    return {os.path.join(root, name) for folder in folders for root, inner, names in os.walk(folder)
            for name in inner + names}


def contents(folders, *patterns: str) -> dict[str, str]:
    """Digest of each finished file by its path in its folder; of those alone whose path or name fits a pattern."""
    found = {}
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                path = os.path.relpath(os.path.join(root, name), folder)
                if is_leftover(path) or ".parts" + os.sep in path or patterns and not any(
                        fnmatch.fnmatch(path, pattern) for pattern in patterns):
                    continue
                with open(os.path.join(root, name), "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


def kept_files(folders) -> list[str]:
    """What is wrong with the finished files in some folders, each read to its end by its kind."""
    found = []
    for path in sorted(names_seen(folders)):
        name = os.path.basename(path)
        if not os.path.isfile(path) or is_leftover(path) or any(fnmatch.fnmatch(name, grows) for grows in _GROWING):
            continue
        try:
            _read(path)
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, yaml.YAMLError,
                zipfile.BadZipFile, zlib.error, tf.errors.OpError) as error:
            found.append(f"{path}: {type(error).__name__}: {error}")
    return found


def _read(path: str) -> None:
    ending = os.path.splitext(path)[1]
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays:
                arrays[name]
    elif ending == ".npy":
        np.load(path, allow_pickle=False)
    elif ending == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif ending in (".yaml", ".json"):
        with open(path, encoding="utf-8") as file:
            if not (yaml.safe_load if ending == ".yaml" else json.load)(file):
                raise ValueError("is empty")
    elif ending == ".h5":
        with h5py.File(path) as file:
            file.visititems(lambda name, item: item[()] if isinstance(item, h5py.Dataset) else None)
    elif ending == ".index":
        reader = tf.train.load_checkpoint(path.removesuffix(".index"))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


# ---------------------------------------------------------------- comparing
def stats(run: str, *also: str) -> list[dict]:
    """The whole lines of a run's statistics, without the time unless it is asked for."""
    path = os.path.join(run, "stats.jsonl")
    if not run or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")[:-1]
    return [{key: value for key, value in json.loads(line).items() if key != "seconds" or key in also}
            for line in lines]


def weights(run: str) -> dict[str, np.ndarray]:
    """Networks and optimisers of a run's newest checkpoints, and its regressor."""
    found = dict(np.load(os.path.join(run, "regressor.npz")))
    for folder in glob.glob(os.path.join(run, "checkpoints", "*")):
        reader = tf.train.load_checkpoint(folder)
        found |= {name: np.array(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()
                  if name.startswith(("network/", "regressor/", "optimizer/")) and "OBJECT" not in name}
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names of files that are absent, too many, or other than expected."""
    return [f"{name} is {'absent' if name not in found else 'too many' if name not in expected else 'another'}"
            for name in sorted(set(expected) | set(found)) if expected.get(name) != found.get(name)]
