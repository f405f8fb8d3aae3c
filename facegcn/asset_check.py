"""Every file a config needs: where it belongs, whether it is there and sound, where it comes from.

    python -m facegcn.assets check --config configs/bfm09.yaml

Training and test ask ``require_assets`` first, so a user learns of everything that is missing at once.
"""

from __future__ import annotations

import os
import textwrap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from facegcn import bfm_files
from facegcn.config import Config, UserError
from facegcn.matfile import BrokenFile
from facegcn.morphable import LANDMARK_COUNT, MorphableModel

PRESENT, ABSENT, BROKEN, TO_BE_MADE = "present", "absent", "broken", "to be made"
_WIDTH = 116  # of the printed table
_GRAPH_TENSORS = {
    "FaceReconModel.pb": ("input_imgs:0", "coeff:0", "resnet_v1_50/pool5:0"),
    "FaceNetModel.pb": ("input:0", "phase_train:0", "InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool:0")}
_FROZEN_COMPONENTS = bfm_files.IDENTITY + bfm_files.EXPRESSION + bfm_files.ALBEDO  # what FaceReconModel.pb gives
_MODEL_SHAPES = {"mean_shape": "N3", "id_basis": "N3K", "exp_basis": "N3K", "mean_albedo": "N3", "albedo_basis": "N3K",
                 "triangles": "F3", "landmarks": "L", "skin_index": "S", "symmetry_pairs": "P2", "uv": "N2"}
_INDEX_ARRAYS = ("triangles", "landmarks", "skin_index", "symmetry_pairs")


@dataclass
class Asset:
    """One row of the table.

    Attributes:
        path: where it is, or belongs.
        names: official names, every one of which is accepted; () for a file that is made here.
        use: what it is for.
        source: where it comes from, or how it is made.
        licence: of its content.
        holds: its arrays, shapes and types.
        needed: whether the config cannot do without it as things stand.
        status: ``present``, ``absent``, ``broken`` or ``to be made`` (on first use, from files that are there).
        reason: why it is broken.
        cure: what to do when it is absent or broken.
    """

    path: str
    names: tuple[str, ...]
    use: str
    source: str
    licence: str
    holds: str
    needed: bool
    status: str = ABSENT
    reason: str = ""
    cure: str = ""

    @property
    def missed(self) -> bool:
        """Whether the config cannot run because of it."""
        return self.status == BROKEN or self.needed and self.status == ABSENT


def list_assets(config: Config) -> list[Asset]:
    """Every file that a config needs or can use, looked for and looked into; [] in the demo world as it comes."""
    assets = []
    if config.model_file or config.world != "demo":
        assets += _model_assets(config)
    if config.regressor == "frozen":
        assets.append(_graph_asset(
            config.path(config.regressor_file), "FaceReconModel.pb", "the regressor: coefficients and 2048 features",
            "github.com/microsoft/Deep3DFaceReconstruction (its pre-trained network, TensorFlow version)",
            "MIT (the repository's)", "set regressor: resnet50 to train one instead"))
    if config.facenet_file:
        assets.append(_graph_asset(
            config.path(config.facenet_file), "FaceNetModel.pb", "1792 identity features: embedding and identity loss",
            "github.com/davidsandberg/facenet: the .pb of a pre-trained Inception-ResNet v1, renamed "
            "(Deep3DFaceReconstruction trains with 20170512-110547)", "MIT (the repository's)",
            "set facenet_file: '' to do without"))
    for setting, title, command in (("light_cnn_file", "LightCNN-29", "light-cnn"), ("ir50_file", "IR-50", "ir50")):
        if getattr(config, setting):
            assets.append(_recognizer_asset(config.path(getattr(config, setting)), setting, title, command))
    return assets


def require_assets(config: Config) -> None:
    """Passes when everything that a config needs is there and sound.

    Raises:
        UserError: one message that lists every absent or broken file: place, name, origin, cure.
    """
    missed = [asset for asset in list_assets(config) if asset.missed]
    if missed:
        raise UserError(f"{len(missed)} file{'s' * (len(missed) > 1)} of the world '{config.world}' "
                        f"{'are' if len(missed) > 1 else 'is'} absent or broken:\n"
                        + "\n".join(_complaint(asset) for asset in missed)
                        + "\nFor all about each file: python -m facegcn.assets check --config CONFIG"
                        + (" (and docs/bfm09.md)" if config.world == "bfm09" else ""))


def table(config: Config, assets: list[Asset]) -> str:
    """The table of ``list_assets`` for people."""
    if not assets:
        return f"world '{config.world}': nothing is needed; what it uses is made here"
    lines = [f"{'status':<11} {'needed':<7} place"]
    for asset in assets:
        lines.append("-" * _WIDTH)
        lines.append(f"{asset.status:<11} {'yes' if asset.needed else 'no':<7} {asset.path}")
        for label, text in (("official", ", ".join(asset.names)), ("broken", asset.reason), ("used for", asset.use),
                            ("from", asset.source), ("licence", asset.licence), ("holds", asset.holds),
                            ("cure", asset.cure if asset.missed else "")):
            if text:
                lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{'':<20}{label:<9} ",
                                       subsequent_indent=" " * 30, break_long_words=False)
    missed = sum(asset.missed for asset in assets)
    lines += ["-" * _WIDTH, f"{missed} absent or broken" if missed else "everything that is needed is there"]
    return "\n".join(lines)


def _complaint(asset: Asset) -> str:
    lines = [f"{asset.status}: {asset.path}" + (f": {asset.reason}" if asset.reason else "")]
    if asset.status == ABSENT and asset.names:
        lines.append(f"official name {' or '.join(asset.names)}; from {asset.source}")
    return "  " + "\n      ".join(lines + [asset.cure] * bool(asset.cure))


# ---------------------------------------------------------------- rows
def _looked_into(asset: Asset, check: Callable[[str], object]) -> Asset:
    """Fills in ``status`` and ``reason``."""
    if os.path.isfile(asset.path):
        try:
            check(asset.path)
            asset.status = PRESENT
        except BrokenFile as error:
            asset.status, asset.reason = BROKEN, error.reason
        except (UserError, OSError) as error:
            asset.status, asset.reason = BROKEN, str(error).removeprefix(f"{asset.path}: ")
    return asset


def _model_assets(config: Config) -> list[Asset]:
    """The morphable model, and in the bfm09 world the files it is made of."""
    path = config.path(config.model_file or "model.npz")
    official = config.world == "bfm09" and not config.model_file
    source, licence, cure = {
        "bfm09": ("made here, from the files below", "that of the files below",
                  "put the files that it is made from beside it, and it is made on first use; or, where they are in "
                  f"another folder: python -m facegcn.assets bfm09 --source DIR --out {path}"),
        "ict": ("made here, from a checkout of github.com/ICT-VGL/ICT-FaceKit", "MIT",
                f"python -m facegcn.assets ict --source ICT-FaceKit --out {path}"),
        "demo": ("yours (docs/model_format.md)", "yours", "set model_file: '' for the procedural face"),
    }["demo" if config.model_file else config.world]
    model = Asset(path, (), "the face: shape, albedo, landmarks", source, licence,
                  "mean_shape (N, 3), id_basis, exp_basis, albedo_basis (N, 3, K), mean_albedo (N, 3) float32; "
                  "triangles (F, 3), landmarks (68,), skin_index, symmetry_pairs (P, 2) int32", True, cure=cure)
    frozen = config.regressor == "frozen"
    _looked_into(model, lambda file: check_model(file, _FROZEN_COMPONENTS if frozen else None))
    if not official:
        return [model]
    parts = _part_assets(config.root_dir, model.status == PRESENT)
    if model.status == ABSENT and bfm_files.has_sources(config.root_dir):
        model.status = TO_BE_MADE  # where one of the parts is broken, that is what is complained of
    return [model, *parts]


def _part_assets(folder: str, made: bool) -> list[Asset]:
    """The official files of a BFM09 model; ``made`` when the model is there and they are needed no more."""
    finished = bfm_files.locate(folder, bfm_files.FINISHED)
    missing = bfm_files.missing_parts(folder)
    assets = []
    for file in (*bfm_files.PARTS, bfm_files.FINISHED, *bfm_files.EXTRAS):
        path = bfm_files.locate(folder, file)
        used = path is not None if not missing else file in missing and not finished
        needed = not made and file in bfm_files.PARTS and used
        asset = Asset(path or os.path.join(folder, file.names[0]), file.names, file.use, file.source, file.licence,
                      file.holds, needed, cure="take it anew from its source" if path else "put it there")
        if made:  # they have done their duty: not looked into
            asset.status = PRESENT if path else ABSENT
        else:
            _looked_into(asset, file.check)
        assets.append(asset)
    return assets


def _graph_asset(path, name, use, source, licence, cure) -> Asset:
    tensors = _GRAPH_TENSORS[name]
    return _looked_into(
        Asset(path, (name,), use, source, licence, "frozen TensorFlow graph with " + ", ".join(tensors), True,
              cure=f"put it there; {cure}"), lambda file: check_graph(file, tensors))


def _recognizer_asset(path, setting, title, command) -> Asset:
    from facegcn.torch_weights import load_converted

    return _looked_into(
        Asset(path, (), f"identity cosine of {title} in test mode", "made here, from the published checkpoint",
              "that of the checkpoint", f"weights of {title} (.npz)", True,
              cure=f"python -m facegcn.assets {command} --source CHECKPOINT --out {path}; or set {setting}: '' to do "
                   "without"), load_converted)


# ---------------------------------------------------------------- looking into files
def check_model(path: str, components: int | None = None) -> None:
    """Checks a morphable model's ``.npz``: headers of its arrays, and the range of its indices.

    Args:
        path: the file.
        components: how many identity, expression and albedo components there must be together; None = any.

    Raises:
        BrokenFile: names the array and what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name[:-4]: _header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
        with np.load(path, allow_pickle=False) as data:
            indices = {name: data[name] for name in _INDEX_ARRAYS if name in found}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BrokenFile(path, f"is no whole .npz of arrays: {error}") from None
    missing = [f.name for f in fields(MorphableModel) if f.name != "uv" and f.name not in found]
    if missing:
        raise BrokenFile(path, f"lacks the arrays {', '.join(missing)} (docs/model_format.md describes them)")
    count = found["mean_shape"][0][0] if found["mean_shape"][0] else 0
    letters = {"N": count, "3": 3, "2": 2, "L": LANDMARK_COUNT}
    for name, expected in _MODEL_SHAPES.items():
        shape, dtype = found.get(name, (None, None))
        if shape is None:
            continue
        if len(shape) != len(expected) or any(letters.get(e, s) != s for e, s in zip(expected, shape)):
            raise BrokenFile(path, f"array '{name}' has shape {shape}, expected ({', '.join(expected)})")
        if dtype.kind not in ("iu" if name in indices else "f"):
            raise BrokenFile(path, f"array '{name}' is {dtype}, expected {'int32' if name in indices else 'float32'}")
    for name, array in indices.items():
        if array.size and not 0 <= array.min() <= array.max() < count:
            raise BrokenFile(path, f"array '{name}' has an index out of range: {array.min()}..{array.max()}, "
                                   f"expected 0..{count - 1}")
    total = sum(found[name][0][2] for name in ("id_basis", "exp_basis", "albedo_basis"))
    if components is not None and total != components:
        raise BrokenFile(path, f"has {total} identity, expression and albedo components, FaceReconModel.pb gives "
                               f"{components}: the frozen regressor goes with BFM09 only; set regressor: resnet50")


def _header(archive, name):
    """(shape, dtype) of one ``.npy`` in an ``.npz``."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def check_graph(path: str, tensors: tuple[str, ...]) -> None:
    """Checks that a file is a TensorFlow graph which has some tensors.

    Raises:
        BrokenFile: it is not, or lacks one; all that it lacks are named.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    with open(path, "rb") as file:
        content = file.read()
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(content)
    except DecodeError:
        graph.Clear()
    if not graph.node:
        raise BrokenFile(path, "is no frozen TensorFlow graph (GraphDef); fetch it again, in binary form")
    names = {node.name for node in graph.node}
    lacking = [tensor for tensor in tensors if tensor.split(":")[0] not in names]
    if lacking:
        raise BrokenFile(path, f"is a graph without {', '.join(lacking)}: another network, or renamed")
