"""Settings of a run: one flat dataclass, a YAML file of overrides, ``--set key=value``.

Origin of each default: [paper], [released code] or [ours]. ``configs/*.yaml`` hold only what
differs in a world; everything resolved is written into the run folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass

import yaml


class UserError(Exception):
    """A mistake the user can mend: shown as one message, without a traceback, exit code 2."""


WORLDS = ("demo", "ict", "bfm09")


@dataclass
class Config:
    """Every setting of packing, training and testing, with its default."""

    # ---- world and files
    world: str = "demo"  # demo | ict | bfm09: where the morphable model comes from
    name: str = "demo"  # data set name; part of the run folder's name
    suffix: str = ""  # appended to the run folder's name; default: model, plus _gan
    root_dir: str = "data/demo"  # folder of the model, the images and the packed file
    runs_dir: str = "runs"  # run folders are made here
    model_file: str = ""  # morphable model, relative to root_dir; '' = model.npz, in demo the procedural face
    images: str = "segmented"  # folder of segmented RGBA PNGs, relative to root_dir
    bin_file: str = "faces.bin"  # packed images, relative to root_dir
    img_size: int = 224  # width and height of the aligned crop, pixels [paper]
    seed: int = 2  # every random choice derives from it [released code]
    val_count: int = 4096  # images held out for validation [released code]
    test_count: int = 4096  # images held out for testing [released code]

    # ---- demo world
    demo_vertices: int = 8000  # density of the procedural face
    demo_portraits: int = 448  # made portraits that are packed, held-out ones included

    # ---- regressor
    regressor: str = "small"  # small | resnet50 | frozen (FaceReconModel.pb)
    regressor_pixels: int = 112  # the CNN looks at the crop at this width
    regressor_start: str = ""  # starting weights (.npz), relative to the repository
    regressor_file: str = "FaceReconModel.pb"  # graph of the 'frozen' regressor, relative to root_dir [released code]
    facenet_file: str = ""  # FaceNetModel.pb, relative to root_dir: embedding and identity loss; "" = none [paper]
    rec_steps: int = 2000  # training steps of stage rec
    rec_batch_size: int = 32  # made portraits a step
    rec_reuse: int = 3  # times each made portrait is learnt from
    rec_photo_batch: int = 0  # packed photos a step; 0 = made portraits only
    rec_photo_after: float = 0.5  # share of rec_steps after which photos take part
    rec_lr: float = 1e-3  # peak learning rate, cosine decay
    fit_steps: int = 0  # photometric fitting of a photo's coefficients after regression; 0 = none

    # ---- texture networks
    model: str = "resnet"  # resnet [paper] | normal [released code's default]
    wide: bool = False  # wider feature maps [released code]
    nz: int = 512  # latent width of the 'normal' refiner [released code]
    residual: bool = True  # the head corrects the coarse albedo [ours]
    delit: bool = True  # the refiner also sees the photo divided by the shading [ours]
    relight: bool = True  # the fine face's light is fitted anew to its albedo [ours]
    erosion: int = 9  # width of the ellipse that takes the skin mask's border off, pixels [released code]
    visibility: str = "depth"  # depth [ours] | normal [released code]
    sampling: str = "bilinear"  # of the photo's colours: bilinear [ours] | released (half a pixel off) [released code]

    # ---- training of the texture networks
    losses: str = "paper"  # paper (pixel loss trained) | released (logged only)
    epoch: int = 50  # [released code]
    batch_size: int = 4  # [paper]
    lr: float = 1e-4  # Adam [paper]
    lr_decay: float = 0.98  # per epoch, staircase [paper]
    clip_norm: float = 5.0  # of each variable's gradient [released code]
    made_portraits: int = 0  # made portraits mixed with the packed photos, half of the examples [ours]
    drop_rate: float = 0.0  # dropout of the embedding while training
    render_start: float = 0.0  # added to the epoch's render weight; 1 = image losses at once [ours]
    pixel_weight: float = 1.0  # trained in the loss set 'paper' [paper]
    identity_weight: float = 0.2  # [paper]
    truth_weight: float = 3.0  # distance from the true albedo, on made portraits only [ours]
    symmetry_weight: float = 0.5  # [released code]
    variance_weight: float = 0.01  # [released code]
    gan: bool = False  # train against the image critic
    adv_lambda: float = 1e-3  # adversarial weight [paper]
    critic_steps: int = 5  # critic steps a generator step [paper]
    critic_norm: str = "batch"  # batch [released code] | layer | none

    # ---- running
    eval: float = 1.0  # epochs between validations and sample sheets; 0 = only at the end
    buffer_size: int = 256  # shuffle buffer, images
    workers: int = 2  # parallel image readers
    log_steps: int = 20  # training steps between lines of stats.jsonl
    test_batch_size: int = 8  # photos reconstructed at a time
    light_cnn_file: str = ""  # converted LightCNN-29, relative to root_dir: identity cosine in test mode; "" = none
    ir50_file: str = ""  # converted face.evoLVe IR-50, relative to root_dir: likewise; "" = none

    def path(self, name: str) -> str:
        """Where a file of the data folder is: ``name`` as it is when absolute, else in root_dir."""
        return name if os.path.isabs(name) else os.path.join(self.root_dir, name)

    @property
    def run_name(self) -> str:
        """Name of the run folder after its number: data set, then suffix or network."""
        suffix = self.suffix or self.model + ("_wide" if self.wide else "") + ("_gan" if self.gan else "")
        return f"{self.name}-{suffix}"


CHOICES = {"world": WORLDS, "regressor": ("small", "resnet50", "frozen"), "model": ("resnet", "normal"),
           "visibility": ("depth", "normal"), "sampling": ("bilinear", "released"),
           "losses": ("paper", "released"),
           "critic_norm": ("batch", "layer", "none")}
_POSITIVE = ("img_size", "demo_vertices", "demo_portraits", "regressor_pixels", "rec_batch_size", "rec_reuse", "nz",
             "batch_size", "lr", "lr_decay", "clip_norm", "rec_lr", "critic_steps", "buffer_size",
             "workers", "erosion", "log_steps", "test_batch_size")
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def load_config(path: str | None = None, overrides: dict | None = None) -> Config:
    """Defaults, then the YAML file, then ``overrides``.

    Args:
        path: YAML file of ``key: value`` lines; None for the defaults of the demo world.
        overrides: values by key; strings are read as YAML scalars ("1e-3", "true").

    Raises:
        UserError: the file is absent or no mapping; a key is unknown; a value has the wrong type
            or lies outside its range. The message names it and the cure.
    """
    config = Config()
    for source, values in ((path, _read_yaml(path)), ("--set", overrides or {})):
        for key, value in values.items():
            setattr(config, key, _checked(key, value, source))
    return config


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """``["lr=1e-3", ...]`` -> ``{"lr": "1e-3", ...}``.

    Raises:
        UserError: an entry has no ``=``.
    """
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: write it as key=value, for example --set lr=1e-4")
        values[key.strip()] = value.strip()
    return values


def config_from_arguments(args) -> Config:
    """The settings of a command line: ``args.config``, then ``args.set``, then flags named like settings.

    Args:
        args: argparse result; a flag that was not given is None.

    Raises:
        UserError: as ``load_config``.
    """
    flags = {f.name: getattr(args, f.name) for f in dataclasses.fields(Config)
             if getattr(args, f.name, None) is not None}
    return load_config(args.config, {**parse_assignments(args.set), **flags})


def save_config(config: Config, path: str, **found_late) -> None:
    """Writes the resolved settings, and values known only at run time, as YAML."""
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump({**dataclasses.asdict(config), **found_late}, file, sort_keys=False)


def _read_yaml(path: str | None) -> dict:
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file) or {}
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}; "
                        "the ones that come with the project are in configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return values


def _checked(key, value, source):
    """The value in its field's type; raises UserError naming key, source and cure."""
    fields = {f.name: f for f in dataclasses.fields(Config)}
    if key not in fields:
        near = difflib.get_close_matches(str(key), fields, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "facegcn/config.py lists all settings"
        raise UserError(f"{source}: unknown setting '{key}'; {hint}")
    wanted = _TYPES[fields[key].type]
    value = _converted(value, wanted)
    if type(value) is not wanted:
        raise UserError(f"{source}: '{key}' must be of type {fields[key].type}, got {value!r}")
    if key == "drop_rate" and value >= 1:
        raise UserError(f"{source}: 'drop_rate' must be below 1, got {value!r}")
    if key in CHOICES and value not in CHOICES[key]:
        raise UserError(f"{source}: '{key}' must be one of {', '.join(CHOICES[key])}, got {value!r}")
    if key in _POSITIVE and value <= 0 or wanted in (int, float) and value < 0:
        raise UserError(f"{source}: '{key}' must be "
                        f"{'above 0' if key in _POSITIVE else '0 or more'}, got {value!r}")
    return value


def _converted(value, wanted):
    """Reads a string as the wanted scalar; an int will do for a float. Else the value unchanged."""
    if wanted is str:
        return value
    if isinstance(value, str):
        try:
            # YAML 1.1 takes "1e-4" for a string, so numbers are read by Python.
            value = wanted(value) if wanted is not bool else yaml.safe_load(value)
        except (ValueError, yaml.YAMLError):
            return value
    if wanted is float and type(value) is int:
        return float(value)
    return value
