"""Carries a TF1 checkpoint of the released code over into a run folder of ours.

The texture network (``mesh_generator/...``) and, where it is there, the critic
(``image_disc/...``) are read, recognised by their names and shapes, checked against the face
model, and kept as ``released_weights.npz`` in a new run, which test mode uses and ``--restore``
continues. What the networks' variables are called and how large they are is asked of the networks
themselves. Letters: E embedding width, M vertices of the coarsest mesh.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from facegcn.assets.worlds import load_morphable
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.files import brief, read_npz, write_npz
from facegcn.morphable import MorphableModel
from facegcn.networks.frozen import FrozenFaceNet, FrozenRegressor
from facegcn.runs import RunFolder

WEIGHTS_FILE = "released_weights.npz"
#: Epoch from which on the released schedule trains with the full image losses.
FULL_RENDER_EPOCH = 5

_SCOPES = ("mesh_generator/", "image_disc/")
#: What optimisers and averages keep beside a variable, under its name.
_SLOT = re.compile(r"/(Adam(_\d+)?|Momentum|RMSProp(_\d+)?|ExponentialMovingAverage|biased|local_step)$")
_DENSE = "mesh_generator/mesh_decoder/fc/weights"  # (E, 32 M)
_COARSEST_FEATURES = 32  # that it gives each vertex of the coarsest mesh
#: Names and shapes that tell the networks apart: (kind, first decoder layer, its width when wide).
_KINDS = (("resnet", "mesh_generator/mesh_decoder/resblock1/filter1/weights", 64),
          ("normal", "mesh_generator/mesh_decoder/upconv1/weights", 32))
#: How the released code makes the networks' inputs; its weights need the same.
_RELEASED_INPUTS = {"residual": False, "delit": False, "mirror": False, "relight": False,
                    "visibility": "normal", "erosion": 9,
                    "sampling": "released"}


def import_checkpoint(config: Config, source: str, network_shapes: Callable[[Config, MorphableModel, int], dict],
                      epochs_done: int = FULL_RENDER_EPOCH) -> tuple[RunFolder, Config]:
    """Makes a run folder out of a checkpoint.

    Args:
        config: its name, run folder and face model are used; the frozen networks must be set. Kind
            and widths of the texture network come from the checkpoint.
        source: as for ``read_checkpoint``.
        network_shapes: takes config, morphable model and E; gives the shape of each variable of its networks, by
            TF1 name.
        epochs_done: epochs that the schedule counts as done when the run is continued.

    Returns:
        the run, and the config that it holds.

    Raises:
        UserError: the checkpoint is absent, damaged or not the released code's; a file of the config
            is absent; or variables are missing, unknown or of another shape: all of them are named.
    """
    if config.regressor != "frozen" or not config.facenet_file:
        raise UserError("the released texture networks read the features of FaceReconModel.pb and FaceNetModel.pb: "
                        "import them with a config that has 'regressor: frozen' and a facenet_file, such as "
                        "--config configs/bfm09.yaml")
    arrays = read_checkpoint(source)
    config = dataclasses.replace(config, **recognised_settings(arrays), **_RELEASED_INPUTS)
    morphable = load_morphable(config)
    embedding = (FrozenRegressor(config.path(config.regressor_file), morphable.coefficient_count).feature_count
                 + FrozenFaceNet(config.path(config.facenet_file)).feature_count)
    _check_shapes(source, arrays, config, network_shapes(config, morphable, embedding))
    run = RunFolder.create(config)
    write_npz(run.file(WEIGHTS_FILE), {"epochs_done": np.int64(epochs_done), **arrays}, compressed=False)
    run.save_config(config, vertices=morphable.vertex_count, coefficients=morphable.coefficient_count,
                    morphable=morphable.digest, imported_from=os.path.abspath(source))
    return run, config


def imported_weights(run: RunFolder) -> dict[str, np.ndarray]:
    """The arrays of an imported run by TF1 name, and its ``epochs_done``; empty for other runs.

    Raises:
        BrokenFile: its file is damaged.
    """
    path = run.file(WEIGHTS_FILE)
    return read_npz(path) if os.path.exists(path) else {}


def read_checkpoint(source: str) -> dict[str, np.ndarray]:
    """float32 arrays of the texture network and the critic, by TF1 name; optimiser slots are left out.

    Args:
        source: prefix of the checkpoint (``checkpoints/NAME/model-12345``), one of its files, or the
            folder, whose latest checkpoint is taken.

    Raises:
        UserError: there is none, it cannot be read, it holds no texture network, or numbers in it
            are not finite.
    """
    prefix = _latest(source) if os.path.isdir(source) else re.sub(
        r"\.(index|meta|data-\d+-of-\d+)$", "", source)
    if prefix is None or not tf.io.gfile.glob(prefix + ".index") and not os.path.isfile(prefix):
        raise UserError(f"there is no TF1 checkpoint at --source {source}: give the prefix of the files "
                        "PREFIX.index and PREFIX.data-00000-of-00001 (for example checkpoints/NAME/model-12345), or "
                        "the folder with its 'checkpoint' file")
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = sorted(reader.get_variable_to_shape_map())
        arrays = {name: np.asarray(reader.get_tensor(name), np.float32) for name in names
                  if name.startswith(_SCOPES) and not _SLOT.search(name)}
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError, MemoryError) as error:
        raise UserError(f"--source {source} cannot be read as a TF1 checkpoint (its .index and .data files belong "
                        f"together, and must be whole): {brief(error).strip().splitlines()[0]}") from error
    if not any(name.startswith(_SCOPES[0]) for name in arrays):
        scopes = sorted({name.partition("/")[0] for name in names})
        raise UserError(f"--source {source} holds no texture network (variables mesh_generator/...): it is not a "
                        f"checkpoint of the released code. Its {len(names)} variables are in: {', '.join(scopes[:12])}")
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(f"--source {source}: these variables are not finite: {', '.join(broken)}; "
                        "take an earlier checkpoint")
    return arrays


def _latest(folder: str) -> str | None:
    """Prefix that a folder's file ``checkpoint`` names; None where it names none that is there."""
    try:
        return tf.train.latest_checkpoint(folder)
    except (tf.errors.OpError, ValueError):
        return None


def recognised_settings(arrays) -> dict:
    """The settings model, wide, nz, gan and critic_norm that a checkpoint was trained with.

    Raises:
        UserError: neither kind of texture network is in it.
    """
    for kind, name, wide_width in _KINDS:
        if name not in arrays:
            continue
        settings = {"model": kind, "wide": arrays[name].shape[-1] == wide_width,
                    "gan": any(other.startswith(_SCOPES[1]) for other in arrays)}
        latent = arrays.get("mesh_generator/mesh_refiner/fc/weights")
        if kind == "normal" and latent is not None and latent.ndim == 2:
            settings["nz"] = latent.shape[1]
        if settings["gan"]:
            settings["critic_norm"] = "batch"
        return settings
    found = ", ".join(sorted(name for name in arrays if name.startswith("mesh_generator/mesh_decoder/"))[:6])
    raise UserError("this texture network is neither the released code's 'resnet' (it would have "
                    f"{_KINDS[0][1]}) nor its 'normal' ({_KINDS[1][1]}); its decoder has: {found or 'nothing'}")


def _check_shapes(source, arrays, config, expected):
    """Raises UserError with every missing, unknown and misfitting variable."""
    problems = [f"{name} is missing" for name in expected if name not in arrays]
    problems += [f"{name} is not part of the network" for name in arrays if name not in expected]
    problems += [f"{name} has shape {arrays[name].shape}, expected {shape}" for name, shape in expected.items()
                 if name in arrays and _squeezed(arrays[name].shape) != _squeezed(shape)]
    if problems:
        wide = "wide " if config.wide else ""
        embedding, coarsest = expected[_DENSE][0], expected[_DENSE][1] // _COARSEST_FEATURES
        raise UserError(
            f"--source {source} does not fit the {wide}'{config.model}' network of this face model ({coarsest} "
            f"vertices in its coarsest mesh, embedding {embedding}, {config.img_size} pixels):\n  "
            + "\n  ".join(problems) + _reason(arrays.get(_DENSE), expected[_DENSE]))


def _reason(dense, expected):
    """Which size of the face model or embedding the checkpoint was made for, where that is what differs."""
    if dense is None or dense.ndim != 2 or dense.shape == expected:
        return ""
    coarsest = dense.shape[1] / _COARSEST_FEATURES
    return (f"\nIt was trained with an embedding of {dense.shape[0]} and {coarsest:g} vertices in the coarsest mesh: "
            "use the morphable model and the frozen networks that it was trained with")


def _squeezed(shape):
    """Without axes of length 1: the released code's biases are (1, 1, F)."""
    return tuple(size for size in shape if size != 1)
