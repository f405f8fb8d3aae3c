"""Carries a TF1 checkpoint of the released code over into a run folder of ours.

The texture network (``mesh_generator/...``) and, where it is there, the critic
(``image_disc/...``) are read, recognised by their names and shapes, checked against the face
model, and kept as ``released_weights.npz`` in a new run, which test mode uses and ``--restore``
continues. Letters: E embedding width, M vertices of the coarsest mesh.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re

import numpy as np
import tensorflow as tf

from facegcn.assets.worlds import load_morphable
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.networks.frozen import FrozenFaceNet, FrozenRegressor
from facegcn.runs import RunFolder

WEIGHTS_FILE = "released_weights.npz"
#: Epoch from which on the released schedule trains with the full image losses.
FULL_RENDER_EPOCH = 5

_SCOPES = ("mesh_generator/", "image_disc/")
#: What optimisers and averages keep beside a variable, under its name.
_SLOT = re.compile(r"/(Adam(_\d+)?|Momentum|RMSProp(_\d+)?|ExponentialMovingAverage|biased|local_step)$")
_ORDER = 6  # Chebyshev terms
_LEVELS = 4  # meshes below the template, each with a quarter of the vertices
_CHANNELS = 7  # of the refiner's input
_CRITIC_WIDTHS = (16, 32, 64, 128, 256, 512)
#: Names and shapes that tell the networks apart: (kind, first decoder layer, its width when wide).
_KINDS = (("resnet", "mesh_generator/mesh_decoder/resblock1/filter1/weights", 64),
          ("normal", "mesh_generator/mesh_decoder/upconv1/weights", 32))
#: How the released code makes the networks' inputs; its weights need the same.
_RELEASED_INPUTS = {"residual": False, "delit": False, "mirror": False, "relight": False,
                    "visibility": "normal", "erosion": 9,
                    "sampling": "released"}


def import_checkpoint(config: Config, source: str, epochs_done: int = FULL_RENDER_EPOCH) -> tuple[RunFolder, Config]:
    """Makes a run folder out of a checkpoint.

    Args:
        config: its name, run folder and face model are used; the frozen networks must be set. Kind
            and widths of the texture network come from the checkpoint.
        source: as for ``read_checkpoint``.
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
    _check_shapes(source, arrays, config, coarsest_count(morphable.vertex_count), embedding)
    run = RunFolder.create(config)
    np.savez(run.file(WEIGHTS_FILE), epochs_done=np.int64(epochs_done), **arrays)
    run.save_config(config, vertices=morphable.vertex_count, coefficients=morphable.coefficient_count,
                    morphable=morphable.digest, imported_from=os.path.abspath(source))
    return run, config


def imported_weights(run: RunFolder) -> dict[str, np.ndarray]:
    """The arrays of an imported run by TF1 name, and its ``epochs_done``; empty for other runs."""
    if not os.path.exists(run.file(WEIGHTS_FILE)):
        return {}
    with np.load(run.file(WEIGHTS_FILE), allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def read_checkpoint(source: str) -> dict[str, np.ndarray]:
    """float32 arrays of the texture network and the critic, by TF1 name; optimiser slots are left out.

    Args:
        source: prefix of the checkpoint (``checkpoints/NAME/model-12345``), one of its files, or the
            folder, whose latest checkpoint is taken.

    Raises:
        UserError: there is none, it cannot be read, it holds no texture network, or numbers in it
            are not finite.
    """
    prefix = tf.train.latest_checkpoint(source) if os.path.isdir(source) else re.sub(
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
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        raise UserError(f"--source {source} cannot be read as a TF1 checkpoint (its .index and .data files belong "
                        f"together, and must be whole): {str(error).strip().splitlines()[0]}") from error
    if not any(name.startswith(_SCOPES[0]) for name in arrays):
        scopes = sorted({name.partition("/")[0] for name in names})
        raise UserError(f"--source {source} holds no texture network (variables mesh_generator/...): it is not a "
                        f"checkpoint of the released code. Its {len(names)} variables are in: {', '.join(scopes[:12])}")
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(f"--source {source}: these variables are not finite: {', '.join(broken)}; "
                        "take an earlier checkpoint")
    return arrays


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


def coarsest_count(vertex_count: int) -> int:
    """M: vertices of the fourth mesh below the template, a quarter each time, rounded up."""
    for _ in range(_LEVELS):
        vertex_count = math.ceil(vertex_count / 4)
    return vertex_count


def _check_shapes(source, arrays, config, coarsest, embedding):
    """Raises UserError with every missing, unknown and misfitting variable."""
    expected = texture_shapes(config.model, config.wide, config.nz, coarsest, embedding)
    if config.gan:
        expected.update(critic_shapes(config.img_size))
    problems = [f"{name} is missing" for name in expected if name not in arrays]
    problems += [f"{name} is not part of the network" for name in arrays if name not in expected]
    problems += [f"{name} has shape {arrays[name].shape}, expected {shape}" for name, shape in expected.items()
                 if name in arrays and _squeezed(arrays[name].shape) != _squeezed(shape)]
    if problems:
        wide = "wide " if config.wide else ""
        raise UserError(
            f"--source {source} does not fit the {wide}'{config.model}' network of this face model ({coarsest} "
            f"vertices in its coarsest mesh, embedding {embedding}, {config.img_size} pixels):\n  "
            + "\n  ".join(problems) + _reason(arrays, coarsest, embedding))


def _reason(arrays, coarsest, embedding):
    """Which size of the face model or embedding the checkpoint was made for, where that is what differs."""
    dense = arrays.get("mesh_generator/mesh_decoder/fc/weights", np.zeros((0,)))
    if dense.ndim != 2 or dense.shape == (embedding, 32 * coarsest):
        return ""
    return (f"\nIt was trained with an embedding of {dense.shape[0]} and {dense.shape[1] / 32:g} vertices in the "
            "coarsest mesh: use the morphable model and the frozen networks that it was trained with")


def _squeezed(shape):
    return tuple(size for size in shape if size != 1)


# ---------------------------------------------------------------- names and shapes of the released code
def texture_shapes(kind: str, wide: bool, nz: int, coarsest: int, embedding: int) -> dict[str, tuple[int, ...]]:
    """Shape of each variable of a texture network, by TF1 name.

    Args:
        kind: ``resnet`` or ``normal``.
        wide: whether it has the wider layers.
        nz: latent width of ``normal``.
        coarsest: M.
        embedding: E.
    """
    shapes = {}
    _add_layer(shapes, "mesh_decoder/fc", embedding, 32 * coarsest)
    if kind == "resnet":
        _add_blocks(shapes, "mesh_decoder", (32, 64, 128, 256, 3) if wide else (32, 16, 16, 16, 3))
        _add_blocks(shapes, "mesh_refiner", (_CHANNELS, 16, 32, 64, 128, 3) if wide else (_CHANNELS, 16, 32, 32, 16, 3))
    else:
        widths = (32, 32, 64, 128, 256) if wide else (32, 16, 16, 16, 16)
        for i, (before, after) in enumerate(zip(widths, widths[1:]), 1):
            _add_layer(shapes, f"mesh_decoder/upconv{i}", before * _ORDER, after)
        _add_layer(shapes, "mesh_decoder", widths[-1] * _ORDER, 3)
        shapes["mesh_generator/mesh_refiner/graph_conv0/weights"] = (_CHANNELS * _ORDER, 16)
        # Down: 16, 16, 32, 64, 128. Up: 128, 64, 32, 16, with 64 and 32 skipped features before the first two.
        for i, (before, after) in enumerate(((16, 16), (16, 32), (32, 64), (64, 128),
                                             (128 + 64, 128), (128 + 32, 64), (64, 32), (32, 16)), 1):
            _add_layer(shapes, f"mesh_refiner/graph_conv{i}", before * _ORDER, after)
        _add_layer(shapes, "mesh_refiner/fc", 128 * coarsest, nz)
        _add_layer(shapes, "mesh_refiner/fc2", nz, 128 * coarsest)
        _add_layer(shapes, "mesh_refiner", 16 * _ORDER, 3)
    shapes["mesh_generator/mesh_concat/weights"] = (6 * _ORDER, 3)
    return shapes


def critic_shapes(image_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of each variable of the critic, by TF1 name; its last kernel spans what five halvings leave."""
    shapes = {}
    for i, (before, after) in enumerate(zip((3, *_CRITIC_WIDTHS), _CRITIC_WIDTHS), 1):
        size = 1 if i == 1 else 3
        shapes[f"image_disc/conv{i}_1/weights"] = (size, size, before, after)
        for name in ("bias", "BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance"):
            shapes[f"image_disc/conv{i}_1/{name}"] = (after,)
    size = math.ceil(image_size / 2 ** (len(_CRITIC_WIDTHS) - 1))
    shapes["image_disc/outputs/weights"] = (size, size, _CRITIC_WIDTHS[-1], 1)
    shapes["image_disc/outputs/bias"] = (1,)
    return shapes


def _add_layer(shapes, scope, before, after):
    shapes[f"mesh_generator/{scope}/weights"] = (before, after)
    shapes[f"mesh_generator/{scope}/bias"] = (after,)


def _add_blocks(shapes, scope, widths):
    """Residual blocks 1, 2, ...; a shortcut where the width changes."""
    for i, (before, after) in enumerate(zip(widths, widths[1:]), 1):
        block = f"mesh_generator/{scope}/resblock{i}"
        if before != after:
            shapes[f"{block}/shortcut/weights"] = (before, after)
        shapes[f"{block}/filter1/weights"] = (before * _ORDER, after)
        shapes[f"{block}/bias_relu1/bias"] = (after,)
        shapes[f"{block}/filter2/weights"] = (after * _ORDER, after)
        shapes[f"{block}/bias_relu2/bias"] = (after,)
