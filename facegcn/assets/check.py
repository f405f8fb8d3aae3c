"""Every file a config needs: where it belongs, whether it is there and sound, where it comes from.

    python -m facegcn.assets check --config configs/bfm09.yaml

Training and test ask ``require_assets`` first, so a user learns of everything that is missing at once.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from facegcn.assets import bfm_files
from facegcn.assets.converters import CONVERTERS, converter_version
from facegcn.assets.worlds import own_model_cure
from facegcn.config import Config
from facegcn.errors import BrokenFile, ModelFileError, UserError, log
from facegcn.files import npz_headers, read_npz
from facegcn.model_format import MADE_BY, check_model_file
from facegcn.networks.frozen import FACENET, RECON, Interface, read_graph

PRESENT, ABSENT, BROKEN, TO_BE_MADE = "present", "absent", "broken", "to be made"
_WIDTH = 116  # of the printed table
_FROZEN_COMPONENTS = bfm_files.IDENTITY + bfm_files.EXPRESSION + bfm_files.ALBEDO  # what FaceReconModel.pb gives


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
        used: whether it is opened when it is there.
        status: ``present``, ``absent``, ``broken`` or ``to be made`` (on first use, from files that are there).
        reason: why it is broken.
        cure: what to do when it is absent or broken.
        note: what else the user should know of it as things stand.
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
    used: bool = True
    note: str = ""

    @property
    def missed(self) -> bool:
        """Whether the config cannot run because of it."""
        return self.used and self.status == BROKEN or self.needed and self.status == ABSENT


def list_assets(config: Config, mode: str = "test") -> list[Asset]:
    """Every file that a config needs or can use, looked for and looked into; [] in the demo world as it comes.

    Args:
        config: the settings.
        mode: ``train`` or ``test``, which needs the networks of the identity metrics besides.
    """
    assets = []
    if config.model_file or config.world != "demo":
        assets += _model_assets(config)
    if config.regressor == "frozen":
        assets.append(_graph_asset(
            config.path(config.regressor_file), "FaceReconModel.pb", RECON,
            "the regressor: coefficients and 2048 features", "input_imgs:0 (?, 224, 224, 3) BGR 0..255 -> "
            "coeff:0 (?, 257), resnet_v1_50/pool5:0 (?, 1, 1, 2048)",
            "github.com/microsoft/Deep3DFaceReconstruction (its pre-trained network, TensorFlow version)",
            "MIT (the repository's)", "set regressor: resnet50 to train one instead"))
    if config.facenet_file:
        assets.append(_graph_asset(
            config.path(config.facenet_file), "FaceNetModel.pb", FACENET,
            "1792 identity features: embedding and identity loss", "input:0 (?, 160, 160, 3), phase_train:0 -> "
            "InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool:0 (?, 1, 1, 1792)",
            "github.com/davidsandberg/facenet: the .pb of a pre-trained Inception-ResNet v1, renamed "
            "(Deep3DFaceReconstruction trains with 20170512-110547)", "MIT (the repository's)",
            "set facenet_file: '' to do without"))
    for setting, title, command in (("light_cnn_file", "LightCNN-29", "light-cnn"), ("ir50_file", "IR-50", "ir50")):
        if mode == "test" and getattr(config, setting):
            assets.append(_recognizer_asset(config.path(getattr(config, setting)), setting, title, command))
    return assets


def require_assets(config: Config, mode: str) -> None:
    """Passes when everything that a config needs is there and sound; logs what else there is to know of it.

    Args:
        config: the settings.
        mode: as for ``list_assets``.

    Raises:
        UserError: one message that lists every absent or broken file: place, name, origin, cure.
    """
    assets = list_assets(config, mode)
    missed = [asset for asset in assets if asset.missed]
    if missed:
        raise UserError(f"{len(missed)} file{'s' * (len(missed) > 1)} of the world '{config.world}' "
                        f"{'are' if len(missed) > 1 else 'is'} absent or broken:\n"
                        + "\n".join(_complaint(asset) for asset in missed) + _other_ways(missed)
                        + "\nFor all about each file: python -m facegcn.assets check --config CONFIG"
                        + (" (and docs/bfm09.md)" if config.world == "bfm09" else ""))
    for asset in assets:
        if asset.note:
            log.info("note: %s is %s", asset.path, asset.note)


def table(config: Config, assets: list[Asset]) -> str:
    """The table of ``list_assets`` for people."""
    if not assets:
        return f"world '{config.world}': nothing is needed; what it uses is made here"
    lines = [f"{'status':<11} {'needed':<7} place"]
    for asset in assets:
        lines.append("-" * _WIDTH)
        lines.append(f"{asset.status:<11} {'yes' if asset.needed else 'no':<7} {asset.path}")
        for label, text in (("official", ", ".join(asset.names)), ("broken", asset.reason), ("note", asset.note),
                            ("used for", asset.use), ("from", asset.source), ("licence", asset.licence),
                            ("holds", asset.holds), ("cure", asset.cure if asset.missed else "")):
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


def _other_ways(missed):
    """What a user of BFM09 whose parts are missing can do instead, and what goes with them; else ''."""
    parts = {part.names[0]: part.names for part in bfm_files.PARTS}
    if not any(asset.status == ABSENT and asset.names in parts.values() for asset in missed):
        return ""
    return (f"\n{' (or '.join(bfm_files.FINISHED.names)}) does instead of the six parts {', '.join(parts)}.\n"
            f"{bfm_files.SEGMENTS.names[0]} and {bfm_files.SYMMETRY.names[0]} are used when they are there; without "
            "them the skin and the left/right pairs are estimated, which changes two small loss terms")


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
            asset.status, asset.reason = BROKEN, str(error).removeprefix(asset.path).lstrip(": ")
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
        "own": ("yours (docs/model_format.md)", "yours", own_model_cure(config.world)),
    }["own" if config.model_file else config.world]
    model = Asset(path, (), "the face: shape, albedo, landmarks", source, licence,
                  "mean_shape (N, 3), id_basis, exp_basis, albedo_basis (N, 3, K), mean_albedo (N, 3) float32; "
                  "triangles (F, 3), landmarks (68,), skin_index, symmetry_pairs (P, 2) int32", True, cure=cure)
    frozen = config.regressor == "frozen"
    _looked_into(model, lambda file: check_model(file, _FROZEN_COMPONENTS if frozen else None))
    if model.status == PRESENT:
        model.note = older_converter(path)
    if not official:
        return [model]
    parts = _part_assets(config.root_dir, path if model.status == PRESENT else None)
    if model.status == BROKEN:
        model.cure = ("delete it; it is made anew from the official files beside it"
                      if bfm_files.has_sources(config.root_dir) else f"delete it, and {cure}")
    if model.status == ABSENT and bfm_files.has_sources(config.root_dir):
        model.status = TO_BE_MADE  # where one of the parts is broken, that is what is complained of
    return [model, *parts]


def _part_assets(folder: str, made: str | None) -> list[Asset]:
    """The official files of a BFM09 model; ``made``: path of the sound model, where they are needed no more."""
    finished = bfm_files.locate(folder, bfm_files.FINISHED)
    missing, sources = bfm_files.missing_parts(folder), bfm_files.has_sources(folder)
    read = bfm_files.read_files(folder)
    assets = []
    for file in (*bfm_files.PARTS, bfm_files.FINISHED, *bfm_files.EXTRAS):
        path = bfm_files.locate(folder, file)
        part = file in bfm_files.PARTS
        needed = not made and part and (file in missing and not finished if missing else path is not None)
        asset = Asset(path or os.path.join(folder, file.names[0]), file.names, file.use, file.source, file.licence,
                      file.holds, needed, used=file in read,
                      cure="take it anew from its source" if path else "put it there")
        if path and part and finished:
            asset.cure += f"; or remove it: {finished} does instead"
        if made:  # they have done their duty: not looked into
            asset.status = PRESENT if path else ABSENT
            if sources and asset.used and _age_mark(path) > _age_mark(made):
                asset.note = f"newer than {made}, so not in it: delete {os.path.basename(made)} to make it anew"
        else:
            _looked_into(asset, file.check)
            if asset.status == BROKEN and not asset.used:
                asset.note = "not used: other files do instead"
        assets.append(asset)
    return assets


def _age_mark(path: str) -> float:
    """When a file came to its place: archives keep the time of writing, years ago, but not that of the entry."""
    found = os.stat(path)
    return max(found.st_mtime, found.st_ctime)


def _graph_asset(path, name, interface: Interface, use, holds, source, licence, cure) -> Asset:
    return _looked_into(
        Asset(path, (name,), use, source, licence, f"frozen TensorFlow graph: {holds}", True,
              cure=f"put it there; {cure}"), lambda file: read_graph(file, interface))


def _recognizer_asset(path, setting, title, command) -> Asset:
    from facegcn.identity.torch_weights import load_converted

    return _looked_into(
        Asset(path, (), f"identity cosine of {title} in test mode", "made here, from the published checkpoint",
              "that of the checkpoint", f"weights of {title} (.npz)", True,
              cure=f"python -m facegcn.assets {command} --source CHECKPOINT --out {path}; or set {setting}: '' to do "
                   "without"), load_converted)


# ---------------------------------------------------------------- looking into files
def check_model(path: str, components: int | None = None) -> None:
    """Checks a morphable model's file as ``MorphableModel.load`` does, but for the numbers in its bases.

    Args:
        path: the file.
        components: how many identity, expression and albedo components there must be together; None = any.

    Raises:
        ModelFileError: names the array and what is wrong.
    """
    headers = check_model_file(path)
    total = sum(headers[name][0][2] for name in ("id_basis", "exp_basis", "albedo_basis"))
    if components is not None and total != components:
        raise ModelFileError(f"{path}: has {total} identity, expression and albedo components, FaceReconModel.pb gives "
                             f"{components}: the frozen regressor goes with BFM09 only; set regressor: resnet50")


def older_converter(path: str) -> str:
    """A note where a converter of this package has made a model, in another version; else ''."""
    headers = npz_headers(path)
    made_by = str(read_npz(path, [MADE_BY])[MADE_BY]) if MADE_BY in headers else ""
    name = made_by.partition(" ")[0]
    if name not in CONVERTERS or made_by == converter_version(name):
        return ""
    return f"made by an older version of the converter: python -m facegcn.assets {name} makes it anew"
